"""What every test needs: usable hosts, fixed seeds and the shared data."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

from swin_dense import hosts

hosts.prepare()  # at import: no test module may import mmdet before it

SHARED_DATA = Path(__file__).resolve().parents[2] / 'shared' / 'data'


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_scope() -> Iterator[None]:
    """Leave no default scope of a config that was read: the next test may be of the other host."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def shared() -> Callable[[str], Path]:
    """``shared(name)`` is the folder ``name`` of the shared data; the test is skipped without it."""

    def folder(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.is_dir():
            pytest.skip(f'the shared data set {name} is absent: there is no folder {path}')
        return path

    return folder
