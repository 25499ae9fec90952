"""The terminal belongs to us; what the hosts print goes to the log file.

Names and messages may hold what a terminal acts on: they are shown escaped, as ``\\x1b``. Neither a terminal
nor a log that cannot be written ends a run.
"""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from swin_dense.printable import printable, printable_lines

# off a terminal nothing is known of the width, and a log should not be folded at 80 columns
console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160)
KINDS = {'bbox': 'box', 'segm': 'mask'}


class _ToLog:
    """A text stream whose lines become records of the run's log."""

    def __init__(self) -> None:
        self._rest = ''

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split('\n')
        for line in lines:
            if line.strip():
                _log(line)
        return len(text)

    def flush(self) -> None:
        """Whole lines are written at once; there is nothing to flush."""

    def isatty(self) -> bool:
        return False


class _WarningsToLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        _log(record.getMessage())


_logging = threading.local()  # .busy: this thread is writing a line to the log


def _log(text: str) -> None:
    if getattr(_logging, 'busy', False):
        return  # a handler that prints about its own failure: its prints lead here
    _logging.busy = True
    try:
        logger = MMLogger.get_current_instance()
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)  # it writes to sys.stdout, which leads here
        logger.info(printable_lines(text))
    finally:
        _logging.busy = False


@contextmanager
def quiet_hosts() -> Iterator[None]:
    """Send prints and warnings of the hosts to the log file while a run goes on.

    A log that cannot be written, on a full disk for example, is reported once; the run goes on without it.
    """
    channel = logging.getLogger('py.warnings')
    before = channel.handlers
    handler: Any = logging.Handler
    report = handler.handleError
    logging.captureWarnings(True)
    channel.handlers = [_WarningsToLog()]
    handler.handleError = _LogFailure()  # logging's own prints to sys.stderr, which leads to the log
    try:
        with redirect_stdout(_ToLog()), redirect_stderr(_ToLog()):
            yield
    finally:
        handler.handleError = report
        channel.handlers = before
        logging.captureWarnings(False)


class _LogFailure:
    """Stands in for ``logging.Handler.handleError``: prints the first failure."""

    def __init__(self) -> None:
        self._warned = False

    def __call__(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not self._warned and isinstance(error, OSError):
            self._warned = True
            warn(f'the log cannot be written ({error.strerror or error}): the run goes on without it')


def shown(text: str) -> str:
    """The text as the terminal can show it, in one line; see ``printable``."""
    return printable(text, console.encoding)


def _print(what: RenderableType, soft_wrap: bool = False) -> None:
    with suppress(OSError):  # a closed pipe, or a file on a full disk: no reason to lose a run
        console.print(what, soft_wrap=soft_wrap)


def say(text: str) -> None:
    """Print a line on the first process's terminal."""
    if is_main_process():
        _print(Text(printable_lines(text, console.encoding)), soft_wrap=True)


def warn(text: str) -> None:
    """Print a line that should not be overlooked on the first process's terminal."""
    if is_main_process():
        line = printable_lines(f'warning: {text}', console.encoding)
        _print(Text(line, style='yellow'), soft_wrap=True)


def show_header(rows: dict[str, str]) -> None:
    """Print the header of a run: a name and a value on each line."""
    if is_main_process():
        grid = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            grid.add_row(Text(shown(name), style='bold cyan'), Text(printable_lines(value, console.encoding)))
        _print(grid)


def show_metrics(title: str, metrics: Mapping[str, float | None]) -> None:
    """Print metrics as a table: a line for each, a column for each kind (``bbox``, ``segm``)."""
    if not is_main_process():
        return
    cells: dict[str, dict[str, str]] = {}
    for name, value in metrics.items():
        kind, _, metric = name.partition('_')
        if kind not in KINDS:
            kind, metric = '', name
        cells.setdefault(metric, {})[kind] = '-' if value is None else f'{value:.3f}'
    kinds = list(dict.fromkeys(kind for row in cells.values() for kind in row))
    table = Table()
    table.add_column('')
    for kind in kinds:
        table.add_column(KINDS.get(kind, ''), justify='right')
    for metric, row in cells.items():
        table.add_row(Text(shown(metric)), *(row.get(kind, '') for kind in kinds))
    _print(Text(shown(title), style='bold'))
    _print(table)


def show_rows(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print a table with a line for each row and a column for each key; fractions with three digits."""
    if not is_main_process() or not rows:
        return
    table = Table()
    for name in rows[0]:
        table.add_column(Text(shown(name)), justify='left' if name == 'name' else 'right')
    for row in rows:
        cells = (f'{v:.3f}' if isinstance(v, float) else '-' if v is None else str(v) for v in row.values())
        table.add_row(*(Text(shown(cell)) for cell in cells))
    _print(Text(shown(title), style='bold'))
    _print(table)
