"""The terminal belongs to us; what the hosts print goes to the log file."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from rich.console import Console
from rich.markup import escape
from rich.table import Table

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


def _log(text: str) -> None:
    logger = MMLogger.get_current_instance()
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.removeHandler(handler)  # it writes to sys.stdout, which leads here
    logger.info(text)


@contextmanager
def quiet_hosts() -> Iterator[None]:
    """Send prints and warnings of the hosts to the log file while a run goes on."""
    channel = logging.getLogger('py.warnings')
    before = channel.handlers
    logging.captureWarnings(True)
    channel.handlers = [_WarningsToLog()]
    try:
        with redirect_stdout(_ToLog()), redirect_stderr(_ToLog()):
            yield
    finally:
        channel.handlers = before
        logging.captureWarnings(False)


def say(text: str) -> None:
    """Print a line on the first process's terminal."""
    if is_main_process():
        console.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a line that should not be overlooked on the first process's terminal."""
    if is_main_process():
        console.print(f'warning: {text}', style='yellow', markup=False, soft_wrap=True)


def show_header(rows: dict[str, str]) -> None:
    """Print the header of a run: a name and a value on each line."""
    if is_main_process():
        grid = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            grid.add_row(f'[bold cyan]{name}', escape(value))
        console.print(grid)


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
        table.add_row(metric, *(row.get(kind, '') for kind in kinds))
    console.print(title, style='bold', markup=False)
    console.print(table)


def show_rows(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print a table with a line for each row and a column for each key; fractions with three digits."""
    if not is_main_process() or not rows:
        return
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify='left' if name == 'name' else 'right')
    for row in rows:
        cells = (f'{v:.3f}' if isinstance(v, float) else '-' if v is None else str(v) for v in row.values())
        table.add_row(*map(escape, cells))
    console.print(title, style='bold', markup=False)
    console.print(table)
