"""Panoptic segmentation through the tools: train, score, report, predict; mistakes are one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from swin_dense import predict
from swin_dense.demo import shapes
from swin_dense.evaluate import panoptic_sets
from swin_dense.formats.panoptic_pngs import read_ids
from tests.tools.running import Ended, in_process

CONFIG = 'configs/demo/panoptic_fpn_swin_nano.py'
SMALL = [
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')),
    'train_dataloader.dataset.pipeline.2.scale=(160,160)',
    'train_dataloader.dataset.pipeline.3.crop_size=(96,96)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(160,160)' for split in ('val', 'test')),
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'model.test_cfg.rcnn.score_thr=0.0',
    'model.test_cfg.panoptic.stuff_area_limit=0',
]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data')
    shapes.write(root, train=2, val=2)
    return root / 'panoptic'


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    monkeypatch.chdir(Path(__file__).parents[2])
    return in_process(monkeypatch, capfd)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('run')


@pytest.fixture
def trained(tool: Callable[..., Ended], data: Path, folder: Path) -> Path:
    """A run's folder, trained once for all tests."""
    if not (folder / 'metrics.json').is_file():
        options = ['--work-dir', folder, '--device', 'cpu', '--seed', 0, '--cfg-options', *SMALL]
        ended = tool('train', CONFIG, '--data', data, *options)
        assert ended.status == 0, ended.err
        assert 'PQ_th' in ended.out
    return folder


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / 'metrics.json').read_text())


def test_a_run_leaves_figures_pictures_and_predictions(trained: Path):
    figures = metrics(trained)
    assert set(figures) == {f'{name}{group}' for name in ('PQ', 'SQ', 'RQ') for group in ('', '_th', '_st')}
    assert 0 <= figures['PQ'] <= 1
    assert cv2.imread(str(trained / 'predictions.png')).std() > 10
    content = json.loads((trained / 'predictions.panoptic.json').read_text())
    for entry in content['annotations']:
        ids = read_ids(trained / 'predictions.panoptic' / entry['file_name'])
        areas = {segment['id']: segment['area'] for segment in entry['segments_info']}
        assert areas == {n: int((ids == n).sum()) for n in np.unique(ids).tolist() if n}


def test_saved_predictions_score_the_same(
    tool: Callable[..., Ended], trained: Path, data: Path, tmp_path: Path
):
    ended = tool(
        *('test', CONFIG, '--predictions', trained / 'predictions.panoptic.json', '--data', data),
        *('--work-dir', tmp_path),
    )
    assert ended.status == 0, ended.err
    assert metrics(tmp_path) == pytest.approx(metrics(trained), nan_ok=True)
    rows = json.loads((tmp_path / 'evaluation.json').read_text())['classes']['segments']
    assert [row['name'] for row in rows] == [*shapes.CLASSES, 'background']
    assert [row['kind'] for row in rows] == ['thing'] * 5 + ['stuff']


def test_the_ground_truth_as_a_prediction_is_perfect(data: Path):
    """Crowds are no predictions, and cost nothing."""
    split = data / 'annotations/panoptic_val2017.json'
    truth = panoptic_sets.load_truth(split, split.with_suffix(''), data / 'val2017')
    scores = panoptic_sets.evaluate(truth, split)
    figures = panoptic_sets.metrics(panoptic_sets.total(scores.images, 6), truth.classes)
    assert figures == pytest.approx(dict.fromkeys(figures, 1.0))


def test_a_report_of_a_run(tool: Callable[..., Ended], trained: Path):
    ended = tool('report', trained)
    assert ended.status == 0, ended.err
    page = next(trained.glob('*.html')).read_text()
    assert 'Panoptic segmentation' in page
    assert 'PQ of things' in page


def test_predictions_for_images(tool: Callable[..., Ended], trained: Path, data: Path, tmp_path: Path):
    checkpoint = trained / 'epoch_1.pth'
    image = data / 'val2017' / '000003.jpg'
    ids = data / 'annotations/panoptic_val2017.json'
    ended = tool('predict', checkpoint, image, '--out', tmp_path, '--device', 'cpu', '--ids', ids)
    assert ended.status == 0, ended.err
    content = json.loads((tmp_path / 'panoptic.json').read_text())
    (entry,) = content['annotations']
    assert entry['image_id'] == 3
    assert read_ids(tmp_path / 'panoptic' / entry['file_name']).shape == cv2.imread(str(image)).shape[:2]
    assert cv2.imread(str(tmp_path / 'pictures' / '000003.jpg')).shape[1] >= 448
    known = predict.Predictor(str(checkpoint), device='cpu')(image)
    assert known.things == 5
    assert known.classes == (*shapes.CLASSES, 'background')


def test_test_hands_out_its_predictions(
    tool: Callable[..., Ended], trained: Path, data: Path, tmp_path: Path
):
    out = tmp_path / 'results.json'
    ended = tool(
        *('test', CONFIG, trained / 'epoch_1.pth', '--data', data, '--work-dir', tmp_path / 'work'),
        *('--device', 'cpu', '--out', out, '--cfg-options', *SMALL),
    )
    assert ended.status == 0, ended.err
    names = {entry['file_name'] for entry in json.loads(out.read_text())['annotations']}
    assert {path.name for path in (tmp_path / 'results').iterdir()} == names
    assert metrics(tmp_path / 'work') == pytest.approx(metrics(trained), nan_ok=True)


def test_a_png_of_the_wrong_size_stops_the_run(tool: Callable[..., Ended], data: Path, tmp_path: Path):
    shutil.copytree(data, tmp_path / 'data')
    png = tmp_path / 'data/annotations/panoptic_train2017/000001.png'
    cv2.imwrite(str(png), cv2.imread(str(png))[:-8])
    ended = tool(
        'train', CONFIG, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'run', '--device', 'cpu'
    )
    assert '000001.png' in ended.error()
    assert 'not the size of the file' in ended.error()
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--classes', 'names.txt'], 'names its classes itself'),
        (['--zero-label', 'class'], '--zero-label is for segmentation'),
        (['--cfg-options', 'model.semantic_head.num_stuff_classes=3'], 'say how many classes there are'),
        (['--data', 'nowhere'], 'data folder nowhere does not exist'),
    ],
)
def test_mistakes(tool: Callable[..., Ended], data: Path, arguments: list[str], message: str):
    given = [] if arguments[0] == '--data' else ['--data', data]
    assert message in tool('train', CONFIG, *given, *arguments).error()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['annotations'][0].update(image_id=99), 'image_id: 99 is no image of'),
        (lambda c: c['annotations'][0].update(file_name='../x.png'), 'no path below the folder of PNGs'),
        (lambda c: c['annotations'][0]['segments_info'][0].update(category_id=88), 'category_id: 88 is no'),
        (lambda c: c['annotations'][0]['segments_info'].pop(), 'which no segment of'),
        (lambda c: c.pop('annotations'), 'these are no panoptic results'),
    ],
)
def test_broken_predictions(
    tool: Callable[..., Ended], data: Path, tmp_path: Path, change: Callable, message: str
):
    shutil.copytree(data / 'annotations', tmp_path / 'annotations')
    path = tmp_path / 'annotations/panoptic_val2017.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    ended = tool('test', CONFIG, '--predictions', path, '--data', data, '--work-dir', tmp_path / 'work')
    assert message in ended.error()
