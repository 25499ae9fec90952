"""Training in two processes, and with the hosts' own configs."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import mmdet
import mmseg
import pytest

from tests.tools.runs import (
    DETECTION,
    NO_WORKERS,
    Run,
    assert_left_behind,
    epochs,
    rows,
    run,
)


@pytest.mark.slow
def test_two_processes_one_without_objects(data: Path, tmp_path: Path):
    """Every second image is empty, and with no shuffling all of these go to the second process."""
    for split in ('train', 'val'):
        path = tmp_path / 'coco' / 'annotations' / f'instances_{split}2017.json'
        content = json.loads((data / 'coco' / 'annotations' / path.name).read_text())
        content['images'] = content['images'][:4]
        kept = {image['id'] for image in content['images'][::2]}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in kept]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        shutil.copytree(data / 'coco' / f'{split}2017', tmp_path / 'coco' / f'{split}2017')
    launch = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', 2]
    arguments = ['--data', tmp_path / 'coco', '--work-dir', tmp_path / 'run', '--device', 'cpu']
    options = ['train_dataloader.sampler.shuffle=False', 'train_dataloader.batch_size=1']
    done = run(
        *[*launch, 'tools/train.py', DETECTION, *arguments, '--launcher', 'pytorch'],
        *['--cfg-options', *epochs(1), *options],
    )
    finished = Run(tmp_path / 'run', done.stdout, tmp_path / 'coco')
    header = rows(done.stdout)
    assert '2 processes' in header['device']
    assert header['batch'].startswith('2 images a step (1 x 2 processes x 1 accumulated)')
    assert header['schedule'] == '1 epochs of 2 iterations'
    assert header['learning rate'] == '0.002, for the same batch as in the recipe'
    assert '│ val/loss ' in done.stdout
    assert done.stdout.count('evaluation after 2 iterations') == 1
    assert set(finished.metrics) >= {'bbox_mAP', 'segm_mAP'}
    assert_left_behind(finished)


STOCK_ONCE = [
    *NO_WORKERS,
    'model.backbone.init_cfg=None',
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.checkpoint.save_last=False',
]


def stock(package: ModuleType, config: str) -> Path:
    """A config of a host's, where pip put it."""
    return Path(package.__file__).parent / '.mim' / 'configs' / config


@pytest.mark.slow
def test_a_stock_config_of_mmdet(data: Path, tmp_path: Path):
    options = [
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.2.scale=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(64,64)',
        'train_dataloader.dataset.indices=2',
        'val_dataloader.dataset.indices=1',
    ]
    config = stock(mmdet, 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    arguments = ['--data', data / 'coco', '--work-dir', tmp_path / 'run', '--device', 'cpu']
    done = run('tools/train.py', config, *arguments, '--cfg-options', *STOCK_ONCE, *options)
    header = rows(done.stdout)
    assert header['model'].startswith('MaskRCNN: ResNet > FPN > StandardRoIHead')
    assert header['classes'].startswith('5: circle')
    assert header['batch'] == '2 images a step'
    assert header['learning rate'].startswith('0.0025, scaled by 0.125: the recipe has 16 images a step')
    assert 'warning' not in done.stdout
    assert 'epoch 1/1  1/1  loss ' in done.stdout
    finished = Run(tmp_path / 'run', done.stdout, data / 'coco')
    assert set(finished.metrics) >= {'bbox_mAP', 'segm_mAP'}
    assert_left_behind(finished)


@pytest.mark.slow
def test_a_stock_config_of_mmseg(data: Path, tmp_path: Path):
    """Its SyncBN, for GPUs, becomes BatchNorm; its class names give way to those of the data."""
    options = [
        'model.pretrained=None',
        'model.data_preprocessor.size=(64,64)',
        'train_cfg.max_iters=1',
        'train_cfg.val_interval=1',
        'train_dataloader.dataset.pipeline.2.scale=(256,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(256,64)',
    ]
    config = stock(mmseg, 'upernet/upernet_r18_4xb4-160k_ade20k-512x512.py')
    arguments = ['--data', data / 'ade', '--work-dir', tmp_path / 'run', '--device', 'cpu']
    done = run('tools/train.py', config, *arguments, '--cfg-options', *STOCK_ONCE, *options)
    header = rows(done.stdout)
    assert header['model'].startswith('EncoderDecoder: ResNetV1c > UPerHead')
    assert header['classes'].startswith('6: background, circle')
    finished = Run(tmp_path / 'run', done.stdout, data / 'ade')
    assert 0 < finished.metrics['mIoU'] <= 1
    assert_left_behind(finished)
