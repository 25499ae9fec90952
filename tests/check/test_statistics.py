"""Mean and deviation in one pass against NumPy on everything at once."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from mmengine.config import Config

from swin_dense.check import statistics
from swin_dense.demo import bands
from swin_dense.engine import config as configs
from swin_dense.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize('channels', [1, 3, 5])
def test_against_numpy(dtype: str, channels: int):
    rng = np.random.default_rng(0)
    sizes = [(3, 5), (1, 1), (40, 31), (0, 4), (7, 90)]
    scale = np.arange(1, channels + 1) * 40
    images = [(100 + rng.random((*size, channels)) * scale).astype(dtype) for size in sizes]
    everything = np.concatenate([image.reshape(-1, channels) for image in images]).astype(np.float64)
    mean, std = statistics.channel_statistics(iter(images))
    assert mean.dtype == std.dtype == np.float64
    np.testing.assert_allclose(mean, everything.mean(axis=0), rtol=0, atol=1e-9)
    np.testing.assert_allclose(std, everything.std(axis=0), rtol=0, atol=1e-9)


def test_small_deviations_on_large_values():
    """Sums of squares would lose them."""
    values = 1e8 + np.random.default_rng(0).random((6, 100, 100, 1))
    mean, std = statistics.channel_statistics(values)
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-15)
    np.testing.assert_allclose(std, values.std(), rtol=1e-7)


def test_nothing_and_changing_channels():
    with pytest.raises(UserError, match='no image'):
        statistics.channel_statistics([])
    with pytest.raises(UserError, match='an image has 4 channels, those before it 3'):
        statistics.channel_statistics([np.zeros((2, 2, 3)), np.zeros((2, 2, 4))])


def pasted(lines: list[str]) -> dict:
    """What the lines are worth in a config."""
    return Config.fromstring('\n'.join(lines), '.py').model.data_preprocessor


def test_lines_for_a_config_of_four_bands(tmp_path: Path):
    bands.write(tmp_path, train=2, val=1)
    config = configs.load_config(str(ROOT / 'configs/demo/upernet_swin_nano_4band.py'))
    config.train_dataloader.dataset.data_root = str(tmp_path)
    # wrappers count an image once
    config.train_dataloader.dataset = dict(
        type='RepeatDataset', times=3, dataset=config.train_dataloader.dataset
    )
    found = pasted(statistics.config_statistics(config))
    images = [tifffile.imread(path) for path in sorted((tmp_path / 'images/training').iterdir())]
    pixels = np.concatenate([image.reshape(-1, 4) for image in images]) / 257
    np.testing.assert_allclose(found.mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.std, pixels.std(axis=0), rtol=1e-5)


def photos(root: Path) -> Config:
    config = configs.load_config(str(ROOT / 'configs/demo/upernet_swin_nano.py'))
    config.train_dataloader.dataset.data_root = str(root)
    folder = root / 'images/training'
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / '1.jpg'), np.full((8, 8, 3), (200, 100, 50), np.uint8))  # blue, green, red
    return config


def test_colours_are_in_the_order_of_the_preprocessor(tmp_path: Path):
    config = photos(tmp_path)
    assert config.model.data_preprocessor.bgr_to_rgb
    np.testing.assert_allclose(pasted(statistics.config_statistics(config)).mean, (50, 100, 200), atol=3)
    config.model.data_preprocessor.bgr_to_rgb = False
    np.testing.assert_allclose(pasted(statistics.config_statistics(config)).mean, (200, 100, 50), atol=3)


def test_an_image_that_cannot_be_loaded_is_named(tmp_path: Path):
    config = photos(tmp_path)
    broken = tmp_path / 'images/training/2.jpg'
    broken.write_bytes(b'')
    with pytest.raises(UserError, match=str(broken)):
        statistics.config_statistics(config)
    config.train_dataloader.dataset.pipeline.pop(0)
    with pytest.raises(UserError, match='no step that loads images'):
        statistics.config_statistics(config)
