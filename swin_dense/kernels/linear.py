"""Products of tokens and weights on the CPU, by the faster of the two libraries that torch has for them.

In single precision torch multiplies matrices with its BLAS library and convolves with oneDNN. Asked for the
product that ``torch.compile`` asks it for when weights are frozen, oneDNN takes 0.65 to 0.9 of the time on
processors with AVX-512, and about the same on others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from swin_dense.kernels.eager import is_eager, one_by_one


def is_eager_on_cpu(x: Tensor) -> bool:
    """Whether x is computed on the CPU, now (``is_eager``) and in its own precision: no autocast."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled('cpu')
        and type(x) in (Tensor, nn.Parameter)
        and is_eager()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C), (C_out, C), (C_out,) -> (..., C_out): ``F.linear`` but for rounding, without autograd."""
    if x.dtype == torch.float32 and torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """torch's linear layer, by ``linear`` where that serves."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C_out)."""
        if is_eager_on_cpu(x) and x.dtype == self.weight.dtype and x.dim() > 1:
            return _Linear.apply(x, self.weight, self.bias)
        return super().forward(x)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @one_by_one
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _Linear.apply(grad, weight.t(), None) if of_x else None,
            rows.t() @ x.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
