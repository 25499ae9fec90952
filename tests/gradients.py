"""One comparison of outputs and gradients with those of a reference."""

from collections.abc import Sequence

import torch
from torch import Tensor


def assert_same(ours: Tensor, expected: Tensor, inputs: Sequence[Tensor], tolerance: float = 1e-10) -> None:
    """Outputs agree, and the gradients of all inputs for one random gradient of the output."""
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
    cotangent = torch.randn_like(expected)
    for gradient, wanted in zip(
        torch.autograd.grad(ours, inputs, cotangent),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    ):
        scale = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(gradient, wanted, rtol=tolerance, atol=tolerance * scale)
