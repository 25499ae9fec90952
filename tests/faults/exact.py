"""Runs that are stopped at every iteration and resumed: each ends as the uninterrupted one, bit for bit.

    python -m tests.faults.exact

prints, for each kind of run, how many of its stops did not.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.runs import ITERATIONS, Site, Training, assert_fine, differences
from tests.faults.server import Server

STOPPED = 143


@dataclass(frozen=True)
class Case:
    """A kind of run.

    Attributes:
        task: a config of ``configs/``; both draw drop paths, crops, flips and what heads sample.
        arguments: of the training tool.
        options: of ``--cfg-options``.
        resumed: options of the resumed run in place of those.
        two: in two processes.
    """

    task: str
    arguments: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    resumed: tuple[str, ...] | None = None
    two: bool = False


def workers(count: int) -> tuple[str, ...]:
    return f'train_dataloader.num_workers={count}', f'train_dataloader.persistent_workers={count > 2}'


ACCUMULATED = ('optim_wrapper.accumulative_counts=3',)
TWO = ('find_unused_parameters=True',)
CASES = {
    'by epoch': Case('detection'),
    'by epoch, 2 workers': Case('detection', options=workers(2)),
    'by epoch, 4 workers': Case('detection', options=workers(4)),
    'by epoch, 2 workers, then 0': Case('detection', options=workers(2), resumed=()),
    'by epoch, Mosaic and MixUp': Case('detection_mosaic'),
    'by epoch, Mosaic and MixUp, 2 workers': Case('detection_mosaic', options=workers(2)),
    'by epoch, EMA': Case('detection_ema'),
    'by epoch, accumulation': Case('detection', options=ACCUMULATED),
    'by epoch, bf16': Case('detection', ('--amp', 'bf16')),
    'by epoch, two processes': Case('detection', options=(*TWO, 'train_cfg.max_epochs=6'), two=True),
    'by iteration': Case('segmentation'),
    'by iteration, 2 workers': Case('segmentation', options=workers(2)),
    'by iteration, 4 workers': Case('segmentation', options=workers(4)),
    'by iteration, 0 workers, then 4': Case('segmentation', resumed=workers(4)),
    'by iteration, EMA': Case('segmentation_ema'),
    'by iteration, accumulation': Case('segmentation', options=ACCUMULATED),
    'by iteration, bf16': Case('segmentation', ('--amp', 'bf16')),
    'by iteration, two processes': Case('segmentation', options=TWO, two=True),
}
# what differs in the number of workers alone is the same run
SAME = {
    'by epoch, 2 workers': 'by epoch',
    'by epoch, 4 workers': 'by epoch',
    'by epoch, Mosaic and MixUp, 2 workers': 'by epoch, Mosaic and MixUp',
    'by iteration, 2 workers': 'by iteration',
    'by iteration, 4 workers': 'by iteration',
}


def whole(site: Site, case: Case) -> Training:
    """The uninterrupted run."""
    run = site.new(case.task, case.arguments, case.options)
    _run(run, case, None, (), 0)
    return run


def resumed(site: Site, case: Case, iteration: int) -> Training:
    """The run that was stopped in an iteration and resumed."""
    run = site.new(case.task, case.arguments, case.options)
    _run(run, case, iteration, (), STOPPED)
    run.options = list(case.options if case.resumed is None else case.resumed)
    _run(run, case, None, ('--resume',), 0)
    return run


def _run(run: Training, case: Case, stop_at: int | None, more: tuple[str, ...], status: int) -> None:
    processes = run.start_two(stop_at, more) if case.two else (run.start(stop_at=stop_at, more=more),)
    for ended in [process.wait() for process in processes]:
        assert_fine(ended, status)


def stops(site: Site, case: Case, iterations: Iterator[int]) -> Iterator[tuple[int, list[str]]]:
    """Each iteration and what differs after a stop in it."""
    reference = whole(site, case)
    for iteration in iterations:
        yield iteration, differences(resumed(site, case, iteration), reference)


def main() -> None:
    parser = argparse.ArgumentParser(description='Stop training runs at every iteration and resume them.')
    parser.add_argument('--case', choices=CASES, action='append', help='one alone (all); may be repeated')
    args = parser.parse_args()
    table = Table('run', 'stops', 'not equal', 'another number of workers')
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        site, references = Site(server, Path(folder)), {}
        for name in args.case or CASES:
            references[name] = whole(site, CASES[name])
            bad = 0
            for iteration in range(1, ITERATIONS + 1):
                try:
                    found = differences(resumed(site, CASES[name], iteration), references[name])
                except AssertionError as error:
                    found = [str(error)]
                bad += bool(found)
                print(f'{name}, stopped in {iteration}: {found[:3] or "equal"}', flush=True)
            equal = ''
            if SAME.get(name) in references:
                found = differences(references[name], references[SAME[name]])
                equal = f'{len(found)} differences' if found else 'equal'
            table.add_row(name, f'{ITERATIONS}', f'{bad}', equal)
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
