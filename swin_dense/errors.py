"""A user's mistakes: one exception type, and the one place that prints it."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake in a config, a data set, a checkpoint or a command line, told in one line.

    The message names the file and the field, and where possible the mend.
    """


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a tool's ``main()``; print a ``UserError`` as one line on stderr and exit with status 2."""
    try:
        main()
    except UserError as error:
        print('error: ' + ' '.join(str(error).split()), file=sys.__stderr__)
        sys.exit(2)
