"""Ctrl-C and SIGTERM in a tool that keeps what it has done: one line instead of a traceback."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from swin_dense.errors import StoppedError

SIGNALS = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}


class Stopped(BaseException):
    """A signal arrived. No ``Exception``: what catches everything does not catch a signal.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def error(self, what: str) -> StoppedError:
        """What the tool ends with: which signal, ``what`` is kept and how it goes on."""
        return StoppedError(f'stopped by {SIGNALS[signal.Signals(self.number)]}: {what}', 128 + self.number)


class Watch:
    """Remembers the first signal, which may have come where its exception is lost, as in a destructor."""

    def __init__(self) -> None:
        self._number: int | None = None

    def check(self) -> None:
        """Raise ``Stopped`` if a signal has come."""
        if self._number is not None:
            raise Stopped(self._number)

    def arrived(self, number: int, frame: FrameType | None) -> None:
        """The handler. A second signal changes nothing: what is done is being kept already."""
        if self._number is None:
            self._number = number
            raise Stopped(number)


@contextmanager
def watched(what: str) -> Iterator[Watch]:
    """SIGINT and SIGTERM raise ``Stopped`` in the block, which leaves it as a ``StoppedError``.

    Outside the main thread, where Python sets no handlers, nothing changes.

    Args:
        what: what the error says where the block does not say it itself.
    """
    watch = Watch()
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, watch.arrived) for number in SIGNALS}
    try:
        yield watch
    except Stopped as stopped:
        raise stopped.error(what) from None
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # a handler that was not set from Python is None
                signal.signal(number, handler)
