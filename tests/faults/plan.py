"""What happens to a training process: a kill at a chosen point of a save, a slow disk, a signal.

A process reaches these points whenever it writes, renames or removes a checkpoint or the pointer to one in
the watched folder: ``write`` (before the first byte), ``half``, ``written``, ``fsync`` (before it),
``rename`` and ``renamed``, ``unlink`` and ``unlinked`` (before and after).
"""

import builtins
import io
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKPOINT, POINTER = 'checkpoint', 'pointer'
POINTS = (
    ('write', CHECKPOINT),
    ('half', CHECKPOINT),
    ('fsync', CHECKPOINT),
    ('rename', CHECKPOINT),
    ('renamed', CHECKPOINT),
    ('write', POINTER),
    ('half', POINTER),
    ('rename', POINTER),
    ('renamed', POINTER),
    ('unlink', CHECKPOINT),
    ('unlinked', CHECKPOINT),
)
HALF = {CHECKPOINT: 200_000, POINTER: 1}  # bytes: the write that reaches them is split
REAL_OPEN = io.open


@dataclass(frozen=True)
class Plan:
    """Faults of one process.

    Attributes:
        folder: the work directory; nothing else is watched.
        log: a file that gets a line for each point that is reached.
        point: where the process kills itself: point, kind of file, and the how manieth time.
        slow: seconds that every fsync, and every write of a checkpoint in its middle, sleeps.
        stop_at: the iteration, counted from 1, in which the process sends itself a SIGTERM.
    """

    folder: str
    log: str
    point: tuple[str, str, int] | None = None
    slow: float = 0.0
    stop_at: int | None = None


class Watch:
    """Follows a plan in this process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seen: Counter[tuple[str, str]] = Counter()
        self.log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def start(self) -> None:
        """Replace what the process writes with."""
        builtins.open = io.open = self.open
        os.fsync = self._around(os.fsync, 'fsync', None, 0)
        os.replace = self._around(os.replace, 'rename', 'renamed', 1)
        os.unlink = os.remove = self._around(os.unlink, 'unlink', 'unlinked', 0)
        if self.plan.stop_at is not None:
            self._stop_later()

    def reach(self, point: str, path: str) -> None:
        kind = kind_of(path)
        if kind is None or not path.startswith(self.plan.folder):
            return
        self.seen[point, kind] += 1
        os.write(self.log, f'{time.time()} {point} {kind} {Path(path).name}\n'.encode())
        if self.plan.point == (point, kind, self.seen[point, kind]):
            os.kill(os.getpid(), signal.SIGKILL)
        if point in ('fsync', 'half'):
            time.sleep(self.plan.slow)

    def open(
        self, file: object, mode: str = 'r', buffering: int = -1, *arguments: object, **named: object
    ) -> object:
        watched = isinstance(file, str | os.PathLike) and kind_of(os.fspath(file)) and 'w' in mode
        if not watched:
            return REAL_OPEN(file, mode, buffering, *arguments, **named)
        self.reach('write', os.fspath(file))
        raw = _Halved(self, os.fspath(file))
        if buffering == 0:
            return raw
        binary = io.BufferedWriter(raw)
        return binary if 'b' in mode else io.TextIOWrapper(binary)

    def _around(self, call: Callable, before: str, after: str | None, index: int) -> Callable:
        def watched(*arguments: object, **named: object) -> object:
            path = _path(arguments[index])
            there = before != 'unlink' or os.path.lexists(path)
            if there:
                self.reach(before, path)
            result = call(*arguments, **named)
            if there and after:
                self.reach(after, path)
            return result

        return watched

    def _stop_later(self) -> None:
        from swin_dense.engine.runner import Runner

        call_hook = Runner.call_hook

        def watched(runner: Runner, name: str, **arguments: object) -> None:
            if name == 'before_train_iter' and runner.iter + 1 == self.plan.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            call_hook(runner, name, **arguments)

        Runner.call_hook = watched


class _Halved(io.FileIO):
    """A file of which a part is on the disk, and then the rest."""

    def __init__(self, watch: Watch, path: str) -> None:
        super().__init__(path, 'w')
        self.watch, self.path = watch, path
        self.left = HALF[kind_of(path)]

    def write(self, content: bytes) -> int:
        before, self.left = self.left, self.left - len(content)
        if not self.left <= 0 < before:
            return super().write(content)
        half = super().write(content[: len(content) // 2])
        self.watch.reach('half', self.path)
        return half + super().write(content[half:])

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.watch.reach('written', self.path)


def kind_of(path: str) -> str | None:
    """A checkpoint or the pointer, under its own name or a partial one."""
    name = Path(path).name
    if name.endswith(('.pth', '.pth.partial')):
        return CHECKPOINT
    return POINTER if name.startswith('last_checkpoint') else None


def _path(file: object) -> str:
    """Of a path, or of an open file's descriptor."""
    return str(Path(f'/proc/self/fd/{file}').readlink()) if isinstance(file, int) else os.fspath(file)
