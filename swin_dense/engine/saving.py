"""A checkpoint on its way to the disk: whole or not at all, finite, and small enough for what is free."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from mmengine.config import config
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import runner
from torch import nn
from torch.optim import Optimizer
from yapf.yapflib.yapf_api import FormatCode

from swin_dense.engine.finite import non_finite, tensors_in
from swin_dense.errors import DiskFullError
from swin_dense.storage import atomic

MARGIN = 1.02  # of the tensors' bytes: names, logs and the zip's directory


def expected_bytes(model: nn.Module, optimizers: list[Optimizer], hooks: list[Hook]) -> int:
    """Bytes of a checkpoint, also before the first step, when the optimizer holds nothing yet.

    Adam and its kin keep two values for a trained weight, SGD with momentum one.
    """
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    copies = 1 + sum(isinstance(hook, EMAHook) for hook in hooks)
    kept = 0
    for optimizer in optimizers:
        trained = sum(p.nbytes for group in optimizer.param_groups for p in group['params'])
        defaults = optimizer.defaults
        kept += trained * (2 if 'betas' in defaults else bool(defaults.get('momentum')))
    return round(MARGIN * (copies * weights + kept))


def check_space(folder: Path, path: Path, wanted: int) -> None:
    """Refuse to begin what could not be saved.

    Args:
        folder: that exists, on the disk of ``path``.
        path: the file that will be written.
        wanted: its bytes.

    Raises:
        DiskFullError: fewer are free.
    """
    free = free_bytes(folder)
    if free < wanted:
        raise DiskFullError(path, wanted, free)


def free_bytes(folder: Path) -> int:
    """Bytes that are free on a folder's disk."""
    return shutil.disk_usage(folder).free


@contextmanager
def straight_to_disk() -> Iterator[None]:
    """Let mmengine's runner write checkpoints into files that appear whole.

    By itself it collects the file in memory, which takes two to six times as long, copies that once more, and
    writes it in place. And it formats the run's config for each of them, a few tenths of a second.
    """
    before = runner.save_checkpoint, config.FormatCode
    runner.save_checkpoint, config.FormatCode = _write, _format
    try:
        yield
    finally:
        runner.save_checkpoint, config.FormatCode = before


def _write(checkpoint: dict, filename: str, file_client_args: None = None, backend_args: None = None) -> None:
    """In place of mmengine's function, with its arguments; a local file has none of the last two."""
    atomic.write_with(Path(filename), lambda file: torch.save(checkpoint, file))


def _format(code: str, style_config: dict[str, Any]) -> tuple[str, bool]:
    """In place of yapf's function: the config of a run seldom changes."""
    return _format_once(code, tuple(style_config.items()))


@lru_cache(maxsize=1)
def _format_once(code: str, style: tuple[tuple[str, Any], ...]) -> tuple[str, bool]:
    return FormatCode(code, style_config=dict(style))


def not_finite(content: Mapping[str, Any]) -> str | None:
    """The name of the first tensor of a checkpoint with NaN or infinity, None if there is none."""
    looked_at = {key: content.get(key) for key in ('state_dict', 'ema_state_dict', 'optimizer')}
    return non_finite(tensors_in(looked_at))
