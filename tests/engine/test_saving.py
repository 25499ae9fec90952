"""A checkpoint on its way to the disk."""

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook
from torch import nn

from swin_dense.engine import saving
from swin_dense.errors import DiskFullError, NotFiniteError, UserError
from swin_dense.storage import atomic
from tests.engine.test_resume import built

Usage = namedtuple('Usage', 'total used free')


@pytest.mark.parametrize(('kind', 'copies'), [(torch.optim.AdamW, 3), (torch.optim.SGD, 1)])
def test_the_size_is_known_before_the_first_step(kind: type, copies: int, tmp_path: Path):
    model = nn.Linear(300, 400)
    optimizer = kind(model.parameters(), lr=0.1)
    expected = saving.expected_bytes(model, [optimizer], [])
    model(torch.zeros(1, 300)).sum().backward()
    optimizer.step()
    torch.save(dict(state_dict=model.state_dict(), optimizer=optimizer.state_dict()), tmp_path / 'a.pth')
    assert expected == pytest.approx((tmp_path / 'a.pth').stat().st_size, rel=0.05)
    assert expected == pytest.approx(copies * 300 * 400 * 4, rel=0.05)
    assert saving.expected_bytes(model, [optimizer], [EMAHook()]) > expected


def test_too_little_space_stops_before_the_first_iteration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = built(tmp_path / 'run', True)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Usage(1000, 990, 10))
    with pytest.raises(DiskFullError, match=r'the disk is full \(\d+ bytes wanted, 10 free\)') as full:
        run.train()
    assert full.value.status == 74
    assert run.model.seen == []


def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / 'a.txt'
    atomic.write_text(path, 'old')

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ('fsync', 'replace'):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            with pytest.raises(DiskFullError, match=r'3 bytes wanted, \d+ free'):
                atomic.write_text(path, 'new')
        assert path.read_text() == 'old'
        assert [file.name for file in tmp_path.iterdir()] == ['a.txt']


def test_another_error_is_a_line(tmp_path: Path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot be written'):
        atomic.write_text(tmp_path / 'file' / 'a.txt', 'text')


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path):
    (tmp_path / 'a.pth.partial').write_text('half')
    (tmp_path / 'maps.partial').mkdir()
    (tmp_path / 'a.pth').write_text('whole')
    assert [path.name for path in atomic.sweep(tmp_path)] == ['a.pth.partial', 'maps.partial']
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_no_checkpoint_holds_what_is_not_finite(tmp_path: Path, value: float):
    run = built(tmp_path / 'run', True)
    run.train()
    with torch.no_grad():
        run.model.line.bias.fill_(value)
    with pytest.raises(NotFiniteError, match=r'line.bias holds NaN or infinity'):
        run.save_checkpoint(run.work_dir, 'new.pth')
    assert not list(Path(run.work_dir).glob('new.pth*'))
