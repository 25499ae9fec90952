"""The tools as a person runs them: real processes on a tiny set of shapes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import cv2
import mmdet
import mmengine.device.utils as mmengine_device
import mmseg
import numpy as np
import pytest
import torch
from packaging.version import Version
from rich.console import Console

from swin_dense import hosts
from swin_dense.data import shapes
from swin_dense.data.shapes import CLASSES
from swin_dense.errors import exit_on_user_error
from swin_dense.evaluate import coco
from swin_dense.report import terminal
from tests.tools.loading import load_tool

ROOT = Path(__file__).parents[2]
DETECTION = 'configs/demo/mask_rcnn_swin_nano.py'
SEGMENTATION = 'configs/demo/upernet_swin_nano.py'
EPOCHS, ITERS = 10, 8  # of the runs that everything here shares
NO_WORKERS = [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
SMALL_DETECTION = [
    'model.test_cfg.rcnn.max_per_img=100',  # as many as COCO's own scores count
    *NO_WORKERS,
    'train_dataloader.dataset.pipeline.2.scale=(128,128)',
    'train_dataloader.dataset.pipeline.2.ratio_range=(1.0,1.0)',
    'train_dataloader.dataset.pipeline.3.crop_size=(128,128)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(128,128)' for split in ('val', 'test')),
    'optim_wrapper.optimizer.lr=2e-3',
    'param_scheduler.0.end=5',
    'default_hooks.logger.interval=1',
]
SMALL_SEGMENTATION = [
    *NO_WORKERS,
    'model.data_preprocessor.size=(128,128)',
    'train_dataloader.dataset.pipeline.2.scale=(512,128)',
    'train_dataloader.dataset.pipeline.3.crop_size=(128,128)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(512,128)' for split in ('val', 'test')),
    'param_scheduler.0.end=2',
    'default_hooks.logger.interval=1',
]


def epochs(count: int) -> list[str]:
    return [*SMALL_DETECTION, f'train_cfg.max_epochs={count}', f'train_cfg.val_interval={count}']


def iterations(count: int) -> list[str]:
    interval = [
        f'{key}={ITERS // 2}' for key in ('train_cfg.val_interval', 'default_hooks.checkpoint.interval')
    ]
    return [*SMALL_SEGMENTATION, f'train_cfg.max_iters={count}', *interval]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    """Run Python with these arguments from the project's root."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200'}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, f'{done.stdout}\n{done.stderr}'
    return done


@dataclass
class Run:
    """A finished training run."""

    folder: Path
    output: str
    data: Path

    @property
    def metrics(self) -> dict[str, float | None]:
        return json.loads((self.folder / 'metrics.json').read_text())

    def log(self) -> str:
        return max(self.folder.glob('*/*.log')).read_text()

    def losses(self) -> list[float]:
        lines = max(self.folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
        return [entry['loss'] for entry in map(json.loads, lines) if 'loss' in entry]


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes; the detector is evaluated on what it is trained on, or it would find nothing so soon."""
    root = tmp_path_factory.mktemp('data')
    shapes.write(root, train=8, val=4)
    shutil.rmtree(root / 'coco' / 'val2017')
    shutil.copytree(root / 'coco' / 'train2017', root / 'coco' / 'val2017')
    annotations = root / 'coco' / 'annotations'
    shutil.copyfile(annotations / 'instances_train2017.json', annotations / 'instances_val2017.json')
    return root


@pytest.fixture(scope='session')
def detection(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('runs') / 'detection'
    arguments = ['--data', data / 'coco', '--work-dir', folder, '--device', 'cpu', '--seed', 0]
    done = run('tools/train.py', DETECTION, *arguments, '--cfg-options', *epochs(EPOCHS))
    assert done.stderr == ''
    return Run(folder, done.stdout, data / 'coco')


@pytest.fixture(scope='session')
def segmentation(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('runs') / 'segmentation'
    arguments = ['--data', data / 'ade', '--work-dir', folder, '--device', 'cpu', '--seed', 0]
    done = run('tools/train.py', SEGMENTATION, *arguments, '--cfg-options', *iterations(ITERS))
    assert done.stderr == ''
    return Run(folder, done.stdout, data / 'ade')


def rows(output: str) -> dict[str, str]:
    """The header's names and values."""
    return dict(re.findall(r'^(\S+(?: \S+)?) {2,}(.*\S) *$', output, re.MULTILINE))


def assert_left_behind(finished: Run) -> None:
    picture = cv2.imread(str(finished.folder / 'predictions.png'))
    assert min(picture.shape[:2]) > 200
    assert 'mmengine - INFO' in finished.log()
    assert '\x1b' not in finished.output, 'no terminal, no colours'
    assert 'INFO' not in finished.output
    losses = finished.losses()
    assert losses
    assert np.isfinite(losses).all()


def test_training_a_detector(detection: Run):
    header = rows(detection.output)
    assert header['config'].startswith(DETECTION)
    assert header['model'].startswith('MaskRCNN: SwinTransformer > FPN > StandardRoIHead')
    assert header['train'].startswith('8 images, ')
    assert header['classes'] == '5: circle, triangle, rectangle, star, ring'
    assert header['device'].startswith('cpu')
    assert header['precision'] == 'fp32'
    assert header['batch'].startswith('2 images a step')
    assert header['schedule'] == f'{EPOCHS} epochs of 4 iterations'
    assert f'epoch {EPOCHS}/{EPOCHS}  4/4  loss ' in detection.output
    assert set(detection.metrics) == {
        f'{kind}_{name}' for kind in ('bbox', 'segm') for name in coco.SCORES[:6]
    }
    assert all(value is None or 0 <= value <= 1 for value in detection.metrics.values())
    assert detection.metrics['bbox_mAP_50'] > 0
    assert_left_behind(detection)
    assert len(detection.losses()) == 4 * EPOCHS
    assert (detection.folder / f'epoch_{EPOCHS}.pth').is_file()


def test_training_a_segmentor(segmentation: Run):
    header = rows(segmentation.output)
    assert header['model'].startswith('EncoderDecoder: SwinTransformer > UPerHead')
    assert header['classes'] == '6: background, circle, triangle, rectangle, star, ring'
    assert header['schedule'] == f'{ITERS} iterations'
    assert f'iterations 1-{ITERS // 2}  {ITERS // 2}/{ITERS // 2}  loss ' in segmentation.output
    assert f'iterations {ITERS // 2 + 1}-{ITERS}  {ITERS // 2}/{ITERS // 2}  loss ' in segmentation.output
    assert set(segmentation.metrics) == {'aAcc', 'mIoU', 'mAcc'}
    assert all(0 < value <= 1 for value in segmentation.metrics.values())
    assert_left_behind(segmentation)
    assert len(segmentation.losses()) == ITERS


@pytest.fixture(scope='session')
def tested_detection(detection: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('tests') / 'detection'
    arguments = ['--data', detection.data, '--work-dir', folder, '--device', 'cpu']
    checkpoint, out = detection.folder / f'epoch_{EPOCHS}.pth', folder / 'new' / 'results.json'
    options = ['--out', out, '--cfg-options', *SMALL_DETECTION]
    done = run('tools/test.py', DETECTION, checkpoint, *arguments, *options)
    assert done.stderr == ''
    assert f'predictions written to {out}' in done.stdout
    return Run(folder, done.stdout, detection.data)


@pytest.fixture(scope='session')
def tested_segmentation(segmentation: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('tests') / 'segmentation'
    arguments = ['--data', segmentation.data, '--work-dir', folder, '--device', 'cpu']
    checkpoint = segmentation.folder / f'iter_{ITERS}.pth'
    options = ['--out', folder / 'maps', '--cfg-options', *SMALL_SEGMENTATION]
    done = run('tools/test.py', SEGMENTATION, checkpoint, *arguments, *options)
    assert done.stderr == ''
    return Run(folder, done.stdout, segmentation.data)


def test_evaluating_a_detector(detection: Run, tested_detection: Run):
    """The metrics of the run's own last evaluation."""
    header = rows(tested_detection.output)
    assert header['weights'] == str(detection.folder / f'epoch_{EPOCHS}.pth')
    assert header['test'].startswith('8 images, ')
    assert tested_detection.metrics == pytest.approx(detection.metrics, abs=1e-3, nan_ok=True)
    assert (tested_detection.folder / 'predictions.png').is_file()


def test_evaluating_a_segmentor(segmentation: Run, tested_segmentation: Run):
    assert tested_segmentation.metrics == pytest.approx(segmentation.metrics, abs=1e-4)
    assert (tested_segmentation.folder / 'predictions.png').is_file()


def test_saved_label_maps_have_the_reported_score(segmentation: Run, tested_segmentation: Run):
    counts = np.zeros((7, 7), int)
    for truth in sorted((segmentation.data / 'annotations' / 'validation').glob('*.png')):
        labels = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
        predicted = cv2.imread(str(tested_segmentation.folder / 'maps' / truth.name), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == labels.shape
        np.add.at(counts, (labels, predicted), 1)
    assert counts[:, 0].sum() == 0, 'written in the numbers of the label maps'
    labelled = counts[1:, 1:]
    hit = np.diag(labelled)
    union = labelled.sum(0) + labelled.sum(1) - hit
    assert (hit[union > 0] / union[union > 0]).mean() == pytest.approx(segmentation.metrics['mIoU'], abs=1e-4)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``in_process('train', ...)`` is what tools/train.py does, without a process of its own."""
    monkeypatch.setattr(mmengine_device, 'DEVICE', mmengine_device.DEVICE)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES', ''))
    monkeypatch.chdir(ROOT)

    def tool(name: str, *arguments: object) -> None:
        monkeypatch.setattr(terminal, 'console', Console(file=sys.stdout, width=160))
        monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *map(str, arguments)])
        exit_on_user_error(load_tool(name).main)

    return tool


def test_saved_detections_have_the_reported_score(
    detection: Run, tested_detection: Run, in_process: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    predictions = tested_detection.folder / 'new' / 'results.json'
    entries = json.loads(predictions.read_text())
    assert set(entries[0]) == {'image_id', 'bbox', 'score', 'category_id', 'segmentation'}
    arguments = ['--predictions', predictions, '--data', detection.data, '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    assert set(scored) == {f'{kind}_{name}' for kind in ('bbox', 'segm') for name in coco.SCORES}
    rounded = {name: None if value is None else round(value, 3) for name, value in scored.items()}
    assert {name: rounded[name] for name in tested_detection.metrics} == tested_detection.metrics
    assert 'AR_l@100' in capsys.readouterr().out
    evaluation = json.loads((tmp_path / 'evaluation.json').read_text())
    assert [row['name'] for row in evaluation['classes']['masks']] == list(CLASSES)


def test_a_run_leaves_predictions_with_its_score(detection: Run, in_process: Callable, tmp_path: Path):
    """Scored from the work directory of the training run, boxes and masks each from their own file."""
    arguments = ['--predictions', detection.folder, '--data', detection.data, '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    rounded = {name: None if value is None else round(value, 3) for name, value in scored.items()}
    assert {name: rounded[name] for name in detection.metrics} == detection.metrics


def test_label_maps_that_a_run_leaves_have_its_score(
    segmentation: Run, tested_segmentation: Run, in_process: Callable, tmp_path: Path
):
    kept = segmentation.folder / 'predictions'
    arguments = ['--predictions', kept, '--data', segmentation.data, '--work-dir', tmp_path]
    in_process('test', SEGMENTATION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    rounded = {name: round(value, 4) for name, value in segmentation.metrics.items()}  # 16.67 / 100
    assert {name: round(value, 4) for name, value in scored.items()} == rounded
    for path in kept.glob('*.png'):
        assert (tested_segmentation.folder / 'maps' / path.name).is_file()


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_a_report_of_a_run(task: str, request: pytest.FixtureRequest, in_process: Callable, tmp_path: Path):
    finished: Run = request.getfixturevalue(task)
    in_process('report', finished.folder, '--out', tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    content = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    shown = {item['label']: item['value'] for item in content['headlines']}
    name, label = ('segm_mAP', 'mask mAP') if task == 'detection' else ('mIoU', 'mIoU')
    assert shown[label] == pytest.approx(finished.metrics[name], abs=6e-4)
    assert {'loss', 'learning rate', 'metrics'} == set(content['history'])
    assert content['gallery']['total'] == len(content['gallery']['items']) == content['counts']['images']


def test_empty_predictions_score_0(data: Path, in_process: Callable, tmp_path: Path):
    (tmp_path / 'empty.json').write_text('[]')
    arguments = ['--predictions', tmp_path / 'empty.json', '--data', data / 'coco', '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    assert scored['bbox_mAP'] == scored['segm_mAP'] == 0
    assert json.loads((tmp_path / 'evaluation.json').read_text())['counts']['images_without_predictions'] == 8


def test_predictions_that_are_not_finite(
    data: Path, in_process: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
):
    entry = dict(image_id=1, category_id=1, score=float('nan'), bbox=[1, 2, 3, 4])
    (tmp_path / 'nan.json').write_text(json.dumps([entry]))
    arguments = ['--predictions', tmp_path / 'nan.json', '--data', data / 'coco', '--work-dir', tmp_path]
    with pytest.raises(SystemExit) as ended:
        in_process('test', DETECTION, *arguments)
    assert ended.value.code == 4
    out, err = capfd.readouterr()
    assert 'entry 0 (image_id 1): score is nan: no AP' in one_line(err)
    assert 'mAP' not in out
    assert not (tmp_path / 'metrics.json').exists()


def copied(finished: Run, folder: Path) -> Path:
    """A run to continue that nothing else uses."""
    shutil.copytree(finished.folder, folder)
    newest = Path((folder / 'last_checkpoint').read_text())
    (folder / 'last_checkpoint').write_text(str(folder / newest.name))
    return folder


def test_resuming_the_newest_checkpoint(detection: Run, tmp_path: Path):
    folder = copied(detection, tmp_path / 'run')
    arguments = ['--data', detection.data, '--work-dir', folder, '--device', 'cpu', '--resume']
    done = run('tools/train.py', DETECTION, *arguments, '--cfg-options', *epochs(EPOCHS + 1))
    resumed = Run(folder, done.stdout, detection.data)
    before = 4 * EPOCHS
    assert rows(done.stdout)['schedule'] == f'{EPOCHS + 1} epochs of 4 iterations, resumed after {before}'
    assert f'resumed epoch: {EPOCHS}, iter: {before}' in resumed.log()
    assert f'epoch {EPOCHS + 1}/{EPOCHS + 1}  4/4' in done.stdout
    assert f'epoch {EPOCHS}/' not in done.stdout
    meta = torch.load(folder / f'epoch_{EPOCHS + 1}.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (EPOCHS + 1, before + 4)
    assert len(resumed.losses()) == 4
    assert max(resumed.losses()) < detection.losses()[0], 'it goes on where it was'
    assert f'evaluation after {before + 4} iterations' in done.stdout


def test_resuming_a_named_checkpoint_in_bfloat16(segmentation: Run, tmp_path: Path):
    folder, more = tmp_path / 'run', ITERS + ITERS // 2
    checkpoint = segmentation.folder / f'iter_{ITERS}.pth'
    arguments = ['--data', segmentation.data, '--work-dir', folder, '--device', 'cpu', '--amp', 'bf16']
    options = ['--resume', checkpoint, '--cfg-options', *iterations(more)]
    done = run('tools/train.py', SEGMENTATION, *arguments, *options)
    resumed = Run(folder, done.stdout, segmentation.data)
    header = rows(done.stdout)
    assert header['schedule'] == f'{more} iterations, resumed after {ITERS}'
    assert header['precision'] == 'bf16 autocast'
    assert f'iterations {ITERS + 1}-{more}  {more - ITERS}/{more - ITERS}  loss ' in done.stdout
    assert len(resumed.losses()) == more - ITERS
    assert_left_behind(resumed)
    content = torch.load(folder / f'iter_{more}.pth', weights_only=True)
    assert content['meta']['iter'] == more
    assert {value.dtype for value in content['state_dict'].values()} <= {torch.float32, torch.int64}
    assert 0 < resumed.metrics['mIoU'] <= 1


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
    assert 'the recipe has 16: learning rate 0.02 is NOT scaled' in header['batch']
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


def one_line(err: str) -> str:
    assert err.startswith('error: '), err
    assert err.count('\n') == 1, err
    assert 'Traceback' not in err
    return err


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['configs/demo/mask_rcnn.py'], 'config configs/demo/mask_rcnn.py does not exist'),
        (
            [DETECTION, '--cfg-options', 'model.backbone.embed_dim=8'],
            'did you mean model.backbone.embed_dims?',
        ),
    ],
    ids=['missing config', 'unknown option'],
)
def test_a_mistake_ends_the_process_with_one_line_and_status_2(arguments: list[str], expected: str):
    done = run('tools/train.py', *arguments, status=2)
    assert expected in one_line(done.stderr)
    assert done.stdout == ''


# what a person may get wrong: the command, in the words of prepare_mistakes(), and a part of the answer
MISTAKES = {
    'syntax error': ('train {tmp}/syntax.py', 'config {tmp}/syntax.py, line '),
    'no data folder': ('train {detection} --data {tmp}/absent', 'data folder {tmp}/absent does not exist'),
    'no label maps': ('train {segmentation} --data {tmp}', 'no images with label maps'),
    'data of the other task': ('train {detection} --data {ade}', 'no train annotations'),
    'no JSON': ('train {detection} --data {tmp}/no_json', 'cannot be read as JSON'),
    'two files': ('train {detection} --data {tmp}/two', 'several train annotations'),
    'a class that the JSON lacks': (
        'train {tmp}/class.py --data {coco}',
        "metainfo.classes: 'tringle' is not among the 5 categories of",
    ),
    'classes of a detector': (
        'train {detection} --data {coco} --classes {tmp}/two',
        '--classes is for segmentation',
    ),
    'fp16 on the CPU': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --amp fp16',
        '--amp fp16 needs a GPU',
    ),
    'nothing to resume': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume',
        '--resume: no run to continue in {tmp}/run',
    ),
    'resume an absent file': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume {tmp}/absent.pth',
        'checkpoint {tmp}/absent.pth does not exist',
    ),
    'resume weights alone': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume {tmp}/other.pth',
        'none of its 1 tensors belongs to the model',
    ),
    'launcher without torchrun': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --launcher pytorch',
        'start with torchrun',
    ),
    'launcher for GPUs': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --launcher slurm',
        '--launcher slurm needs GPUs',
    ),
    'no such device': ('train {detection} --data {coco} --device gpu', '--device gpu: choose cpu'),
    'option without a value': ('train {detection} --cfg-options load_from', 'write KEY=VALUE'),
    'channels that do not fit': (
        'train {detection} --data {coco} --work-dir {tmp}/run --cfg-options model.backbone.embed_dims=16',
        'model.neck.in_channels=[32, 64, 128, 256]',
    ),
    'absent checkpoint': (
        'test {detection} {tmp}/absent.pth --data {coco} --work-dir {tmp}/run',
        'checkpoint {tmp}/absent.pth does not exist',
    ),
    'truncated checkpoint': (
        'test {detection} {tmp}/cut.pth --data {coco} --work-dir {tmp}/run',
        'checkpoint {tmp}/cut.pth cannot be read safely',
    ),
    'checkpoint of another model': (
        'test {detection} {tmp}/other.pth --data {coco} --work-dir {tmp}/run',
        'none of its 1 tensors belongs to the model',
    ),
    'nothing to test': ('test {detection} --data {coco}', 'name either a checkpoint'),
    'two things to test': ('test {detection} a.pth --predictions a.json', 'name either a checkpoint'),
    'predictions without data': ('test {detection} --predictions a.json', '--predictions needs --data DIR'),
    'no predictions': (
        'test {detection} --predictions {tmp} --data {coco}',
        'predictions {tmp}: the folder has neither {tmp}/predictions.bbox.json nor',
    ),
    'predictions of the other task': (
        'test {segmentation} --predictions {tmp}/empty.json --data {ade}',
        'predictions {tmp}/empty.json: no folder of PNG label maps',
    ),
    'a report of nothing': ('report {tmp}/absent', '{tmp}/absent does not exist'),
    'a report without data': ('report {tmp}/empty.json', '--data DIR names the ground truth'),
}


def prepare_mistakes(data: Path, tmp: Path) -> dict[str, str]:
    """Write the files that the mistakes need; returns what the names in their commands stand for."""
    for name, years in (('no_json', [2017]), ('two', [2014, 2017])):
        (tmp / name / 'annotations').mkdir(parents=True)
        for year in years:
            (tmp / name / 'annotations' / f'instances_train{year}.json').write_text('<html>')
    (tmp / 'class.py').write_text(
        f"_base_ = '{ROOT / DETECTION}'\n"
        "metainfo = dict(classes=('circle', 'tringle', 'star', 'ring'))\n"
        'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
    )
    (tmp / 'syntax.py').write_text('model = dict(\n')
    (tmp / 'empty.json').write_text('[]')
    torch.save({'state_dict': {'other.weight': torch.zeros(3)}}, tmp / 'other.pth')
    (tmp / 'cut.pth').write_bytes((tmp / 'other.pth').read_bytes()[:500])
    recipes = {'detection': DETECTION, 'segmentation': SEGMENTATION}
    return {'tmp': str(tmp), 'coco': str(data / 'coco'), 'ade': str(data / 'ade'), **recipes}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_what_a_person_gets_wrong(
    mistake: str, data: Path, tmp_path: Path, in_process: Callable, capfd: pytest.CaptureFixture
):
    names = prepare_mistakes(data, tmp_path)
    command, expected = MISTAKES[mistake]
    with pytest.raises(SystemExit) as ended:
        in_process(*(part.format(**names) for part in command.split()))
    assert ended.value.code == 2
    assert expected.format(**names) in one_line(capfd.readouterr().err)


def test_the_doctor():
    done = run('tools/doctor.py')
    assert done.stderr == ''
    for name in (
        *(requirement.name for requirement in hosts.REQUIREMENTS),
        'mmcv',
        'NMS, RoIAlign',
        'device',
    ):
        assert name in done.stdout, name
    assert str(hosts.installed_version('torch')) in done.stdout
    assert '\x1b' not in done.stdout


@pytest.mark.parametrize(
    ('version', 'expected'),
    [
        (None, "mmsegmentation is not installed: pip install 'mmsegmentation>=1.2.2,<1.3'"),
        (Version('1.3.0'), 'mmsegmentation 1.3.0 is installed, but >=1.2.2,<1.3 is needed: pip install'),
    ],
)
def test_the_doctor_where_a_package_is_missing(
    version: Version | None, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    real = hosts.installed_version
    fake = {'mmsegmentation': version}
    monkeypatch.setattr(hosts, 'installed_version', lambda name: fake[name] if name in fake else real(name))
    with pytest.raises(SystemExit) as ended:
        exit_on_user_error(load_tool('doctor').main)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert expected in one_line(err)
    assert 'pip install' in out
    assert 'torchvision' in out
