"""Stopping a run from outside: signals and a time budget, and when it is safe to follow them.

SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 ask for a stop. The iteration ends, a checkpoint is saved, and the exit
status is 128 plus the signal's number: 143, 130, 138. A time budget stops in the same way with exit status 0.

torchrun forwards SIGTERM and SIGINT to all its processes, waits 30 s, kills what is left, and exits with 1.
Where an iteration and a save take longer, give ``torchrun --shutdown-timeout 120``. SIGUSR1 ends torchrun
itself, unless it is given ``--signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1``.

Under slurm let the warning come early enough for an iteration and a save, here two minutes before the end:

    #SBATCH --signal=USR1@120                   # to what srun started
    srun python tools/train.py CONFIG --launcher slurm --resume auto

``--signal=B:USR1@120`` is for the batch script alone, and a shell handles it only when its command has ended.
Such a script starts the trainer in the background, passes the signal on, and waits again:

    srun python tools/train.py CONFIG --launcher slurm --resume auto &
    trap 'kill -USR1 $!' USR1; wait; wait

No signal is needed with ``--max-time`` below the limit of the job.
"""

import re
import signal
import threading
import time
from collections import deque
from types import FrameType, TracebackType
from typing import Any

from swin_dense.engine import ranks
from swin_dense.errors import StoppedError, UserError

NAMES = ('SIGTERM', 'SIGINT', 'SIGUSR1')
HANDLED = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
# beside the numbers of signals: the largest of all processes' is the reason to stop
GO_ON, OUT_OF_TIME = -1, 0
UNITS = {'d': 86400, 'h': 3600, 'm': 60, 's': 1}
RECENT = 50  # iterations
FIRST_SAVE_SECONDS = 30.0  # supposed until one was measured


class TimeBudget:
    """How long a run may take. It is used up while there is still time for an iteration and a save.

    Args:
        seconds: from ``start`` on.
        start: ``time.monotonic()`` when the process began; now if None.
    """

    def __init__(self, seconds: float, start: float | None = None) -> None:
        self._last = time.monotonic()
        self.end = (self._last if start is None else start) + seconds
        self.save_seconds = min(FIRST_SAVE_SECONDS, seconds / 10)
        self._iterations: deque[float] = deque(maxlen=RECENT)

    def iteration_ended(self) -> None:
        """Note the time since the last iteration, or since ``rested``."""
        now = time.monotonic()
        self._iterations.append(now - self._last)
        self._last = now

    def rested(self) -> None:
        """Leave the time since the last iteration, of an evaluation or a save, out of the next one."""
        self._last = time.monotonic()

    def saved(self, seconds: float) -> None:
        """Note how long a checkpoint took."""
        self.save_seconds = seconds
        self.rested()

    def used_up(self) -> bool:
        """Whether another iteration, as long as the longest recent one, and a save could take too long."""
        return time.monotonic() + max(self._iterations, default=0.0) + self.save_seconds >= self.end


class StopRequest:
    """Whether the run should stop; as a context manager it handles the signals.

    Until ``defer`` there is nothing to save, and the first signal ends the block at once with a
    ``StoppedError``. After it the first one is noted. All later ones are only counted: none interrupts an
    iteration, a save, or the end of the loaders.

    Args:
        budget: the run's time, or None.

    Attributes:
        signals: the numbers of all signals that came.
    """

    def __init__(self, budget: TimeBudget | None = None) -> None:
        self.budget = budget
        self.signals: list[int] = []
        self._deferring = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> 'StopRequest':
        if threading.current_thread() is threading.main_thread():  # no other may handle signals
            self._before = {number: signal.signal(number, self._handle) for number in HANDLED}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if isinstance(error, _StoppedAtOnce):
            raise stopped(self.signals[0], 'before the first iteration: there was nothing to save') from None

    def defer(self) -> None:
        """From now on, only note a signal: the caller asks for it and saves first."""
        self._deferring = True

    def requested(self) -> int | None:
        """The request to this process: None to go on, OUT_OF_TIME, or the number of the first signal.

        For places that the processes do not reach together, as the batches of an evaluation. One that
        leaves them early still has to meet the others in ``agreed``.
        """
        if self.signals:
            return self.signals[0]
        return OUT_OF_TIME if self.budget is not None and self.budget.used_up() else None

    def agreed(self) -> int | None:
        """The same for all processes of a run; each must call this at the same point.

        That is once after each iteration, and once after the batches of an evaluation, before the processes
        gather their results. It costs one small reduction over the processes, and nothing in a single one.
        """
        own = self.requested()
        reason = ranks.largest(GO_ON if own is None else own)
        return None if reason == GO_ON else reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signals.append(number)
        if not self._deferring and len(self.signals) == 1:
            raise _StoppedAtOnce


class _StoppedAtOnce(BaseException):
    """Not an ``Exception``: the hosts catch and rewrite those while they build a run."""


def stopped(reason: int, where: str) -> StoppedError:
    """The error that ends a run which was stopped.

    Args:
        reason: number of the signal.
        where: after which iteration, where it is saved, and how it goes on.
    """
    return StoppedError(f'stopped by {signal.Signals(reason).name} {where}', 128 + reason)


def parse_duration(text: str) -> float:
    """Seconds of a duration: ``'2h50m'``, ``'90s'``, ``'1d2h'``, ``'1.5h'``; the largest unit first.

    A number without a unit is refused: slurm would read minutes, and most others seconds.

    Raises:
        UserError: it is anything else, or no time at all.
    """
    pattern = ''.join(rf'(?:(\d+(?:\.\d+)?){unit})?' for unit in UNITS)
    match = re.fullmatch(pattern, text.strip().lower(), re.ASCII)
    numbers = match.groups() if match else ()
    seconds = sum(float(n or 0) * unit for n, unit in zip(numbers, UNITS.values(), strict=False))
    if not 0 < seconds < float('inf'):
        raise UserError(f'--max-time {text!r} is no duration: write it as 2h50m, 90s, 45m or 1d2h')
    return seconds
