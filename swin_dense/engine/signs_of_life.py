"""Signs of life of the processes of a distributed run, and what they tell when one of them fails."""

import atexit
import contextlib
import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import distributed

from swin_dense.engine import processes
from swin_dense.errors import FailedRunError

INTERVAL_SECONDS = 1.0  # between two signs of life
PARTING_SECONDS = 20.0  # for a process to end by itself when another one has failed
ANSWER_SECONDS = 5.0  # the longest wait for the store
DONE = 'done'


@dataclass(frozen=True)
class Sign:
    """A sign of life.

    Attributes:
        count: how many there were.
        operations: collective operations that the process has begun, the one that it waits for included.
        host: name of its machine.
        pid: id of the process there.
        start: clock ticks from the machine's start to the process's; None where unknown.
        left: '' while it runs, DONE if it ended without an error, or the error.
    """

    count: int
    operations: int
    host: str
    pid: int
    start: int | None
    left: str = ''


class SignsOfLife:
    """A thread that gives this process's signs of life and watches the others'.

    It alone uses the store, which may never answer: where rank 0 keeps it and is stopped, for one. Whoever
    asks the thread waits for a few seconds at most.

    Args:
        store: which all processes reach.
        rank: of this process.
        ranks: how many there are.
        timeout: seconds after which a silent process has failed.
        ending: the end of the line that tells so.

    Attributes:
        signs: the last sign of each rank.
        failing: whether the main thread is about to tell a failure, so that this one does not.
    """

    def __init__(self, store: distributed.Store, rank: int, ranks: int, timeout: float, ending: str) -> None:
        self.rank, self.failing = rank, False
        self.signs: dict[int, Sign] = {}
        self._store, self._ranks, self._timeout, self._ending = store, ranks, timeout, ending
        self._sign = Sign(0, 0, platform.node(), os.getpid(), processes.started(os.getpid()))
        self._rounds = 0
        self._quiet = dict.fromkeys(range(ranks), 0)  # rounds without a new sign
        self._left, self._asked, self._silent = '', False, False
        self._first: bool | None = None
        self._woken, self._answered = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name='signs of life', daemon=True)

    def begin(self) -> None:
        """Start the thread once all gave a sign; it ends before the interpreter, which it would crash."""
        self._read()
        self._thread.start()
        atexit.register(self.leave, DONE)

    def leave(self, why: str) -> None:
        """Tell the others that this process ends, and why; only the first reason counts."""
        self._left = self._left or why
        self._woken.set()
        if not self._silent:
            self._thread.join(ANSWER_SECONDS)

    def refresh(self) -> dict[int, Sign] | None:
        """The signs as they are now; None if the store does not answer."""
        before, deadline = self._rounds, time.monotonic() + ANSWER_SECONDS
        while self._rounds < before + 2:  # one may have begun already
            self._silent = self._silent or time.monotonic() > deadline or not self._thread.is_alive()
            if self._silent:
                return None
            self._woken.set()
            time.sleep(0.02)
        return self.signs

    def first_to_tell(self) -> bool:
        """Whether this process is the one that prints why the run failed: the first that asks."""
        self._asked = True
        self._woken.set()
        if not self._silent and self._thread.is_alive():
            self._answered.wait(ANSWER_SECONDS)
        return self._first is not False

    def give(self) -> None:
        """Give a sign of life; once ``begin`` was called, the thread does."""
        count = self._sign.count + 1
        self._sign = replace(self._sign, count=count, operations=_operations(), left=self._left)
        self._store.set(str(self.rank), json.dumps(asdict(self._sign)))

    def _run(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store is gone: torchrun was killed
            while not self._sign.left:
                self._woken.wait(INTERVAL_SECONDS)
                self._woken.clear()
                self.give()
                if self._asked and self._first is None:
                    self._first = self._claim()
                    self._answered.set()
                self._read()
                if not self.failing and not self._left:
                    self._watch()
        self._answered.set()

    def _claim(self) -> bool:
        return self._store.add('told', 1) == 1

    def _read(self) -> None:
        texts = self._store.multi_get([str(rank) for rank in range(self._ranks)])
        signs = {rank: Sign(**json.loads(text)) for rank, text in enumerate(texts)}
        for rank, sign in signs.items():
            new = rank not in self.signs or sign.count != self.signs[rank].count
            # rounds, not seconds: when a whole job was stopped and goes on, nobody has failed
            self._quiet[rank] = 0 if new else self._quiet[rank] + 1
        self.signs = signs
        self._rounds += 1

    def _watch(self) -> None:
        """End this process when another has failed: the main thread may wait for an answer for ever."""
        for rank, sign in self.signs.items():
            quiet = self._quiet[rank] * INTERVAL_SECONDS
            if rank == self.rank or sign.left == DONE or quiet <= min(self._timeout, PARTING_SECONDS):
                continue
            if not sign.left and quiet > self._timeout:
                if self._claim():
                    line = f'{name(rank, sign)} {_symptom(sign)}: {self._ending}'
                    print(f'error: {line}', file=sys.__stderr__, flush=True)
                kill_stopped(self.rank, self.signs)
                os._exit(FailedRunError.status)
            if sign.left and quiet > PARTING_SECONDS:
                os._exit(FailedRunError.status)  # that process has printed the reason


def diagnosis(own: int, before: Mapping[int, Sign], after: Mapping[int, Sign] | None) -> str:
    """Which process failed.

    Args:
        own: rank of this process.
        before: the signs of life when the failure was noticed.
        after: those of some seconds later; None if the store did not answer.
    """
    others = {rank: sign for rank, sign in (after or before).items() if rank != own}
    for rank, sign in others.items():
        if sign.left not in ('', DONE):
            return f'{name(rank, sign)} ended: {sign.left}'
    silent = [rank for rank in others if after and rank in before and after[rank].count == before[rank].count]
    silent = silent or [rank for rank, sign in others.items() if has_ended(sign) or _is_stopped(sign)]
    if silent:
        return '; '.join(f'{name(rank, others[rank])} {_symptom(others[rank])}' for rank in silent)
    if after is None:
        return 'a process of the run did not answer, and neither does rank 0 or torchrun, which knows them'
    begun = after[own].operations if own in after else 0
    behind = [name(rank, sign) for rank, sign in others.items() if sign.operations < begun]
    if behind:
        return f'{", ".join(behind)} did not take part in what rank {own} waited for, though it runs'
    return 'the processes did not answer one another, though all of them run'


def has_ended(sign: Sign) -> bool:
    """Whether the process said that it ended, or is known to be dead."""
    here = sign.host == platform.node() and sign.start is not None
    return bool(sign.left) or (here and not processes.alive(sign.pid, sign.start))


def kill_stopped(own: int, signs: Mapping[int, Sign]) -> None:
    """Kill the processes of a failed run that are stopped and of this machine: they could not end."""
    for rank, sign in signs.items():
        if rank != own and _is_stopped(sign):
            with contextlib.suppress(OSError):
                os.kill(sign.pid, signal.SIGKILL)


def name(rank: int, sign: Sign) -> str:
    """How a process is called in a message."""
    return f'rank {rank} (process {sign.pid} on {sign.host})'


def _symptom(sign: Sign) -> str:
    if sign.left == DONE:
        return 'had ended already'
    if has_ended(sign):
        return 'died'
    return 'is stopped and does not answer' if _is_stopped(sign) else 'does not answer'


def _is_stopped(sign: Sign) -> bool:
    here = sign.host == platform.node() and sign.start is not None
    same = here and processes.started(sign.pid) == sign.start  # the id may be another process's by now
    return same and processes.state(sign.pid) == processes.STOPPED


def _operations() -> int:
    """Operations begun in the default group; 0 if this torch does not count them."""
    try:
        group: Any = distributed.distributed_c10d._get_default_group()
        return group._get_sequence_number_for_group()
    except (AttributeError, RuntimeError, ValueError):
        return 0
