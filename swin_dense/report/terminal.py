"""The terminal belongs to us; what the hosts print goes to the log file."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

console = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


class _ToLog:
    """A text stream whose lines become records of the run's log."""

    def __init__(self) -> None:
        self._rest = ''

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split('\n')
        for line in lines:
            if line.strip():
                MMLogger.get_current_instance().info(line)
        return len(text)

    def flush(self) -> None:
        """Whole lines are written at once; there is nothing to flush."""

    def isatty(self) -> bool:
        return False


@contextmanager
def quiet_hosts() -> Iterator[None]:
    """Send prints and warnings of the hosts to the log file while a run goes on."""
    logging.captureWarnings(True)
    logging.getLogger('py.warnings').handlers = [_WarningsToLog()]
    with redirect_stdout(_ToLog()), redirect_stderr(_ToLog()):
        yield


class _WarningsToLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        MMLogger.get_current_instance().info(record.getMessage())


def say(text: str) -> None:
    """Print a line on the first process's terminal."""
    if is_main_process():
        console.print(text, markup=False)


def show_header(rows: dict[str, str]) -> None:
    """Print the header of a run: a name and a value on each line."""
    if is_main_process():
        grid = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            grid.add_row(f'[bold cyan]{name}', value)
        console.print(grid)


def show_metrics(title: str, metrics: dict[str, float | None]) -> None:
    """Print metrics as a table, one row a group (``bbox``, ``segm``) and one column a value."""
    if not is_main_process():
        return
    groups: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.items():
        group, _, rest = name.partition('_')
        key = (group, rest) if group in ('bbox', 'segm') else ('', name)
        groups.setdefault(key[0], {})[key[1]] = value
    for group, values in groups.items():
        table = Table(title=title, title_justify='left', title_style='bold')
        for name in ['', *values] if group else values:
            table.add_column(name, justify='right')
        cells = ['-' if value is None else f'{value:.3f}' for value in values.values()]
        table.add_row(*([group, *cells] if group else cells))
        console.print(table)
        title = ''
