"""Distributed runs whose processes fail: who is named, who ends, what is agreed."""

import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import distributed

from swin_dense.engine import processes, ranks, signs_of_life
from swin_dense.engine.launch import set_timeout, start_processes
from swin_dense.engine.signs_of_life import DONE, Sign, diagnosis
from swin_dense.errors import UserError
from tests.engine import two_ranks

CONTEXT = multiprocessing.get_context('fork')  # the tests have imported everything already
TIMEOUT = 2.0


def child(rank: int, how: str, port: int, told: Path) -> None:
    """A rank, in a process of its own."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1')
    os.environ.update(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE='True')
    with told.open('w') as file:
        os.dup2(file.fileno(), 2)
        sys.stderr = sys.__stderr__ = file
        sys.exit(two_ranks.main(how, TIMEOUT))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[list[int], list[str]]]:
    """``run(how)`` is the exit status of each of two ranks, and the error lines of both."""
    monkeypatch.setattr(signs_of_life, 'INTERVAL_SECONDS', 0.1)
    monkeypatch.setattr(ranks, 'SILENT_SECONDS', 0.5)

    def both(how: str) -> tuple[list[int], list[str]]:
        store = distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
        told = [tmp_path / f'{rank}.txt' for rank in range(2)]
        running: list[BaseProcess] = [
            CONTEXT.Process(target=child, args=(rank, how, store.port, told[rank])) for rank in range(2)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join(60)
        statuses = [process.exitcode for process in running]
        for process in running:
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        return statuses, [line for path in told for line in path.read_text().splitlines() if 'error:' in line]

    return both


def test_a_stopped_rank_is_named_and_does_not_stay(run: Callable) -> None:
    statuses, lines = run('stop')
    assert statuses == [1, -signal.SIGKILL]
    assert len(lines) == 1
    assert f'on {platform.node()}) is stopped and does not answer: the run cannot go on' in lines[0]
    assert lines[0].startswith('error: rank 1 (process ')


def test_a_killed_rank_is_named(run: Callable) -> None:
    statuses, lines = run('kill')
    assert statuses == [1, -signal.SIGKILL]
    assert len(lines) == 1
    assert 'error: rank 1' in lines[0]
    assert 'died' in lines[0]


def test_the_rank_that_fails_first_tells_and_the_other_is_quiet(run: Callable) -> None:
    statuses, lines = run('error')
    assert statuses == [1, 2]
    assert lines == ['error: image a.jpg is broken']


def test_all_ranks_stop_at_the_same_iteration_for_the_signal_of_one(run: Callable) -> None:
    statuses, lines = run('term')
    assert statuses == [143, 143]
    assert lines == [f'error: stopped by SIGTERM after iteration {two_ranks.FAILS_AT}']


def test_nothing_is_told_of_a_run_that_ends(run: Callable) -> None:
    assert run('not') == ([0, 0], [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ('how', 'symptom'),
    [
        ('stop', 'is stopped and does not answer'),
        ('skip', 'did not take part in what rank 0 waited for'),
        ('kill', 'died'),
        ('bug', None),
    ],
)
def test_under_torchrun(how: str, symptom: str | None) -> None:
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    began = time.monotonic()
    ended = subprocess.run(
        [*torchrun, '-m', 'tests.engine.two_ranks', how, '20'],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    waited = time.monotonic() - began
    lines = [line for line in ended.stderr.splitlines() if line.startswith('error: ')]
    pids = dict(re.findall(r'rank (\d) is process (\d+)', ended.stdout))
    assert ended.returncode != 0
    assert sorted(pids) == ['0', '1']
    assert not any(processes.alive(int(pid)) for pid in pids.values())
    if symptom is None:
        assert lines == []
        assert ended.stderr.count(']: ZeroDivisionError') == 1  # once, from the rank whose bug it is
    else:
        assert len(lines) == 1
        assert lines[0].startswith(f'error: rank 1 (process {pids["1"]} on ')
        assert symptom in lines[0]
    assert waited > 20 or how not in ('stop', 'skip')  # never before the timeout


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_torchrun_hands_its_signals_on_and_waits(number: signal.Signals) -> None:
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2']
    process = subprocess.Popen(
        [
            *torchrun,
            '--signals-to-handle',
            'SIGTERM,SIGINT,SIGUSR1',
            '-m',
            'tests.engine.two_ranks',
            'never',
            '60',
        ],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    pids: dict[str, str] = {}
    while len(pids) < 2:
        pids.update(re.findall(r'rank (\d) is process (\d+)', process.stdout.readline()))
    time.sleep(1)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    lines = [line for line in told.splitlines() if line.startswith(f'error: stopped by {number.name} after')]
    assert len(lines) == 1
    assert process.returncode != 0
    assert not any(processes.alive(int(pid)) for pid in pids.values())


def sign(count: int, operations: int = 9, **changes: object) -> Sign:
    """A sign of a process on another machine."""
    return Sign(**{'count': count, 'operations': operations, 'host': 'far', 'pid': 7, 'start': 1, **changes})


def test_a_rank_of_another_machine_that_gives_no_signs_does_not_answer() -> None:
    before = {0: sign(5), 1: sign(5), 2: sign(5)}
    after = {0: sign(8), 1: sign(8), 2: sign(5)}
    assert diagnosis(0, before, after) == 'rank 2 (process 7 on far) does not answer'


def test_what_a_rank_said_before_it_ended_is_told() -> None:
    before = {0: sign(5), 1: sign(5), 2: sign(5)}
    after = {0: sign(8), 1: sign(6, left='the disk is full'), 2: sign(6, left=DONE)}
    assert diagnosis(0, before, after) == 'rank 1 (process 7 on far) ended: the disk is full'
    after[1] = sign(8)
    before[2] = after[2]
    assert diagnosis(0, before, after) == 'rank 2 (process 7 on far) had ended already'


def test_the_rank_that_began_fewer_operations_did_not_take_part() -> None:
    before = {0: sign(5), 1: sign(5), 2: sign(5)}
    after = {0: sign(8, 9), 1: sign(8, 9), 2: sign(8, 8)}
    assert 'rank 2 (process 7 on far) did not take part in what rank 0 waited for' in diagnosis(
        0, before, after
    )
    assert 'all of them run' in diagnosis(2, before, after)


def test_without_the_store_the_processes_of_this_machine_are_looked_at() -> None:
    stopped = subprocess.Popen(['sleep', '60'])
    stopped.send_signal(signal.SIGSTOP)
    while processes.state(stopped.pid) != processes.STOPPED:
        time.sleep(0.01)
    here = {'host': platform.node(), 'pid': stopped.pid, 'start': processes.started(stopped.pid)}
    before = {0: sign(5, **here), 1: sign(5)}
    assert diagnosis(1, before, None).startswith(
        f'rank 0 (process {stopped.pid} on {platform.node()}) is stopped'
    )
    assert 'rank 0 or torchrun' in diagnosis(0, before, None)
    stopped.kill()
    stopped.wait()
    assert diagnosis(1, before, None).endswith('died')
    other = {**here, 'pid': os.getpid()}  # the id of another process by now
    assert diagnosis(1, {0: sign(5, **other), 1: sign(5)}, None).endswith('died')


def test_other_errors_are_no_failure_of_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.rank_failure(RuntimeError('Connection closed by peer')) is None  # a single process
    monkeypatch.setenv('RANK', '0')
    assert ranks.rank_failure(ValueError('Connection closed by peer')) is None
    assert ranks.rank_failure(RuntimeError('size mismatch')) is None
    joined = distributed.DistStoreError('Timed out after 21 seconds waiting for clients. 1/2 clients joined.')
    assert '1/2 clients joined' in str(ranks.rank_failure(joined))


def test_a_single_process_agrees_with_itself() -> None:
    assert ranks.largest(7) == 7
    assert ranks.largest(-1) == -1
    assert ranks.first_to_tell()


@pytest.mark.parametrize('timeout', [0, -5, '20', True, float('inf'), float('nan'), None])
def test_a_timeout_that_is_no_time_is_a_mistake(timeout: object) -> None:
    with pytest.raises(UserError, match=r'env_cfg\.dist_cfg\.timeout='):
        set_timeout(Config(dict(env_cfg=dict(dist_cfg=dict(timeout=timeout)))))


def test_the_timeout_is_the_configs_or_ten_minutes() -> None:
    config = Config(dict(env_cfg=dict(dist_cfg=dict(backend='gloo', timeout=20))))
    assert set_timeout(config) == 20
    config = Config(dict(env_cfg=dict(cudnn_benchmark=True)))
    assert set_timeout(config) == config.env_cfg.dist_cfg.timeout == 600
    assert config.env_cfg.cudnn_benchmark


def test_a_launcher_that_was_not_used_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('RANK', raising=False)
    start_processes('none')
    assert not distributed.is_initialized()
    with pytest.raises(UserError, match='torchrun --nproc_per_node N'):
        start_processes('pytorch')
    with pytest.raises(UserError, match='needs GPUs'):
        start_processes('slurm')
