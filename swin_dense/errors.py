"""A user's mistakes: one exception type, and the one place that prints it."""

import sys
from collections.abc import Callable
from pathlib import Path

from swin_dense.printable import printable


class UserError(Exception):
    """A mistake in a config, a data set, a checkpoint or a command line, told in one line.

    The message names the file and the field, and where possible the mend.

    Attributes:
        status: exit status of the tool.
        told: whether another process of the run has printed it already.
    """

    status = 2
    told = False


class UnsafeFileError(UserError):
    """A file that would run code if it were opened."""

    status = 3


class NotFiniteError(UserError):
    """NaN or infinity where a result is to be computed: there is no figure that would be true."""

    status = 4


class FailedRunError(UserError):
    """A run that cannot go on for a reason outside the config: no memory, a process that died or hangs.

    Its last checkpoint is intact.
    """

    status = 1


class DiskFullError(UserError):
    """There is no space for a file; the one that was there before is intact.

    Args:
        path: the file.
        wanted: bytes of it that were written or are needed.
        free: bytes that the disk has left.
    """

    status = 74  # EX_IOERR

    def __init__(self, path: Path, wanted: int, free: int) -> None:
        super().__init__(
            f'{path} cannot be written: the disk is full ({wanted} bytes wanted, {free} free); '
            f'everything written before is intact'
        )


class StoppedError(UserError):
    """A signal stopped the run after its state was saved: not a mistake, but nothing that goes on.

    Args:
        message: what was stopped, where it is saved and how it goes on.
        status: 128 plus the number of the signal: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool's ``main()``; print a ``UserError`` as one line on stderr and exit with its status."""
    try:
        main()
    except UserError as error:
        start = '' if isinstance(error, StoppedError) else 'error: '
        if not error.told:
            print(start + _told(error), file=sys.__stderr__)
        sys.exit(error.status)


def _told(error: UserError) -> str:
    """The message as one line; of a data loader's worker, torch puts a traceback before it."""
    _, _, message = str(error).rpartition(f'{type(error).__module__}.{type(error).__qualname__}: ')
    return printable(' '.join(message.split()))
