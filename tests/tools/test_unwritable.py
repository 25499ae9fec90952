"""Output folders that cannot be written: one line and status 2, before the work.

Root may write everywhere but below a file and in /proc.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.predict.conftest import CONFIGS, FOLDERS, OPTIONS, TASKS, Made, made, tool  # noqa: F401


def places(folder: Path) -> list[Path]:
    (folder / 'file').write_text('')
    return [folder / 'file/below', Path('/proc/swin_dense')]


@pytest.mark.parametrize('task', TASKS)
def test_the_work_directory_of_an_evaluation(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    for place in places(tmp_path):
        arguments = [CONFIGS[task], made.checkpoints[task], '--data', made.data / FOLDERS[task]]
        options = ['--device', 'cpu', '--cfg-options', *OPTIONS[task]]
        line = tool('test', *arguments, '--work-dir', place, *options).error()
        assert f'work directory {place} cannot be written' in line
        work = ['--work-dir', tmp_path / 'work']
        line = tool('test', *arguments, *work, '--out', place / 'x.json', *options).error()
        assert f'--out: the folder {place} cannot be written' in line


def test_the_work_directory_of_a_score(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    (tmp_path / 'found.json').write_text('[]')
    for place in places(tmp_path):
        arguments = ['--predictions', tmp_path / 'found.json', '--data', made.data / 'coco']
        line = tool('test', CONFIGS['detection'], *arguments, '--work-dir', place).error()
        assert f'work directory {place} cannot be written' in line


def test_the_page_of_a_report(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    (tmp_path / 'found.json').write_text('[]')
    for place in places(tmp_path):
        arguments = ['--data', made.data / 'coco', '--out', place / 'report.html']
        line = tool('report', tmp_path / 'found.json', *arguments).error()
        assert f'the folder of the report {place} cannot be written' in line
    assert 'cannot be read: File name too long' in tool('report', 'x' * 5000).error()


def test_a_converted_checkpoint(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    for place in places(tmp_path):
        for name in ('backbone.pth', 'backbone.safetensors'):
            out = place / name
            ended = tool('convert_checkpoint', made.checkpoints['detection'], out, '--to', 'timm')
            assert f'{out} cannot be written' in ended.error()
