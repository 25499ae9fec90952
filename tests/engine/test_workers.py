"""Loader workers in real processes: signals, deaths, stops, and what stays behind."""

import functools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import resource_sharer
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import pytest
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swin_dense.engine import processes, workers
from swin_dense.engine.failures import as_user_errors
from swin_dense.engine.processes import end_children, no_children_left
from swin_dense.engine.signals import StopRequest, stopped
from swin_dense.engine.workers import Loading, WorkerWatch, deaths_of_workers, worker_failure, worker_init
from swin_dense.errors import UserError

CONTEXT = multiprocessing.get_context('fork')  # the tests have imported everything already
Trainer = tuple[BaseProcess, list[int], Callable[[], str]]


class Slow(Dataset):
    """Samples that take a moment each; ``hangs`` is one that takes for ever."""

    def __init__(self, loading: Loading, hangs: int | None = None) -> None:
        self.loading, self.hangs = loading, hangs

    def __len__(self) -> int:
        return 10**6

    def get_data_info(self, index: int) -> dict[str, str]:
        return {'img_path': f'{index}.jpg'}

    def __getitem__(self, index: int) -> Tensor:
        self.loading.begin(index)
        time.sleep(1000 if index == self.hangs else 0.01)
        self.loading.end()
        return torch.tensor(index)


def loader(hangs: int | None = None, timeout: float = 0, method: str = 'fork') -> tuple[DataLoader, Loading]:
    loading = Loading(2)
    begin = functools.partial(worker_init, loading=loading)
    context = multiprocessing.get_context(method)
    data = Slow(loading, hangs)
    return DataLoader(
        data, 1, num_workers=2, worker_init_fn=begin, timeout=timeout, multiprocessing_context=context
    ), loading


def trainer(ready: Path, hangs: int | None, timeout: float, method: str, waits: bool) -> None:
    """A run that loads for ever, in a process and a session of its own.

    Where it ``waits``, it does so for a file after two batches.
    """
    os.setsid()
    try:
        with (
            StopRequest() as stop,
            no_children_left(),
            WorkerWatch() as watch,
            as_user_errors(Config(), watch),
        ):
            batches, loading = loader(hangs, timeout, method)
            watch.add(loading, batches.dataset)
            stop.defer()
            for iteration, _ in enumerate(batches, 1):
                if iteration == 2:
                    ready.write_text(' '.join(map(str, loading.pids())))
                    while waits and not ready.with_suffix('.go').is_file():
                        time.sleep(0.01)
                if stop.agreed() is not None:
                    raise stopped(stop.agreed(), 'and saved')
    except UserError as error:
        ready.with_suffix('.told').write_text(str(error))
        sys.exit(error.status)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Trainer]]:
    """``start()`` is a trainer, the ids of its two workers, and a function that waits for its error."""
    monkeypatch.setattr(workers, 'LOOK_SECONDS', 0.05)
    monkeypatch.setattr(workers, 'STOPPED_SECONDS', 0.4)
    running: list[BaseProcess] = []
    pids: list[int] = []

    def begin(
        hangs: int | None = None, timeout: float = 0, method: str = 'fork', waits: bool = False
    ) -> Trainer:
        ready = tmp_path / 'ready'
        process = CONTEXT.Process(target=trainer, args=(ready, hangs, timeout, method, waits))
        process.start()
        running.append(process)
        while not (ready.is_file() and len(ready.read_text().split()) == 2):
            assert process.is_alive()
            time.sleep(0.02)
        pids.extend(int(word) for word in ready.read_text().split())

        def wait() -> str:
            process.join(60)
            assert process.exitcode is not None, 'it hangs'
            text = ready.with_suffix('.told')
            return text.read_text() if text.is_file() else ''

        return process, pids, wait

    yield begin
    for pid in [*(process.pid for process in running), *pids]:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def gone(pids: list[int]) -> bool:
    """Whether all of the processes end within a few seconds."""
    deadline = time.monotonic() + 10
    while any(processes.alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(processes.alive(pid) for pid in pids)


@pytest.mark.parametrize(
    ('number', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_to_all_processes_stops_the_trainer_and_leaves_none(
    start: Callable[..., Trainer], number: int, status: int
) -> None:
    process, pids, wait = start()
    os.killpg(process.pid, number)
    assert wait() == f'stopped by {number.name} and saved'
    assert process.exitcode == status
    assert gone(pids)


def test_workers_live_on_when_they_alone_are_signalled(start: Callable[..., Trainer]) -> None:
    process, pids, wait = start()
    for pid in pids:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(pid, number)
    time.sleep(0.3)
    assert process.is_alive()
    assert all(processes.alive(pid) for pid in pids)
    process.terminate()
    assert 'SIGTERM' in wait()


def test_a_killed_worker_is_named_with_its_sample(start: Callable[..., Trainer]) -> None:
    process, pids, wait = start(hangs=12)
    time.sleep(0.5)  # until one loads sample 12 and the other waits for it
    os.kill(pids[0], signal.SIGKILL)
    text = wait()
    assert process.exitcode == 1
    assert text.startswith(
        f'loader worker 0 (process {pids[0]}) was killed by SIGKILL (by the system, if memory'
    )
    assert ', while it loaded sample 12 (12.jpg): the run cannot go on' in text
    assert gone(pids)


def test_a_stopped_worker_ends_the_run(start: Callable[..., Trainer]) -> None:
    process, pids, wait = start(hangs=12)
    os.kill(pids[1], signal.SIGSTOP)
    text = wait()
    assert process.exitcode == 1
    assert f'loader worker 1 (process {pids[1]}) was stopped for 0 s and had to be killed' in text
    assert gone(pids)


def test_a_worker_that_stopped_while_its_tensor_is_taken_ends_the_run(
    start: Callable[..., Trainer], tmp_path: Path
) -> None:
    process, pids, wait = start(waits=True)
    time.sleep(0.5)  # until the next batches are ready
    os.kill(pids[1], signal.SIGSTOP)
    (tmp_path / 'ready.go').touch()
    text = wait()
    assert process.exitcode == 1
    assert text.startswith(f'loader worker 1 (process {pids[1]}) was stopped for 0 s and had to be killed')
    assert gone(pids)


def test_a_worker_that_hangs_is_named_by_the_loaders_timeout(start: Callable[..., Trainer]) -> None:
    process, pids, wait = start(hangs=11, timeout=1)
    text = wait()
    assert process.exitcode == 1
    assert f'no loader worker answered for 1 s: worker 1 (process {pids[1]}) loads sample 11 (11.jpg)' in text
    assert gone(pids)


def test_workers_die_with_a_killed_trainer_even_when_they_are_stopped(start: Callable[..., Trainer]) -> None:
    process, pids, _ = start()
    os.kill(pids[0], signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    assert gone(pids)


def test_a_whole_run_that_was_stopped_goes_on(start: Callable[..., Trainer]) -> None:
    process, pids, wait = start()
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGCONT)
    time.sleep(0.5)
    assert process.is_alive()
    assert all(processes.alive(pid) for pid in pids)
    os.kill(process.pid, signal.SIGTERM)
    assert 'SIGTERM' in wait()


@pytest.mark.slow
def test_spawned_workers_are_the_same(start: Callable[..., Trainer]) -> None:
    _, pids, wait = start(hangs=12, method='spawn')
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    assert all(processes.alive(pid) for pid in pids)
    os.kill(pids[0], signal.SIGKILL)
    assert f'loader worker 0 (process {pids[0]}) was killed by SIGKILL' in wait()
    assert gone(pids)


def test_the_loader_can_end_its_own_workers() -> None:
    batches, loading = loader(hangs=0)
    iterator = iter(batches)
    while len(loading.pids()) < 2:
        time.sleep(0.01)
    for worker in iterator._workers:
        worker.terminate()  # as torch and multiprocessing do in the end
    for worker in iterator._workers:
        worker.join(10)
        assert worker.exitcode == 0  # torch tells nothing of those


def test_children_of_the_block_end_and_earlier_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, 'END_SECONDS', 0.3)
    before = subprocess.Popen(['sleep', '60'])
    with no_children_left():
        script = 'trap "" TERM; sleep 60 & echo ready; wait; sleep 60'
        deaf = subprocess.Popen(['sh', '-c', script], stdout=subprocess.PIPE)
        halted = subprocess.Popen(['sleep', '60'])
        halted.send_signal(signal.SIGSTOP)
        deaf.stdout.readline()
        family = processes.descendants(os.getpid())
        assert {deaf.pid, halted.pid, before.pid} < set(family)  # and a grandchild
    assert [pid for pid in family if processes.alive(pid)] == [before.pid]
    before.kill()
    for process in (before, deaf, halted):
        process.wait()


def test_children_end_when_the_block_fails() -> None:
    children = []

    def fail() -> None:
        children.append(subprocess.Popen(['sleep', '60']))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), no_children_left():
        fail()
    assert children[0].wait() == -signal.SIGTERM


def test_the_killed_are_returned() -> None:
    children = {process.pid for process in multiprocessing.active_children()} | set(
        processes.descendants(os.getpid())
    )
    obedient, deaf = (subprocess.Popen(['sleep', '60']) for _ in range(2))
    deaf.send_signal(signal.SIGSTOP)
    assert end_children(children) == [deaf.pid]
    assert (obedient.wait(), deaf.wait()) == (-signal.SIGTERM, -signal.SIGKILL)


def test_loading_is_shared_and_says_nothing_outside_of_a_worker() -> None:
    loading = Loading(3)
    loading.begin(7)
    assert loading.current() == {}
    assert loading.pids() == {}
    child = CONTEXT.Process(target=loading.started, args=(1,))
    child.start()
    child.join()
    assert loading.pids() == {child.pid: 1}


@pytest.mark.parametrize(
    'error', [RuntimeError('size mismatch'), ValueError('DataLoader is fine'), KeyError(1)]
)
def test_other_errors_are_no_failure_of_a_worker(error: Exception) -> None:
    assert worker_failure(error, WorkerWatch()) is None


@pytest.mark.parametrize(
    ('text', 'line'),
    [
        (
            'DataLoader worker (pid 7) is killed by signal: Segmentation fault. ',
            'loader worker (process 7) was killed by SIGSEGV',
        ),
        (
            'DataLoader worker (pid 7) exited unexpectedly with exit code 3.',
            'loader worker (process 7) ended with exit status 3',
        ),
        ('DataLoader worker (pid(s) 7, 8) exited unexpectedly', 'loader worker (process 7) died'),
        (
            'DataLoader timed out after 600 seconds',
            'no loader worker answered for 600 s: none of them is loading a sample',
        ),
    ],
)
def test_what_torch_says(text: str, line: str) -> None:
    failure = worker_failure(RuntimeError(text), WorkerWatch())
    assert str(failure) == f'{line}: the run cannot go on; its last checkpoint is intact'
    assert failure.status == 1


def test_a_worker_that_dies_while_its_tensor_is_taken_is_told_by_torch() -> None:
    ours, theirs = CONTEXT.Pipe()

    def worker() -> None:
        theirs.send(resource_sharer.DupFd(0))  # as torch hands on the memory of a tensor
        time.sleep(60)

    process = CONTEXT.Process(target=worker)
    process.start()
    tensor = ours.recv()
    process.kill()
    process.join()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGCHLD)).start()
    before = signal.signal(signal.SIGCHLD, tell)
    try:
        with pytest.raises(RuntimeError, match='is killed by signal') as caught, deaths_of_workers():
            tensor.detach()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert isinstance(caught.value.__context__, (EOFError, OSError))


def tell(number: int, frame: FrameType | None) -> None:
    """What torch's handler of SIGCHLD does."""
    raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed. ')


@pytest.mark.parametrize('error', [EOFError, ConnectionResetError])
def test_other_broken_connections_are_raised_at_once(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, 'sleep', lambda seconds: pytest.fail('it waits'))
    with pytest.raises(error), deaths_of_workers():
        raise error


def test_the_signal_is_known_though_the_loader_raises_another_error() -> None:
    error = RuntimeError('DataLoader worker (pid(s) 7) exited unexpectedly')
    error.__cause__ = RuntimeError('DataLoader worker (pid 7) is killed by signal: Aborted. ')
    assert 'was killed by SIGABRT' in str(worker_failure(error, WorkerWatch()))


def test_processes_are_told_apart_by_their_start() -> None:
    me = os.getpid()
    assert processes.alive(me)
    assert processes.alive(me, processes.started(me))
    assert not processes.alive(me, processes.started(me) - 1)
    child = subprocess.Popen(['true'])
    while processes.state(child.pid) != 'Z':
        time.sleep(0.01)
    assert not processes.alive(child.pid)  # a zombie
    child.wait()
    assert not processes.alive(child.pid)
    assert processes.state(child.pid) is None
    assert pickle.loads(pickle.dumps(worker_init)) is worker_init
