"""A user's mistakes: one exception type, and the one place that prints it."""

import sys
from collections.abc import Callable
from pathlib import Path

from swin_dense.printable import printable


class UserError(Exception):
    """A mistake in a config, a data set, a checkpoint or a command line.

    The message is one line. It names the file and the field, and where possible it says how to correct them.

    Attributes:
        status: exit status of the tool.
        printed: whether another process of the run has printed it already.
    """

    status = 2
    printed = False


class UnsafeFileError(UserError):
    """A file that would run code if it were opened."""

    status = 3


class NotFiniteError(UserError):
    """NaN or infinity in a model or in its output, so that no figure would be true."""

    status = 4


class FailedRunError(UserError):
    """A run that cannot go on, and the config is not the reason: no memory, a process that died or hangs.

    The last checkpoint of the run is intact.
    """

    status = 1


class DiskFullError(UserError):
    """The disk has no space for a file. The file that was there before is intact.

    Args:
        path: the file.
        wanted: size of the file in bytes.
        free: bytes that are free on the disk.
    """

    status = 74  # EX_IOERR

    def __init__(self, path: Path, wanted: int, free: int) -> None:
        super().__init__(
            f'{path} cannot be written: the disk is full ({wanted} bytes wanted, {free} free); '
            f'everything written before is intact'
        )


class StoppedError(UserError):
    """A signal stopped the run, and its state is saved. This is no mistake, but the tool has to end.

    Args:
        message: what was stopped, where its state is, and how to resume it.
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
        if not error.printed:
            print(start + _one_line(error), file=sys.__stderr__)
        sys.exit(error.status)


def _one_line(error: UserError) -> str:
    """The message as one line, without the traceback that torch adds to an error of a loader's worker."""
    _, _, message = str(error).rpartition(f'{type(error).__module__}.{type(error).__qualname__}: ')
    return printable(' '.join(message.split()))
