"""One trainer for a work directory: a lock that the system gives back when its process dies."""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
from mmengine.dist import broadcast_object_list, is_main_process

from swin_dense.engine import processes
from swin_dense.errors import UserError
from swin_dense.storage import atomic

if sys.platform != 'win32':
    import fcntl

LOCK, INFO = '.lock', '.lock.json'
RETRY_SECONDS = 5.0  # children of a trainer that was killed may hold its files for a moment longer
LONGEST_NAME = 80


@dataclass(frozen=True)
class Holder:
    """Who holds a work directory.

    Attributes:
        host: name of its machine.
        pid: id of the process there.
        since: when it took the lock, local time of that machine; for reading only.
        start: clock ticks between the machine's start and the process's; None where unknown.
    """

    host: str
    pid: int
    since: str
    start: int | None = None

    def __str__(self) -> str:
        return f'process {self.pid} on {self.host}, started {self.since}'


@contextmanager
def work_dir_lock(work_dir: Path) -> Iterator[None]:
    """Keep other trainers out of a work directory while the block runs.

    The lock is ``.lock`` in it, and ``.lock.json`` beside it names its holder. The system gives the lock back
    when the process ends, in whatever way, so a stale one is simply taken. In a distributed run the first
    process takes it, and all learn whether it could: the process group must be there already.

    Raises:
        UserError: another process holds it, or the folder cannot be written.
    """
    lock = filelock.FileLock(work_dir / LOCK, timeout=RETRY_SECONDS)
    refusal = [_take(lock, work_dir) if is_main_process() else None]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise UserError(refusal[0])
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                (work_dir / INFO).unlink()
            lock.release()


def holder(work_dir: Path) -> Holder | None:
    """Who trains in a work directory now; None if nobody does. Takes nothing and writes nothing."""
    path = work_dir / LOCK
    if not path.exists():
        return None
    noted = _noted(work_dir)
    held = _is_held(path)
    if (
        held is None
    ):  # this file system does not tell: what was noted, unless that process is known to be dead
        here = noted is not None and noted.host == platform.node()
        held = noted is not None and (not here or processes.alive(noted.pid, noted.start))
    return (noted or Holder('an unknown machine', 0, 'at an unknown time')) if held else None


def _take(lock: filelock.BaseFileLock, work_dir: Path) -> str | None:
    """Take the lock and note who has it; or what to tell."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        who = _noted(work_dir) or 'another process'
        return f'work directory {work_dir} is in use by {who}: wait, stop it, or give another --work-dir'
    except OSError as error:
        return f'work directory {work_dir} cannot be written: {error.strerror or error}'
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    me = Holder(platform.node(), os.getpid(), now, processes.started(os.getpid()))
    try:
        atomic.write_text(work_dir / INFO, json.dumps(asdict(me)) + '\n')
    except UserError as error:
        lock.release()
        return str(error)
    return None


def _is_held(path: Path) -> bool | None:
    """Whether a process has the lock; None where the file system does not tell.

    On Unix a shared lock is tried, so that two who look at the same time do not see each other.
    """
    if sys.platform == 'win32':
        try:
            with filelock.FileLock(path, timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:
            return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return False


def _noted(work_dir: Path) -> Holder | None:
    """The content of ``.lock.json``. The folder may be a stranger's, so it is only data."""
    try:
        if not (work_dir / INFO).is_file():  # a pipe would be waited for
            return None
        note = json.loads((work_dir / INFO).read_bytes()[:4096])
        start = None if note['start'] is None else int(note['start'])
        return Holder(_shown(note['host']), int(note['pid']), _shown(note['since']), start)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _shown(text: str) -> str:
    return ''.join(c for c in str(text)[:LONGEST_NAME] if c.isprintable())
