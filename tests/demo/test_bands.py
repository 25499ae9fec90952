"""The four-band set: what it holds, and that the config of the demo trains on it."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from swin_dense.check.ade20k_sets import check_split
from swin_dense.demo import bands, shapes
from tests.tools.running import in_process

CONFIG = Path(__file__).parents[2] / 'configs/demo/upernet_swin_nano_4band.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('bands')
    bands.write(folder, train=3, val=2)
    return folder


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable:
    return in_process(monkeypatch, capfd)


def test_files(root: Path):
    for split, count in (('training', 3), ('validation', 2)):
        images = sorted((root / 'images' / split).iterdir())
        assert len(images) == count
        for path in images:
            image = tifffile.imread(path)
            labels = cv2.imread(str(root / 'annotations' / split / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
            assert image.shape == (*labels.shape, 4)
            assert image.dtype == np.uint16
            assert bands.RANGE[0] <= image.min() <= image.max() <= bands.RANGE[1]
            assert labels.max() <= bands.PLANT
    assert (root / 'classes.txt').read_text().split() == [*shapes.LABELS, 'plant']


def test_plants_are_seen_in_the_fourth_band_alone():
    image, labels = bands.draw_bands(seed=0, number=0)
    plants, background = (image[labels == label].astype(float) for label in (bands.PLANT, 1))
    assert len(plants) > 200
    distance = np.abs(plants.mean(axis=0) - background.mean(axis=0)) / background.std(axis=0)
    assert distance[3] > 3
    assert (distance[:3] < 0.7).all()


def test_the_check_has_one_warning(root: Path):
    folders = (root / 'images/training', root / 'annotations/training')
    found = check_split(*folders, '.tif', '.png', bands.LABELS, True, True)
    (warning,) = [finding for finding in found if finding.severity != 'note']
    assert "dict(type='swin_dense.LoadImage', channels=4)" in warning.message


def test_the_demo_config_trains_on_it(root: Path, tmp_path: Path, tool: Callable):
    options = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
    options += [f'{loader}_dataloader.num_workers=0' for loader in ('train', 'val', 'test')]
    scale = 'pipeline.1.scale=(128,128)'
    options += [f'{loader}_dataloader.dataset.{scale}' for loader in ('val', 'test')]
    arguments = [CONFIG, '--data', root, '--work-dir', tmp_path, '--device', 'cpu', '--cfg-options', *options]
    ended = tool('train', *arguments)
    assert ended.status == 0, ended.err
    assert 'LoadImage' not in ended.out  # the data check knows what loads the images
    assert 0 <= json.loads((tmp_path / 'metrics.json').read_text())['mIoU'] <= 1
    assert (tmp_path / 'predictions.png').is_file()


def test_statistics_are_those_of_the_config(root: Path, tool: Callable):
    ended = tool('check_data', CONFIG, '--data', root, '--stats')
    assert ended.status == 0, ended.err
    said = {}
    exec(ended.out[ended.out.index('model = ') :], said)
    images = [tifffile.imread(path) / 257 for path in sorted((root / 'images/training').iterdir())]
    pixels = np.concatenate([image.reshape(-1, 4) for image in images])
    preprocessor = said['model']['data_preprocessor']
    np.testing.assert_allclose(preprocessor['mean'], pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(preprocessor['std'], pixels.std(0), rtol=1e-5)


def test_the_stock_loader_is_refused_by_the_model(root: Path, tmp_path: Path, tool: Callable):
    """Three channels and four means."""
    arguments = [CONFIG, '--data', root, '--work-dir', tmp_path, '--device', 'cpu', '--cfg-options']
    ended = tool(
        'train',
        *arguments,
        'train_dataloader.num_workers=0',
        'train_dataloader.dataset.pipeline.0.channels=3',
    )
    assert 'the file has 4 channels, but LoadImage(channels=3)' in ended.error()
