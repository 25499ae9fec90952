"""How far a loop is: a bar with the time left on a terminal, plain lines off it."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from swin_dense.console import terminal

PLAIN_LINE_SECONDS = 20.0  # off a terminal, a line at most this often
Item = TypeVar('Item')


def track(items: Iterable[Item], total: int | None, name: str) -> Iterator[Item]:
    """The items, one by one.

    Args:
        items: what is worked on.
        total: how many there are, None where that is not known.
        name: what is done.
    """
    if terminal.console.is_terminal:
        title = TextColumn('{task.description}', markup=False)
        columns = (title, BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        ends = TextColumn('ETA'), TimeRemainingColumn()
        with Progress(*columns, *ends, console=terminal.console) as bar:
            yield from bar.track(items, total, description=terminal.shown(name))
        return
    begun = line = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - line >= PLAIN_LINE_SECONDS and done != total:
            line = now
            left = '' if total is None else f'  ETA {(now - begun) / done * (total - done):.0f} s'
            terminal.say(f'{name}  {done}/{total or "?"}  {now - begun:.0f} s{left}')
    terminal.say(f'{name}  {done}/{done if total is None else total}  {time.monotonic() - begun:.1f} s')
