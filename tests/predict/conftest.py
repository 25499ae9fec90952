"""Small models with random weights, saved as mmengine saves them, and images to predict."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from swin_dense.demo import shapes
from swin_dense.engine import prepare
from tests.tools.running import in_process

ROOT = Path(__file__).parents[2]
CONFIGS = {
    'detection': ROOT / 'configs/demo/mask_rcnn_swin_nano.py',
    'segmentation': ROOT / 'configs/demo/upernet_swin_nano.py',
}
OPTIONS = {
    'detection': [
        'test_dataloader.dataset.pipeline.1.scale=(128,128)',
        'test_dataloader.batch_size=1',
        'test_dataloader.num_workers=0',
        'model.test_cfg.rcnn.max_per_img=20',
    ],
    'segmentation': [
        'test_dataloader.dataset.pipeline.1.scale=(512,128)',
        'test_dataloader.num_workers=0',
    ],
}
FOLDERS = {'detection': 'coco', 'segmentation': 'ade'}
IMAGES = {'detection': 'coco/val2017', 'segmentation': 'ade/images/validation'}
TASKS = tuple(CONFIGS)


@dataclass
class Made:
    """Checkpoints by task, and the folder of the built-in data."""

    checkpoints: dict[str, Path]
    data: Path

    def images(self, task: str) -> list[Path]:
        return sorted((self.data / IMAGES[task]).iterdir())


def config_of(task: str, data: Path) -> Config:
    """A config of its own to change."""
    return copy.deepcopy(_config_of(task, data))


@cache
def _config_of(task: str, data: Path) -> Config:
    command = prepare.Command(str(CONFIGS[task]), OPTIONS[task], data / FOLDERS[task])
    return prepare.of_data(command)


def text_of(config: Config) -> str:
    """As mmengine writes it into a checkpoint, but for the line breaks of yapf, which take seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.config.config.FormatCode', lambda text, **style: (text, True))
        return config.pretty_text


@pytest.fixture(scope='session')
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Models whose predictions are nonsense, but many."""
    folder = tmp_path_factory.mktemp('predict')
    shapes.write(folder, train=2, val=3)
    torch.manual_seed(0)
    checkpoints = {}
    for task in TASKS:
        config = config_of(task, folder)
        dataset = config.test_dataloader.dataset
        meta = dict(
            classes=dataset.metainfo.classes, reduce_zero_label=dataset.get('reduce_zero_label', False)
        )
        content = dict(
            meta=dict(cfg=text_of(config), dataset_meta=meta),
            state_dict=MODELS.build(config.model).state_dict(),
            message_hub={},
        )
        checkpoints[task] = folder / f'{task}.pth'
        torch.save(content, checkpoints[task])
    return Made(checkpoints, folder)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable:
    """``tool('predict', ...)`` does what tools/predict.py does."""
    return in_process(monkeypatch, capfd)
