"""A user's mistakes: one exception type, and the one place that prints it."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in a config, a data set, a checkpoint or a command line, told in one line.

    The message names the file and the field, and where possible the mend.

    Attributes:
        status: exit status of the tool.
    """

    status = 2


class UnsafeFileError(UserError):
    """A file that would run code if it were opened."""

    status = 3


class NotFiniteError(UserError):
    """NaN or infinity where a result is to be computed: there is no figure that would be true."""

    status = 4


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool's ``main()``; print a ``UserError`` as one line on stderr and exit with its status."""
    try:
        main()
    except UserError as error:
        print('error: ' + _told(error), file=sys.__stderr__)
        sys.exit(error.status)


def _told(error: UserError) -> str:
    """The message as one line; of a data loader's worker, torch puts a traceback before it."""
    _, _, message = str(error).rpartition(f'{type(error).__module__}.{type(error).__qualname__}: ')
    return ' '.join(message.split())
