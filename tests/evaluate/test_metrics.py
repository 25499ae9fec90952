"""Metrics of both hosts in one form."""

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from swin_dense.errors import DiskFullError
from swin_dense.evaluate import metrics, offline


def test_detection():
    found = {
        'coco/bbox_mAP': 0.4375,
        'coco/bbox_mAP_s': -1.0,
        'coco/segm_mAP_50': np.float64(0.5),
        'coco/bbox_mAP_copypaste': '0.438 0.5 0.4 -1.0 0.4 0.4',
        'data_time': 0.1,
        'time': 0.2,
    }
    plain = metrics.as_fractions(found, False)
    assert plain == {'bbox_mAP': 0.4375, 'bbox_mAP_s': None, 'segm_mAP_50': 0.5}
    assert list(plain) == ['bbox_mAP', 'bbox_mAP_s', 'segm_mAP_50']


def test_segmentation():
    """mmseg reports percent, NaN where no pixel is of a class."""
    found = {'aAcc': 91.25, 'mIoU': np.float32(50.0), 'mAcc': math.nan, 'data_time': 0.1, 'time': 0.2}
    assert metrics.as_fractions(found, True) == {'aAcc': 0.9125, 'mIoU': 0.5, 'mAcc': None}


@pytest.mark.parametrize('in_percent', [False, True])
def test_nothing(in_percent: bool):
    assert metrics.as_fractions({}, in_percent) == {}


def test_values_are_plain_numbers():
    """They go into a JSON file."""
    plain = metrics.as_fractions({'mIoU': np.float32(12.5), 'aAcc': np.float64(25)}, True)
    assert {type(value) for value in plain.values()} == {float}


def test_saving(tmp_path: Path):
    values = {'bbox_mAP': 0.25, 'bbox_mAP_s': None}
    path = metrics.save(values, tmp_path / 'new' / 'run')
    assert path == tmp_path / 'new' / 'run' / 'metrics.json'
    assert json.loads(path.read_text()) == values
    metrics.save({'bbox_mAP': 0.5}, path.parent)
    assert json.loads(path.read_text()) == {'bbox_mAP': 0.5}, 'the last evaluation'


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = offline.Evaluated({'mIoU': math.nan}, {}, ['\ud800'], [[1]], {})
    metrics.save({'mIoU': 0.5}, tmp_path)
    offline.save(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert json.loads(before['evaluation.json'])['names'] == ['\ud800']

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    for save, what in ((metrics.save, {'mIoU': 0.25}), (offline.save, found)):
        with pytest.raises(DiskFullError):
            save(what, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
