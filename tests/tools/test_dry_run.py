"""``tools/train.py --dry-run``: a picture, a table, and nothing else."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from swin_dense.engine import dry_run
from tests.tools.runs import DETECTION, ROOT, SEGMENTATION, epochs, iterations, rows

RECIPES = {
    'detection': (DETECTION, 'coco', epochs(1), '(2, 3, 128, 128), '),
    'segmentation': (SEGMENTATION, 'ade', iterations(5), '(4, 3, 128, 128), 4 label maps'),
}
ROWS = [
    *['data', 'one batch', 'losses', 'iteration', 'evaluation', 'checkpoint'],
    *['total time', 'finish at', 'peak memory'],
]


@pytest.mark.parametrize('task', RECIPES)
def test_a_dry_run(
    task: str,
    data: Path,
    tmp_path: Path,
    in_process: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr(dry_run, 'SECONDS', 0.1)
    recipe, folder, options, batch = RECIPES[task]
    work_dir = tmp_path / 'run'
    arguments = ['--data', data / folder, '--work-dir', work_dir, '--device', 'cpu', '--dry-run']
    in_process('train', recipe, *arguments, '--cfg-options', *options)
    out = capsys.readouterr().out
    table = rows(out)
    assert set(ROWS) <= set(table)
    assert table['saved in'] == f'{work_dir} (dry_run.png, dry_run.log)'
    assert table['one batch'].startswith(batch)
    assert 'loss' in table['losses']
    assert {path.name for path in work_dir.iterdir()} == {'dry_run.png', 'dry_run.log'}
    assert cv2.imread(str(work_dir / 'dry_run.png')).std() > 20
    assert f'dry run: total time: {table["total time"]}' in (work_dir / 'dry_run.log').read_text()
    assert 'evaluation after' not in out


def test_a_mistake_in_a_dry_run(data: Path, tmp_path: Path, in_process: Callable):
    arguments = ['--data', data / 'coco', '--work-dir', tmp_path / 'run', '--device', 'cpu', '--dry-run']
    with pytest.raises(SystemExit) as ended:
        in_process('train', DETECTION, *arguments, '--cfg-options', 'model.backbone.embed_dims=16')
    assert ended.value.code == 2
    assert not list((tmp_path / 'run').rglob('*.pth'))


def seconds(text: str) -> int:
    return sum(int(part) * 60**power for power, part in enumerate(reversed(text.split(':'))))


def taken(command: list[str]) -> tuple[float, float, str]:
    """Wall-clock seconds, peak GB of the process alone, and what it printed."""
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        peak = 0.0
        while process.poll() is None:
            found = re.search(r'VmHWM:\s+(\d+)', Path(f'/proc/{process.pid}/status').read_text())
            peak = max(peak, int(found[1]) / 2**20 if found else 0.0)
            time.sleep(0.2)
        out = process.stdout.read()
    assert process.returncode == 0, out
    return time.monotonic() - start, peak, out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the peak of another process is read from /proc')
@pytest.mark.parametrize('task', RECIPES)
def test_the_estimate_is_within_30_percent(task: str, data: Path, tmp_path: Path):
    """The better of two pairs: what else the machine does meanwhile is no fault of the estimate."""
    recipe, folder, _, _ = RECIPES[task]
    length = ['train_cfg.max_epochs=12'] if task == 'detection' else ['train_cfg.max_iters=100']
    common = [sys.executable, 'tools/train.py', recipe, '--data', str(data / folder), '--device', 'cpu']
    errors = []
    for pair in range(2):
        options = ['--work-dir', str(tmp_path / f'{task}{pair}'), '--cfg-options', *length]
        _, _, out = taken([*common, '--dry-run', *options])
        table = rows(out)
        wall, peak, _ = taken([*common, *options])
        time_error = abs(seconds(table['total time']) / wall - 1)
        memory_error = abs(float(table['peak memory'].split()[0]) / peak - 1)
        errors.append(max(time_error, memory_error))
    assert min(errors) < 0.3, errors
