"""Other processes, as the system knows them: whether they live, their state, their children."""

import os
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import active_children, resource_tracker
from pathlib import Path
from typing import Any

PROC = Path('/proc')
STOPPED = 'T'  # by SIGSTOP or Ctrl-Z; a debugger's is 't'
END_SECONDS = 5.0  # that children may take to end before they are killed
DEAD = ('Z', 'X')  # a zombie is dead: its parent has only not asked how it ended


def state(pid: int) -> str | None:
    """The state letter of a process (R, S, D, T, Z, ...); None if it is gone or the system does not tell."""
    fields = _stat(pid)
    return fields[0] if fields else None


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did: with the id it names one process."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def alive(pid: int, start: int | None = None) -> bool:
    """Whether a process of this machine still runs.

    Args:
        pid: its id.
        start: what ``started`` said of it; another process may have its id by now.
    """
    if _has_proc():
        return state(pid) not in (None, *DEAD) and start in (None, started(pid))
    if sys.platform == 'win32':
        return True  # os.kill would end it, and nothing in the standard library asks
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(pid: int) -> list[int]:
    """Children of a process, their children and so on; nearest first. Linux only: elsewhere nothing."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob('[0-9]*'):
        fields = _stat(int(entry.name))
        if fields and fields[0] not in DEAD:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    family = [pid]
    for member in family:
        family += children.get(member, [])
    return family[1:]


@contextmanager
def no_children_left() -> Iterator[None]:
    """End every process that the block started and left behind, however the block ends."""
    before = set(descendants(os.getpid()))
    try:
        yield
    finally:
        end_children(before)


def end_children(spared: Collection[int] = ()) -> list[int]:
    """Ask the children of this process to end, and kill those that do not.

    A loader's worker ends at once. One that is stopped, or hangs in a file, is killed.

    Args:
        spared: ids of processes to leave alone.

    Returns:
        The ids of those that had to be killed.
    """
    tracker: Any = getattr(getattr(resource_tracker, '_resource_tracker', None), '_pid', None)
    spared = {*spared, tracker}  # the tracker removes shared memory that we leave, and then ends by itself
    pids = {*(child.pid for child in active_children()), *descendants(os.getpid())} - spared
    family = {pid: started(pid) for pid in pids if pid is not None}
    with _no_news_of_children():
        _signal(family, signal.SIGTERM)
        left = _wait(family)
        _signal(left, getattr(signal, 'SIGKILL', signal.SIGTERM))
        _wait(left)
    return list(left)


@contextmanager
def _no_news_of_children() -> Iterator[None]:
    """Without torch's handler, which raises in the main thread when a worker of a loader is killed."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, 'SIGCHLD'):
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _wait(family: Mapping[int, int | None]) -> dict[int, int | None]:
    """Wait until the processes are gone; returns those that are not, at once if all of them are stopped."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        active_children()  # takes notice of the end of those that are multiprocessing's
        left = {pid: start for pid, start in family.items() if alive(pid, start)}
        if not left or all(state(pid) == STOPPED for pid in left) or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


def _signal(family: Mapping[int, int | None], number: int) -> None:
    for pid, start in family.items():
        if alive(pid, start):
            with suppress(OSError):
                os.kill(pid, number)


def _has_proc() -> bool:
    return (PROC / 'self/stat').exists()


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the name, which may hold spaces and brackets: state, parent, ..."""
    try:
        return (PROC / str(pid) / 'stat').read_text(errors='replace').rpartition(')')[2].split()
    except OSError:
        return None
