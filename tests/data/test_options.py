"""A number of classes on the command line that is not that of the data is an error, and not replaced."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config

from swin_dense.data import ade20k, coco, fields
from swin_dense.engine import config as configs
from swin_dense.errors import UnsafeFileError, UserError
from tests.data import test_ade20k, test_coco

ROOT = Path(__file__).parents[2]
BOX, MASK = 'model.roi_head.bbox_head.num_classes', 'model.roi_head.mask_head.num_classes'
DETECTION = [[f'{BOX}=7'], [f'{BOX}=3', f'{MASK}=7']]
SEGMENTATION = [['model.decode_head.num_classes=7'], ['model.auxiliary_head.num_classes=7']]


def detector(root: Path, options: list[str]) -> Config:
    config = test_coco.recipe() if not options else configs.load_config(str(ROOT / test_coco.RECIPE), options)
    coco.point_at(config, test_coco.data_set(root))  # of three classes
    return config


def segmenter(root: Path, options: list[str]) -> Config:
    config = configs.load_config(str(ROOT / 'configs/demo/upernet_swin_nano.py'), options)
    ade20k.point_at(config, test_ade20k.data_set(root))
    (root / 'classes.txt').write_text('a\nb\nc\n')
    return config


def message(call: Callable, *arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize('options', DETECTION)
def test_detection(tmp_path: Path, options: list[str]):
    text = message(coco.name_classes, detector(tmp_path, options), options)
    assert text.startswith(
        f'--cfg-options {options[-1]}: num_classes is 7, but 3 classes are in annotations '
    )


@pytest.mark.parametrize('options', SEGMENTATION)
def test_segmentation(tmp_path: Path, options: list[str]):
    text = message(ade20k.name_classes, segmenter(tmp_path, options), tmp_path, None, options)
    assert text.startswith(f'--cfg-options {options[-1]}: num_classes is 7, but 3 classes are in ')
    assert 'classes.txt' in text


def test_the_number_of_the_data_is_welcome(tmp_path: Path):
    options = [f'{BOX}=3', 'model.backbone.embed_dims=48', 'train_dataloader.batch_size=1']
    config = detector(tmp_path, options)
    coco.name_classes(config, options)
    assert fields.head_classes(config.model) == {3}


@pytest.mark.parametrize('suffix', ['pkl', 'pickle', 'yaml', 'yml'])
@pytest.mark.parametrize('key', ['ann_file', 'proposal_file'])
def test_files_that_run_code_are_not_opened(tmp_path: Path, key: str, suffix: str):
    """They need not even exist."""
    config = detector(tmp_path, [])
    config.train_dataloader.dataset[key] = f'absent.{suffix}'
    with pytest.raises(UnsafeFileError) as caught:
        coco.name_classes(config)
    assert caught.value.status == 3
    assert f'train_dataloader.dataset.{key}: absent.{suffix} is refused' in str(caught.value)


def test_nor_those_of_a_metric(tmp_path: Path):
    config = detector(tmp_path, [])
    config.val_evaluator['ann_file'] = 'absent.pkl'
    assert 'val_evaluator.ann_file: absent.pkl' in message(coco.name_classes, config)
