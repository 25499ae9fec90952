"""``tools/train.py --dry-run``: a picture, a table, and nothing else."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from swin_dense.engine import dry_run
from tests.tools.runs import DETECTION, SEGMENTATION, epochs, estimate_errors, iterations, measured, rows

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


@pytest.mark.slow
@pytest.mark.parametrize('task', RECIPES)
def test_a_short_run_takes_what_was_estimated_within_30_percent(task: str, data: Path, tmp_path: Path):
    """Of models that are hardly trained; ``tests/test_real_data.py`` has runs to the end.

    The better of two pairs: what else the machine does meanwhile is no fault of the estimate.
    """
    recipe, folder, _, _ = RECIPES[task]
    length = ['train_cfg.max_epochs=12'] if task == 'detection' else ['train_cfg.max_iters=100']
    common = [sys.executable, 'tools/train.py', recipe, '--data', str(data / folder), '--device', 'cpu']
    errors = []
    for pair in range(2):
        options = ['--work-dir', str(tmp_path / f'{task}{pair}'), '--cfg-options', *length]
        estimate = rows(measured([*common, '--dry-run', *options])[0])
        _, wall, peak = measured([*common, *options])
        errors.append(max(map(abs, estimate_errors(estimate, wall, peak))))
        if errors[-1] < 0.3:
            break
    assert min(errors) < 0.3, errors
