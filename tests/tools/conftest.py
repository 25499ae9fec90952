"""Runs of the tools on a tiny set of shapes, shared by the tests of a file."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import mmengine.device.utils as mmengine_device
import pytest
from rich.console import Console

from swin_dense.console import terminal
from swin_dense.demo import shapes
from swin_dense.errors import exit_on_user_error
from tests.tools.loading import load_tool
from tests.tools.runs import DETECTION, EPOCHS, ITERS, ROOT, SEGMENTATION, Run, epochs, iterations, run


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
    if importlib.util.find_spec('tensorboard'):
        arguments.append('--tensorboard')
    done = run('tools/train.py', SEGMENTATION, *arguments, '--cfg-options', *iterations(ITERS))
    assert done.stderr == ''
    return Run(folder, done.stdout, data / 'ade')


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
