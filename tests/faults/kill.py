"""Training processes that are killed with SIGKILL, at random and during a save on purpose.

    python -m tests.faults.kill --runs 100

prints, for each task and way, how many runs were left without a loadable newest checkpoint, and how many of
the resumed ones did not end as the uninterrupted run does.
"""

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.plan import POINTS
from tests.faults.runs import Site, Training, assert_fine, differences
from tests.faults.server import Server

KILLED = -9
SLOW = 0.3  # seconds that an fsync takes on the slow disk
SAVES = 6  # of a whole run
WAYS = ('at random', 'slow disk', 'during a save')


@dataclass
class Outcome:
    """Of one killed run.

    Attributes:
        where: the last point of a save that it reached.
        saved: iteration of the last save that it finished.
        loadable: iteration of the newest checkpoint that can be loaded.
        different: what the resumed run does not have as the uninterrupted one has it.
    """

    where: str
    saved: int
    loadable: int
    different: list[str]

    @property
    def lost(self) -> bool:
        return not self.loadable >= self.saved > 0


def killed(reference: Training, way: str, number: int, seconds: float) -> Training:
    """A run of the same config whose process was killed after its first save.

    Args:
        reference: the uninterrupted run.
        way: one of ``WAYS``.
        number: of the run: it chooses the point of a save, or the random moment.
        seconds: from the first save of an uninterrupted run to its end.
    """
    chance = random.Random(f'{way} {number}')
    if way == 'during a save':
        kind = POINTS[number % len(POINTS)]
        # the first save removes nothing: of what is removed, the first one belongs to the second save
        count = chance.randrange(SAVES - 1) + (1 if kind[0].startswith('unlink') else 2)
        run = reference.site.new(reference.task, reference.arguments, reference.options)
        assert_fine(run.start(point=(*kind, count)).wait(), KILLED)
        return run
    slow = SLOW if way == 'slow disk' else 0.0
    moment = chance.uniform(0.0, 1.0) * seconds
    while True:
        run = reference.site.new(reference.task, reference.arguments, reference.options)
        process = run.start(slow=slow)
        run.wait_for_save()
        if process.kill(moment).status == KILLED:
            return run
        moment *= 0.8  # it had ended before


def outcome(run: Training, reference: Training) -> Outcome:
    """What a killed run left, and what became of it."""
    points = run.points()
    where = ' '.join(points[-1][1:3])
    found = Outcome(where, run.saved(), run.loadable(), [])
    run.complete('--resume', 'auto')
    found.different = differences(run, reference)
    return found


def measured(reference: Training, slow: float) -> float:
    """Seconds from the first save of an uninterrupted run to its end."""
    run = reference.site.new(reference.task, reference.arguments, reference.options)
    process = run.start(slow=slow)
    run.wait_for_save()
    begun = time.monotonic()
    assert_fine(process.wait())
    return time.monotonic() - begun


def rows(site: Site, task: str, way: str, runs: int) -> list[Outcome]:
    """The outcomes of so many runs."""
    reference = site.new(task).complete()
    seconds = measured(reference, SLOW if way == 'slow disk' else 0.0)
    outcomes = []
    for number in range(runs):
        found = outcome(killed(reference, way, number, seconds), reference)
        outcomes.append(found)
        bad = 'LOST ' * found.lost + f'{len(found.different)} DIFFERENT' * bool(found.different)
        print(
            f'{task}, {way}, {number}: after {found.where}, saved {found.saved}, '
            f'loadable {found.loadable} {bad} {found.different[:3] or ""}',
            flush=True,
        )
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description='Kill training processes and resume them.')
    parser.add_argument('--runs', type=int, default=100, help='of each task and way (100)')
    parser.add_argument('--task', choices=('detection', 'segmentation'), help='one alone')
    parser.add_argument('--way', choices=WAYS, help='one alone')
    args = parser.parse_args()
    table = Table('task', 'killed', 'runs', 'nothing loadable', 'resumed, not equal')
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        site = Site(server, Path(folder))
        tasks = (args.task,) if args.task else ('detection', 'segmentation')
        for task, way in product(tasks, (args.way,) if args.way else WAYS):
            found = rows(site, task, way, args.runs)
            lost, different = sum(one.lost for one in found), sum(bool(one.different) for one in found)
            table.add_row(task, way, *map(str, (len(found), lost, different)))
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
