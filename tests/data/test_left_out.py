"""What stands in for a bad image, and which were left out."""

import multiprocessing
from pathlib import Path

import pytest

from swin_dense.data import failures
from swin_dense.errors import UserError


def test_stand_ins():
    """Each of the others may stand in, no more than once; the bad one never."""
    for length in (2, 5, 1000):
        chosen = list(failures.stand_ins(3, 1, 1, length))
        assert chosen == list(failures.stand_ins(3, 1, 1, length))
        assert len(chosen) == len(set(chosen)) == min(length - 1, failures.TRIES)
        assert 1 not in chosen
        assert set(chosen) <= set(range(length))
    assert list(failures.stand_ins(3, 1, 0, 1)) == []
    others = {next(failures.stand_ins(3, turn, i, 1000)) for turn in (0, 1) for i in (7, 8, 9)}
    assert len(others) > 3


def note(left_out: failures.LeftOut, number: int) -> None:
    for i in range(200):
        left_out.add(UserError(f'image {number % 2}_{i}.jpg: the file\nis empty \udcff'))


@pytest.mark.parametrize('method', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_bad_images_are_counted_across_processes(tmp_path: Path, method: str):
    left_out = failures.LeftOut(tmp_path)
    assert left_out.summary() == ''
    context = multiprocessing.get_context(method)
    processes = [context.Process(target=note, args=(left_out, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    lines = left_out.lines()
    assert len(lines) == 400
    assert 'image 1_199.jpg: the file is empty \\udcff' in lines
    assert left_out.summary().startswith(f'400 bad images were left out, listed in {left_out.path}: image ')
    left_out.begin()
    assert left_out.lines() == []
