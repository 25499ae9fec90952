"""The worker processes of data loaders: what they ignore, when they end, and what a failed one loaded."""

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import resource_sharer
from types import TracebackType

import torch
from torch.utils.data import Dataset, get_worker_info

from swin_dense.data.failures import file_names
from swin_dense.engine import processes
from swin_dense.engine.ranks import CANNOT_GO_ON, chain
from swin_dense.errors import FailedRunError

LOOK_SECONDS = 2.0
DEATH_SECONDS = 5.0  # from the end of a process's connections to its own end
STOPPED_SECONDS = 15.0  # that a worker may be stopped; the run then ends well within 30 s
PR_SET_PDEATHSIG = 1
NOTHING = -1
SHOWN = 3  # samples and files of a message
# torch's messages: two of its SIGCHLD handler, and two of the loader that waits
FAILED = re.compile(
    r'DataLoader worker \(pid (?P<killed>\d+)\) is killed by signal: (?P<signal>[\w /]+)'
    r'|DataLoader worker \(pid (?P<ended>\d+)\) exited unexpectedly with exit code (?P<status>\d+)'
    r'|DataLoader worker \(pid\(s\) (?P<gone>[\d, ]+)\) exited unexpectedly'
    r'|DataLoader timed out after (?P<seconds>[\d.]+) seconds'
)


class Loading:
    """The sample that each worker of a loader is loading, in memory that the workers and the trainer share.

    Args:
        workers: of the loader.
    """

    def __init__(self, workers: int) -> None:
        # a row for each worker: process id, index of the sample
        self._slots = torch.full((workers, 2), NOTHING, dtype=torch.int64).share_memory_()

    def started(self, worker_id: int) -> None:
        """Note the process of a worker; called in it."""
        self._slots[worker_id] = torch.tensor([os.getpid(), NOTHING])

    def begin(self, index: int) -> None:
        """Note that the worker in which this is called loads a sample; nothing in the trainer itself."""
        worker = get_worker_info()
        if worker is not None:
            self._slots[worker.id, 1] = int(index)

    def end(self) -> None:
        """Note that the worker has loaded its sample."""
        self.begin(NOTHING)

    def current(self) -> dict[int, int]:
        """The index of the sample of each worker that is loading one."""
        return {worker: index for worker, (_, index) in enumerate(self._slots.tolist()) if index != NOTHING}

    def pids(self) -> dict[int, int]:
        """The worker of each process id; the last ones that there were if the loader has none now."""
        return {pid: worker for worker, (pid, _) in enumerate(self._slots.tolist()) if pid != NOTHING}


def worker_init(
    worker_id: int, inner: Callable[[int], None] | None = None, loading: Loading | None = None
) -> None:
    """Begin a worker: for ``DataLoader(worker_init_fn=partial(worker_init, inner=..., loading=...))``.

    Ctrl-C, slurm and torchrun signal all processes, and the trainer needs its workers to end its iteration.
    So a worker follows SIGTERM of the trainer alone. It dies with the trainer, also where that is killed, and
    where the worker is stopped or hangs (Linux; elsewhere torch's own watch, which needs a worker that runs).

    Args:
        worker_id: number of the worker in its loader.
        inner: the loader's own ``worker_init_fn``.
        loading: the loader's, which learns the process.
    """
    trainer = multiprocessing.parent_process()
    if trainer is not None and trainer.pid is not None:  # not with threads as workers
        _die_with(trainer.pid)
        _ignore_signals(trainer.pid)
        if loading is not None:
            loading.started(worker_id)
    if inner is not None:
        inner(worker_id)


def _die_with(trainer: int) -> None:
    """Have the system kill this process when the thread that started it ends: the trainer's main thread."""
    if not sys.platform.startswith('linux'):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != trainer and not processes.alive(trainer):
        os._exit(1)  # it ended before


def _ignore_signals(trainer: int) -> None:
    for name in ('SIGINT', 'SIGUSR1'):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, 'sigwaitinfo'):
        return  # torch's own handler: SIGTERM of the trainer ends the worker, and any other kills it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(trainer,), name='SIGTERM', daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, getattr(signal, 'SIGUSR1', signal.SIGINT)})


def _end_with(trainer: int) -> None:
    """End the worker at the trainer's SIGTERM, of which a plain handler would not know the sender."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer:
        pass
    os._exit(0)


class WorkerWatch:
    """A thread that kills workers which were stopped, so that their loader fails instead of waiting for ever.

    A context manager for the run. On systems without ``/proc`` it sees nothing. There, and for a worker that
    hangs without being stopped, the loader's ``timeout`` serves.
    """

    def __init__(self) -> None:
        self._loaders: list[tuple[Loading, Dataset]] = []
        self._seen: dict[int, int] = {}  # looks in a row at which a process was stopped
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name='worker watch', daemon=True)
        self.killed: set[int] = set()

    def __enter__(self) -> 'WorkerWatch':
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def add(self, loading: Loading, dataset: Dataset) -> None:
        """Watch a loader's workers; the data set says which files belong to a sample."""
        self._loaders.append((loading, dataset))

    def of(self, pid: int) -> tuple[int, str] | None:
        """The number of the worker with a process id, and what it was loading ('' if nothing)."""
        for loading, dataset in self._loaders:
            worker = loading.pids().get(pid)
            if worker is not None:
                index = loading.current().get(worker)
                return worker, '' if index is None else _sample(dataset, index)
        return None

    def loading(self) -> list[str]:
        """A line for each living worker: the sample that it is loading."""
        return [
            f'worker {worker} (process {pid}) loads {text}'
            for loading, _ in self._loaders
            for pid in loading.pids()
            if processes.alive(pid)
            for worker, text in filter(None, [self.of(pid)])
            if text
        ]

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        pids = {pid for loading, _ in list(self._loaders) for pid in loading.pids()}
        stopped = {pid for pid in pids if processes.state(pid) == processes.STOPPED}
        # looks, not seconds: when a whole run was stopped and goes on, its workers have done nothing wrong
        self._seen = {pid: self._seen.get(pid, 0) + 1 for pid in stopped}
        late = {pid for pid, looks in self._seen.items() if looks * LOOK_SECONDS > STOPPED_SECONDS}
        for pid in late & set(processes.descendants(os.getpid())):
            self.killed.add(pid)
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def deaths_of_workers() -> Iterator[None]:
    """Raise torch's error about a worker that died while it handed the memory of a tensor to the trainer.

    The connection breaks first, and the trainer gets a bare EOFError or ConnectionResetError. The system
    tells of the death a moment later, and torch's handler of SIGCHLD raises wherever the trainer is: here.
    """
    try:
        yield
    except (EOFError, OSError) as error:
        frames = traceback.walk_tb(error.__traceback__)
        if any(frame.f_code.co_filename == resource_sharer.__file__ for frame, _ in frames):
            time.sleep(DEATH_SECONDS)
        raise


def worker_failure(error: BaseException, watch: WorkerWatch) -> FailedRunError | None:
    """The one line of a loader whose worker died or does not answer; None if the error is another one.

    Args:
        error: what the loader raised.
        watch: which knows the workers.
    """
    matches = [match for link in chain(error) if (match := FAILED.search(str(link)))]
    if not matches:
        return None
    facts = {key: value for match in reversed(matches) for key, value in match.groupdict().items() if value}
    if 'seconds' in facts:
        samples = '; '.join(watch.loading()[:SHOWN]) or 'none of them is loading a sample'
        seconds = float(facts['seconds'])
        return FailedRunError(f'no loader worker answered for {seconds:g} s: {samples}: {CANNOT_GO_ON}')
    pids = [int(pid) for key in ('killed', 'ended', 'gone') for pid in re.findall(r'\d+', facts.get(key, ''))]
    pid = next((pid for pid in pids if pid in watch.killed), pids[0])
    worker, sample = watch.of(pid) or (None, '')
    who = f'loader worker {"" if worker is None else worker} (process {pid})'.replace('  ', ' ')
    while_loading = f', while it loaded {sample}' if sample else ''
    return FailedRunError(f'{who} {_how(pid, facts, watch)}{while_loading}: {CANNOT_GO_ON}')


def _how(pid: int, facts: dict[str, str], watch: WorkerWatch) -> str:
    """How a worker ended."""
    if pid in watch.killed:
        return f'was stopped for {STOPPED_SECONDS:.0f} s and had to be killed'
    if 'signal' in facts:
        text = facts['signal'].strip()
        names = {signal.strsignal(number): number.name for number in signal.Signals}
        hint = ' (by the system, if memory ran out: try fewer num_workers)' if text == 'Killed' else ''
        return f'was killed by {names.get(text, text)}{hint}'
    if 'status' in facts:
        return f'ended with exit status {facts["status"]}'
    return 'died'


def _sample(dataset: Dataset, index: int) -> str:
    names = file_names(dataset, index)[:SHOWN]
    return f'sample {index}' + (f' ({", ".join(names)})' if names else '')
