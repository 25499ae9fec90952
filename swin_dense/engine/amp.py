"""Mixed precision in bfloat16, on the CPU as on GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from swin_dense.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """mmengine's OptimWrapper with the forward pass in bfloat16 autocast.

    mmengine's AmpOptimWrapper refuses the CPU, and scales the loss, which bfloat16 with its eight
    exponent bits does not need.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass, inside mmengine's gradient accumulation."""
        with super().optim_context(model), torch.autocast(get_device(), dtype=torch.bfloat16):
            yield
