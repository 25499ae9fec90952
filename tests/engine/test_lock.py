"""The lock of a work directory, between real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swin_dense.engine import lock
from swin_dense.engine.lock import holder, work_dir_lock
from swin_dense.errors import UserError

# takes the lock, and may leave a forked child behind, as a loader's worker is one; says so and waits
HOLDER = """
import os, sys, time
from pathlib import Path
from swin_dense.engine.lock import work_dir_lock
with work_dir_lock(Path(sys.argv[1])):
    child = os.fork() if 'fork' in sys.argv else 0
    if child or 'fork' not in sys.argv:
        print('held', child, flush=True)
    time.sleep(60)
"""
Start = Callable[..., tuple[subprocess.Popen, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(folder)`` is another process that holds the folder's lock, and the id of its child."""
    running, children = [], []

    def begin(folder: Path, *arguments: str) -> tuple[subprocess.Popen, int]:
        command = [sys.executable, '-c', HOLDER, str(folder), *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        word, child = running[-1].stdout.readline().split()
        assert word == 'held'
        children.extend([int(child)] if int(child) else [])
        return running[-1], int(child)

    yield begin
    for child in children:
        os.kill(child, signal.SIGKILL)
    for process in running:
        process.kill()
        process.wait()


def test_a_second_trainer_is_told_who_holds_the_folder_and_a_stale_lock_is_taken(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, child = start(tmp_path, 'fork')
    held = holder(tmp_path)
    assert (held.pid, held.host) == (other.pid, os.uname().nodename)
    assert time.strptime(held.since, '%Y-%m-%d %H:%M:%S')
    monkeypatch.setattr(lock, 'RETRY_SECONDS', 0.2)
    with pytest.raises(UserError) as error, work_dir_lock(tmp_path):
        raise AssertionError('the lock was taken twice')
    assert f'process {other.pid} on {held.host}, started {held.since}' in str(error.value)
    assert '\n' not in str(error.value)

    monkeypatch.undo()
    subprocess.Popen(['sh', '-c', f'sleep 0.5; kill -9 {other.pid}'])
    with work_dir_lock(tmp_path):  # waits until the other is killed
        other.wait()
        os.kill(child, 0)  # raises if it has ended: a forked child does not keep the lock
        assert holder(tmp_path).pid == os.getpid()


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path) -> None:
    (tmp_path / lock.LOCK).touch()
    note = {'host': os.uname().nodename, 'pid': 1, 'since': '2026-01-01 00:00:00', 'start': None}
    (tmp_path / lock.INFO).write_text(json.dumps(note))  # nobody was there to remove it
    assert holder(tmp_path) is None
    with work_dir_lock(tmp_path):
        assert holder(tmp_path).pid == os.getpid()


def test_nothing_is_held_before_and_after(tmp_path: Path) -> None:
    folder = tmp_path / 'new'
    assert holder(folder) is None
    with work_dir_lock(folder):
        assert holder(folder).pid == os.getpid()
    assert holder(folder) is None
    assert not (folder / lock.INFO).exists()
    with pytest.raises(ZeroDivisionError), work_dir_lock(folder):
        raise ZeroDivisionError
    assert holder(folder) is None


def test_a_folder_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'file/run cannot be written: Not a directory'):
        work_dir_lock(tmp_path / 'file' / 'run').__enter__()


@pytest.mark.skipif(os.name != 'posix', reason='permissions are of Unix')
def test_a_read_only_folder_is_a_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    folder = tmp_path if os.geteuid() else Path('/sys')  # to root no folder is read-only but of the kernel's
    with pytest.raises(UserError, match=f'{folder} cannot be written: Permission denied'):
        work_dir_lock(folder).__enter__()
    tmp_path.chmod(0o755)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"pid": 1}', '[' * 4000, '{"host": 1, "pid": {}}'])
def test_a_note_that_is_garbage_still_says_that_the_folder_is_held(tmp_path: Path, text: str) -> None:
    with work_dir_lock(tmp_path):
        (tmp_path / lock.INFO).write_text(text)
        assert 'unknown machine' in str(holder(tmp_path))


def test_a_note_is_shown_without_its_control_characters(tmp_path: Path) -> None:
    with work_dir_lock(tmp_path):
        note = {'host': '\x1b[2J\nname' + 'x' * 500, 'pid': 7, 'since': '\r', 'start': None}
        (tmp_path / lock.INFO).write_text(json.dumps(note))
        shown = str(holder(tmp_path))
    assert shown.isprintable()
    assert len(shown) < 200


def test_without_locks_of_the_system_the_note_counts_while_its_process_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with work_dir_lock(tmp_path):
        note = json.loads((tmp_path / lock.INFO).read_text())
        monkeypatch.setattr(lock, '_is_held', lambda path: None)
        assert holder(tmp_path).pid == os.getpid()
        (tmp_path / lock.INFO).write_text(
            json.dumps({**note, 'start': note['start'] - 1})
        )  # an older process
        assert holder(tmp_path) is None
        (tmp_path / lock.INFO).write_text(json.dumps({**note, 'host': 'elsewhere', 'pid': 1}))
        assert holder(tmp_path).host == 'elsewhere'
