"""Training processes that start in an instant: forks of a process that has imported everything.

The parent imports torch, the hosts and this project once, runs no operation of torch, and has one thread:
a fork of it is what a new process is after its imports.
"""

import atexit
import gc
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tests.faults.plan import Plan, Watch

ROOT = Path(__file__).parents[2]
ENDED_BADLY = 125


@dataclass
class Ended:
    """How a process ended.

    Attributes:
        status: exit status, negative for a signal.
        out: standard output.
        err: standard error.
    """

    status: int
    out: str
    err: str


@dataclass
class Process:
    """A running fork."""

    pid: int
    server: 'Server'
    out: Path
    err: Path

    def kill(self, seconds: float) -> Ended:
        """Let it run for so long, or to its end, and kill it."""
        ready, _, _ = select.select([self.server.ended(self.pid)], [], [], seconds)
        if not ready:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def wait(self, seconds: float = 240) -> Ended:
        """Wait for its end; kill it and raise if that takes too long."""
        status = self.server.status(self.pid, seconds)
        return Ended(status, self.out.read_text(errors='replace'), self.err.read_text(errors='replace'))


class Server:
    """The parent, seen from the tests: ``with Server() as server: server.start([...])``."""

    def __init__(self, root: Path = ROOT) -> None:
        environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200', 'PYTHONPATH': str(root)}
        environment['CUDA_VISIBLE_DEVICES'] = ''
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'tests.faults.server'],
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == 'ready'

    def __enter__(self) -> 'Server':
        return self

    def __exit__(self, *error: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def start(self, arguments: list[object], plan: Plan, environment: dict[str, str]) -> Process:
        """Start ``tools/train.py`` with these arguments; its output goes beside the plan's log.

        Args:
            arguments: of the command line.
            plan: what happens to the process.
            environment: variables that are set besides this process's own.
        """
        out, err = (Path(f'{plan.log}.{stream}') for stream in ('out', 'err'))
        job = dict(arguments=list(map(str, arguments)), plan=asdict(plan), out=str(out), err=str(err))
        self._write({**job, 'environment': environment})
        return Process(int(self._read()), self, out, err)

    def ended(self, pid: int) -> int:
        """A descriptor that is readable when the process has ended."""
        return os.pidfd_open(pid)

    def status(self, pid: int, seconds: float) -> int:
        self._write(dict(wait=pid))
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            self._read()
            raise TimeoutError(f'a process runs longer than {seconds} s')
        return int(self._read())

    def _write(self, job: dict) -> None:
        self.process.stdin.write(json.dumps(job) + '\n')
        self.process.stdin.flush()

    def _read(self) -> str:
        return self.process.stdout.readline().strip()


def main() -> None:
    """Serve until standard input ends."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    train = _imported()
    print('ready', file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if 'wait' in job:
            _, status = os.waitpid(job['wait'], 0)
            print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            answers.close()
            _child(train, job)
        print(pid, file=answers, flush=True)


def _imported() -> object:
    """The training tool, after the imports that a run makes; what is slow and does not matter is left out."""
    from swin_dense import hosts

    hosts.prepare()
    import mmdet.datasets
    import mmdet.evaluation
    import mmdet.models  # noqa: F401
    import mmengine.config.config
    import mmengine.config.utils
    import mmengine.runner.runner
    import mmseg.datasets
    import mmseg.evaluation
    import mmseg.models  # noqa: F401

    import swin_dense.engine.runs  # noqa: F401
    from swin_dense.errors import exit_on_user_error
    from tests.tools.loading import load_tool

    mmengine.config.config.FormatCode = lambda text, **style: (text, True)
    mmengine.config.utils._get_cfg_metainfo = cache(mmengine.config.utils._get_cfg_metainfo)
    mmengine.runner.runner.collect_env = dict
    train = load_tool('train')
    for name in ('detection', 'segmentation'):
        mmengine.config.Config.fromfile(f'tests/faults/configs/{name}.py')
    gc.collect()
    gc.freeze()  # mmengine collects garbage for each data set
    return lambda: exit_on_user_error(train.main)


def _child(train: object, job: dict) -> None:
    """Never returns."""
    status = ENDED_BADLY
    try:
        os.setsid()
        for stream, descriptor in ((job['out'], 1), (job['err'], 2)):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(job['environment'])
        sys.argv = ['tools/train.py', *job['arguments']]
        plan = Plan(**job['plan'])
        Watch(Plan(**{**asdict(plan), 'point': plan.point and tuple(plan.point)})).start()
        train()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == '__main__':
    main()
