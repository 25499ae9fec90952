"""Linear layers on the CPU, by the faster of the two libraries that torch has for them.

In single precision torch multiplies matrices with its BLAS library and convolves with oneDNN. oneDNN also
multiplies matrices when ``torch.compile`` asks it to for frozen weights. Asked the same way, it takes 0.65 to
0.9 of the time on processors with AVX-512, and about the same time on others.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.kernels.eager import Context, Gradients, for_each_gradient


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., C), (C_out, C), (C_out,) -> (..., C_out): ``F.linear`` but for rounding, without autograd."""
    if x.dtype == torch.float32 and torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available():
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, 'none', [], '')
    return F.linear(x, weight, bias)


def differentiable_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``linear`` with autograd, to any order; x has two dimensions or more."""
    return _Linear.apply(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    @for_each_gradient
    def backward(ctx: Context, grad: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _Linear.apply(grad, weight.t(), None) if of_x else None,
            rows.t() @ x.flatten(0, -2) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )
