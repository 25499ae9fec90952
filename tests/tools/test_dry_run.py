"""``tools/train.py --dry-run``: a picture, a table, and nothing else."""

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from swin_dense.engine import dry_run
from tests.tools.runs import DETECTION, SEGMENTATION, epochs, iterations, rows

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
