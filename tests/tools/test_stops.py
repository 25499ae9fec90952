"""Stopping a trainer from outside, and a second one in the same work directory: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swin_dense.engine import processes
from tests.tools.runs import ROOT, SEGMENTATION, Run, iterations, one_line, rows, run

WORKERS = ['train_dataloader.num_workers=2', 'train_dataloader.persistent_workers=True']


def arguments(data: Path, folder: Path) -> list[str]:
    options = [option for option in iterations(400) if not option.startswith('train_dataloader.num_workers')]
    options += [*WORKERS, 'train_cfg.val_interval=1000', 'default_hooks.checkpoint.interval=1000']
    named = ['--data', data / 'ade', '--work-dir', folder, '--device', 'cpu', '--seed', 0]
    everything = ['tools/train.py', SEGMENTATION, *named, '--cfg-options', *options]
    return list(map(str, everything))


def started(data: Path, folder: Path) -> subprocess.Popen:
    """A trainer that has done some iterations."""
    process = subprocess.Popen(
        [sys.executable, *arguments(data, folder)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1200):
        logs = list(folder.glob('*/vis_data/scalars.json'))
        if process.poll() is not None or (logs and logs[0].read_text().count('"loss"') > 1):
            break
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()
    return process


@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_stops(data: Path, tmp_path: Path, number: int, status: int):
    folder = tmp_path / 'run'
    process = started(data, folder)
    second = run(*arguments(data, folder), status=2)
    line = one_line(second.stderr)
    assert f'work directory {folder} is in use by process {process.pid}' in line
    children = processes.descendants(process.pid)
    assert len(children) >= 2, 'two workers'
    process.send_signal(number)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == status, err
    assert err.count('\n') == 1, err
    assert err.startswith(f'stopped by {signal.Signals(number).name} after ')
    done = int(err.split(' after ')[1].split()[0])
    assert (folder / f'stopped_iter_{done}.pth').is_file()
    assert not [pid for pid in children if processes.alive(pid)], 'no process is left behind'
    more = [*arguments(data, folder), f'train_cfg.max_iters={done + 2}']
    finished = run(*more[:1], '--resume', 'auto', '--resume-anyway', *more[1:])
    assert rows(finished.stdout)['schedule'] == f'{done + 2} iterations, resumed after {done}'
    assert Run(folder, finished.stdout, data).losses()


@pytest.mark.slow
def test_a_time_budget_stops_with_success(data: Path, tmp_path: Path):
    folder = tmp_path / 'run'
    done = run(*arguments(data, folder)[:2], '--max-time', '25s', *arguments(data, folder)[2:])
    assert done.stderr.startswith('stopped by --max-time after ')
    assert len(list(folder.glob('stopped_iter_*.pth'))) == 1
