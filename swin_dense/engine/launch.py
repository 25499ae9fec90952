"""Start the process group where mmengine's own start needs GPUs."""

import torch
from mmengine.device import get_device

from swin_dense.errors import UserError


def start_processes(launcher: str) -> None:
    """Join the process group of a CPU run; on GPUs the runner does it itself.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun), ``'slurm'`` or ``'mpi'``.

    Raises:
        UserError: a launcher that needs GPUs, or torchrun's variables are absent.
    """
    if launcher == 'none' or get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher} needs GPUs: on the CPU use torchrun and --launcher pytorch')
    try:
        torch.distributed.init_process_group('gloo')
    except ValueError as error:
        raise UserError(
            f'--launcher pytorch: start with torchrun --nproc_per_node N tools/train.py ... ({error})'
        ) from error
