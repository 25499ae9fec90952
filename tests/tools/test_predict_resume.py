"""tools/predict.py goes on where Ctrl-C or kill -9 stopped it; what lies around it is in tests/predict."""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swin_dense.predict.journal import NAME
from swin_dense.predict.predictor import Predictor
from tests.predict.conftest import ROOT, TASKS, Made, made, tool  # noqa: F401


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def test_ctrl_c(made: Made, tool: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # noqa: F811
    """A real model, two images together, and the signal while the second pair is predicted."""
    arguments = [made.checkpoints['detection'], *made.images('detection'), '--device', 'cpu', '--batch', 2]
    assert tool('predict', *arguments, '--out', tmp_path / 'whole').status == 0
    out, calls, predict = tmp_path / 'out', [], Predictor.predict

    def stopping(self: Predictor, images: list, logits: bool = False) -> list:
        calls.append(len(images))
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return predict(self, images, logits)

    monkeypatch.setattr(Predictor, 'predict', stopping)
    ended = tool('predict', *arguments, '--out', out)
    assert ended.status == 130
    assert ended.err == (
        f'stopped by Ctrl-C: 2 of 3 files are done and kept in {out}; the same command goes on from there\n'
    )
    ended = tool('predict', *arguments, '--out', out)
    assert (ended.status, ended.err) == (0, '')
    assert '2 of 3 files are done, and taken over' in ended.out
    assert calls == [2, 1, 1]
    assert contents(out) == contents(tmp_path / 'whole')


def test_a_folder_that_cannot_be_written(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Before the model is built. Below a file: root may write everywhere else."""
    (tmp_path / 'file').write_text('')
    image = made.images('detection')[0]
    for out in (tmp_path / 'file', tmp_path / 'file/out', Path('/proc/out')):
        ended = tool('predict', made.checkpoints['detection'], image, '--out', out, '--device', 'cpu')
        assert f'--out {out} cannot be written: ' in ended.error()
        assert ended.out == ''


@pytest.mark.slow
@pytest.mark.parametrize('task', TASKS)
def test_kill_9(task: str, made: Made, tmp_path: Path):  # noqa: F811
    """Ten times at a random moment after the first image; then the whole output is as if nothing had been."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(40):
        shutil.copyfile(made.images(task)[number % 3], folder / f'{number:02}.jpg')

    def start(out: Path) -> subprocess.Popen:
        command = [sys.executable, 'tools/predict.py', made.checkpoints[task], folder, '--out', out]
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        return subprocess.Popen(
            [*map(str, command), '--device', 'cpu'],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    assert start(tmp_path / 'whole').wait() == 0
    moments, killed = random.Random(0), 0
    while True:
        process = start(tmp_path / 'out')
        pictures = tmp_path / 'out/pictures'
        before = len(list(pictures.glob('*.jpg')))
        while process.poll() is None and len(list(pictures.glob('*.jpg'))) == before:
            pass
        if killed == 10:
            break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, 0.3))
        process.kill()
        process.wait()
        killed += 1
    out = process.communicate()[0]
    assert process.returncode == 0
    assert int(out.split(f'{NAME}: ')[1].split()[0]) >= 10, 'taken over'
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
