"""tools/model_info.py as a person runs it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from swin_dense.errors import exit_on_user_error
from swin_dense.report import papers
from tests.tools.loading import TOOLS, load_tool

ROOT = TOOLS.parent
RECIPE = str(ROOT / 'configs' / 'mask_rcnn_swin_t.py')


def fails(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line of a user's mistake."""
    monkeypatch.setattr(sys, 'argv', ['model_info.py', *arguments])
    monkeypatch.setattr(sys, '__stderr__', sys.stderr)
    with pytest.raises(SystemExit) as stopped:
        exit_on_user_error(load_tool('model_info').main)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.slow
def test_it_prints_stages_and_parts():
    done = subprocess.run(
        [sys.executable, 'tools/model_info.py', RECIPE, '--cfg-options', 'model.backbone.depths=2,2,2,2'],
        cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    for text in ('800 x 1280', '200 x 320', 'roi_head.mask_head', 'multiply-adds, each counted once'):
        assert text in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'name either a config or --table FILE'),
        ([RECIPE, '--table', 'README.md'], 'name either a config or --table FILE'),
        (['configs/nothing.py'], 'config configs/nothing.py does not exist'),
        ([RECIPE, '--size', '16', '16'], '--size 16 16: height and width must be 32 or more'),
        ([RECIPE, '--cfg-options', 'model.backbone.depth=2'], 'did you mean model.backbone.depths?'),
        (['--table', 'nothing.md'], '--table nothing.md: there is no such file'),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    assert message in fails(capsys, monkeypatch, *arguments)


def test_it_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    readme = tmp_path / 'README.md'
    shutil.copyfile(ROOT / 'README.md', readme)
    readme.write_text(readme.read_text().replace('47.8 M', '48.7 M'))
    monkeypatch.setattr(papers, 'ROWS', papers.ROWS[:1])
    monkeypatch.setattr(sys, 'argv', ['model_info.py', '--table', str(readme)])
    load_tool('model_info').main()
    assert '| `mask_rcnn_swin_t` | 800x1280 | 47.8 M | 48 M |' in readme.read_text()
