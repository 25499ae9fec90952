"""Small training runs whose process meets faults, and the comparison of what they leave."""

import itertools
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from swin_dense.demo import shapes
from tests.faults.plan import CHECKPOINT, POINTER, Plan
from tests.faults.server import Ended, Process, Server

ITERATIONS = 12
LAST = f'iter_{ITERATIONS}.pth'
COMPARED = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
DATA = {'detection': 'coco', 'segmentation': 'ade'}
PORTS = itertools.count(29511)


@dataclass
class Site:
    """Where the runs of a test are: the server that starts them, the data, a folder."""

    server: Server
    folder: Path
    names: Iterator[int] = field(default_factory=itertools.count)

    @cached_property
    def data(self) -> Path:
        """Four scenes to train on."""
        folder = self.folder / 'shapes'
        shapes.write(folder, train=4, val=1)
        return folder

    def new(self, task: str, arguments: Sequence[str] = (), options: Sequence[str] = ()) -> 'Training':
        """A run that has not been started.

        Args:
            task: name of a config here.
            arguments: of the training tool.
            options: of its ``--cfg-options``.
        """
        folder = self.folder / f'{next(self.names)}'
        folder.mkdir()
        return Training(self, task, folder, [*arguments], [*options])


@dataclass
class Training:
    """A run in ``folder / 'run'``, of one process after another."""

    site: Site
    task: str
    folder: Path
    arguments: list[str]
    options: list[str]
    processes: int = 0

    @property
    def work_dir(self) -> Path:
        return self.folder / 'run'

    def start(
        self,
        point: tuple[str, str, int] | None = None,
        slow: float = 0.0,
        stop_at: int | None = None,
        more: Sequence[str] = (),
    ) -> Process:
        """Start or, with ``more=['--resume', ...]``, continue it; faults as in ``Plan``."""
        return self._start(Plan('', '', point, slow, stop_at), more, {})

    def start_two(self, stop_at: int | None = None, more: Sequence[str] = ()) -> tuple[Process, Process]:
        """The same in two processes over gloo; the first one gets the signal."""
        common = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(next(PORTS)))
        more = ['--launcher', 'pytorch', *more]
        ranks = [{**common, 'RANK': rank, 'LOCAL_RANK': rank} for rank in '01']
        first = self._start(Plan('', '', stop_at=stop_at), more, ranks[0])
        return first, self._start(Plan('', ''), more, ranks[1])

    def _start(self, plan: Plan, more: Sequence[str], environment: dict[str, str]) -> Process:
        self.processes += 1
        log = self.folder / f'points_{self.processes}'
        plan = replace(plan, folder=str(self.work_dir), log=str(log))
        data = self.site.data / DATA[self.task.partition('_')[0]]
        command = [f'tests/faults/configs/{self.task}.py', '--data', data, '--work-dir', self.work_dir]
        command += ['--device', 'cpu', '--seed', '1', *self.arguments, *more]
        if self.options:
            command += ['--cfg-options', *self.options]
        return self.site.server.start(command, plan, environment)

    def complete(self, *more: str) -> 'Training':
        """Run it to its end."""
        assert_fine(self.start(more=more).wait())
        return self

    def points(self, process: int = 1) -> list[tuple[float, str, str, str]]:
        """Time, point, kind and file name of what a process reached."""
        path = self.folder / f'points_{process}'
        lines = path.read_text().splitlines() if path.exists() else []
        return [(float(time), *rest) for time, *rest in map(str.split, lines)]

    def wait_for_save(self) -> None:
        """Wait until the first process has finished a save."""
        deadline = time.monotonic() + 120
        while self.saved() == 0:
            assert time.monotonic() < deadline, 'no save'
            time.sleep(0.01)

    def saved(self) -> int:
        """The iteration of the last save that the first process finished: the pointer was there."""
        newest = finished = 0
        for _, point, kind, name in self.points():
            if point in ('written', 'renamed') and kind == CHECKPOINT:
                newest = int(re.findall(r'\d+', name)[-1])
            if (point, kind) in (('renamed', POINTER), ('written', POINTER)):
                finished = newest
        return finished

    def loadable(self) -> int:
        """The iteration of the newest checkpoint that torch can load; 0 if there is none."""
        newest = 0
        for path in self.work_dir.glob('*.pth'):
            try:
                content = torch.load(path, weights_only=False)
                newest = max(newest, content['meta']['iter'])
            except Exception:
                continue
        return newest

    def losses(self) -> dict[int, set[tuple]]:
        """What the log says of each iteration: one entry, however often it was trained."""
        found: dict[int, set[tuple]] = {}
        for path in sorted(self.work_dir.glob('*/vis_data/scalars.json')):
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # the process was killed while it wrote the line
                shown = {name: value for name, value in entry.items() if 'loss' in name or 'grad' in name}
                if 'loss' in shown:
                    found.setdefault(entry['step'], set()).add(tuple(sorted(shown.items())))
        return found


def assert_fine(ended: Ended, status: int = 0) -> None:
    assert ended.status == status, f'status {ended.status}\n{ended.out[-3000:]}\n{ended.err[-3000:]}'


def differences(found: Training, reference: Training) -> list[str]:
    """What of two finished runs is not the same, bit for bit: weights, optimizer, schedules, losses."""
    one, other = (torch.load(run.work_dir / LAST, weights_only=False) for run in (found, reference))
    different = []
    for key in COMPARED:
        values, wanted = dict(values_in(one.get(key), key)), dict(values_in(other.get(key), key))
        different += sorted(values.keys() ^ wanted.keys())
        different += [name for name in values.keys() & wanted.keys() if not same(values[name], wanted[name])]
    logged, expected = found.losses(), reference.losses()
    steps = sorted(logged.keys() | expected.keys())
    different += [f'losses of iteration {step}' for step in steps if logged.get(step) != expected.get(step)]
    return different


def values_in(content: object, name: str) -> Iterator[tuple[str, object]]:
    """All that is in nested dicts and lists, by dotted names."""
    if isinstance(content, dict | list | tuple):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        for key, item in items:
            yield from values_in(item, f'{name}.{key}')
    else:
        yield name, content


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other
