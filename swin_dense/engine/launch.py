"""Start the process group of a distributed run: the CPU's too, which mmengine's own start does not know."""

import datetime
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist, is_distributed

from swin_dense.engine import ranks
from swin_dense.errors import UserError

TIMEOUT_SECONDS = 600


def set_timeout(config: Config) -> float:
    """How long the processes of a run wait for one another: ``env_cfg.dist_cfg.timeout``.

    It is ten minutes where the config has none, and the config has it afterwards.

    Returns:
        Seconds.

    Raises:
        UserError: it is no number of seconds above 0.
    """
    environment = config.get('env_cfg') or {}
    distributed = {'backend': 'nccl', 'timeout': TIMEOUT_SECONDS, **(environment.get('dist_cfg') or {})}
    seconds = distributed['timeout']
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float('inf'):
        raise UserError(
            f'config {config.filename}: env_cfg.dist_cfg.timeout={seconds!r} should be seconds, more than 0'
        )
    config.env_cfg = {**environment, 'dist_cfg': distributed}
    return seconds


def start_processes(launcher: str, dist_cfg: Mapping[str, object] | None = None) -> None:
    """Join the process group of a run, and begin to give signs of life to its other processes.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.
        dist_cfg: the config's ``env_cfg.dist_cfg``: ``timeout`` in seconds and, on GPUs, ``backend``.

    Raises:
        UserError: a launcher that needs GPUs, or the launcher's variables are absent.
    """
    if launcher == 'none':
        return
    options: dict[str, Any] = {'backend': 'nccl', 'timeout': TIMEOUT_SECONDS, **(dist_cfg or {})}
    if not is_distributed():
        try:
            if get_device() == 'cpu':
                _start_on_cpu(launcher, options['timeout'])
            else:
                init_dist(launcher, **options)
        except (KeyError, ValueError) as error:
            raise UserError(
                f'--launcher {launcher}: start with {_starter(launcher)} tools/train.py ... ({error})'
            ) from error
    ranks.begin(options['timeout'])


def _start_on_cpu(launcher: str, timeout: float) -> None:
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs: on the CPU use torchrun and --launcher pytorch')
    torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=timeout))


def _starter(launcher: str) -> str:
    starters = {'pytorch': 'torchrun --nproc_per_node N', 'slurm': 'srun python', 'mpi': 'mpirun python'}
    return starters[launcher]
