"""Two ranks of which the second one fails after some iterations, under torchrun or forked by a test."""

import os
import signal
import sys
import time

import torch
from mmengine.config import Config
from torch import distributed

from swin_dense.engine.failures import as_user_errors
from swin_dense.engine.launch import set_timeout, start_processes
from swin_dense.engine.processes import no_children_left
from swin_dense.engine.signals import StopRequest, stopped
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import UserError

FAILS_AT, LAST = 5, 10


def train(how: str, timeout: float) -> None:
    """A run of gloo operations alone; ``how`` it fails; 'not' at all, or 'never' ends."""
    config = Config(dict(env_cfg=dict(dist_cfg=dict(timeout=timeout))))
    with StopRequest() as stop, no_children_left(), WorkerWatch() as watch, as_user_errors(config, watch):
        set_timeout(config)
        start_processes('pytorch', config.env_cfg.dist_cfg)
        print(f'rank {os.environ["RANK"]} is process {os.getpid()}', flush=True)
        stop.defer()
        for iteration in range(1, LAST if how == 'not' else 10000):
            time.sleep(0.01)
            if os.environ['RANK'] == '1' and iteration == FAILS_AT:
                fail(how, timeout)
            if how == 'skip' and os.environ['RANK'] == '1' and iteration == FAILS_AT:
                continue
            distributed.all_reduce(torch.ones(10))
            reason = stop.agreed()
            if reason is not None:
                raise stopped(reason, f'after iteration {iteration}')


def fail(how: str, timeout: float) -> None:
    if how == 'error':
        raise UserError('image a.jpg is broken')
    if how == 'bug':
        raise ZeroDivisionError
    if how == 'skip':
        time.sleep(timeout + 5)  # it works on, and does not wait with the other
    signals = {'stop': signal.SIGSTOP, 'kill': signal.SIGKILL, 'term': signal.SIGTERM}
    if how in signals:
        os.kill(os.getpid(), signals[how])


def main(how: str, timeout: float) -> int:
    """The exit status of ``train``; its error is printed as a tool does."""
    try:
        train(how, timeout)
    except UserError as error:
        if not getattr(error, 'printed', False):
            print(f'error: {error}', file=sys.stderr, flush=True)
        return error.status
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
