"""Multi-scale deformable attention (Deformable DETR, https://arxiv.org/abs/2010.04159, eq. 3).

Each query of each head adds up bilinear samples of several maps, each with a weight. Semantics are mmcv's:
positions from 0 to 1 span a map from border to border, and cells outside are 0. No device ever holds all
samples in memory.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.kernels import deformable_bags, deformable_maps
from swin_dense.kernels.eager import Context, Gradients
from swin_dense.kernels.precision import exact_dtype

Sizes = tuple[tuple[int, int], ...]


def deformable_attention(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of samples of several maps.

    Args:
        value: (B, K, heads, C), the cells of all levels, one map after the other, row by row.
        sizes: height and width of each level; K cells in all.
        locations: (B, Q, heads, levels, P, 2) as x, y from 0 to 1.
        weights: (B, Q, heads, levels, P).

    Returns:
        (B, Q, heads * C), of the value's dtype; float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: the sizes differ from the value in their number of cells, or from the locations in their
            number of levels.
    """
    cells = sum(height * width for height, width in sizes)
    if value.size(1) != cells or locations.size(3) != len(sizes):
        raise ValueError(
            f'value has {value.size(1)} cells and locations have {locations.size(3)} levels, '
            f'but the sizes have {cells} cells in {len(sizes)} levels'
        )
    result: Tensor = _DeformableAttention.apply(value, sizes, locations, weights)
    return result


def forward(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """As ``deformable_attention``, without gradients."""
    tensors = (tensor.to(exact_dtype(value)) for tensor in (value, locations, weights))
    method = deformable_bags if value.device.type == 'cpu' else deformable_maps
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        return method.forward(*tensors, sizes).to(value.dtype)


def backward(
    value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor, grad: Tensor, of_value: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of value (None unless ``of_value``), locations and weights, from that of the result."""
    exact = exact_dtype(value)
    tensors = (tensor.to(exact) for tensor in (value, locations, weights))
    method = deformable_bags if value.device.type == 'cpu' else deformable_maps
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        to_value, to_locations, to_weights = method.backward(*tensors, sizes, grad.to(exact), of_value)
    of_value_ = None if to_value is None else to_value.to(value.dtype)
    return of_value_, to_locations.to(locations.dtype), to_weights.to(weights.dtype)


class _DeformableAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(value, locations, weights)
        ctx.sizes = sizes  # type: ignore[attr-defined]
        return forward(value, sizes, locations, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> Gradients:
        value, locations, weights = ctx.saved_tensors
        sizes: Sizes = ctx.sizes  # type: ignore[attr-defined]
        of_value, of_locations, of_weights = backward(
            value, sizes, locations, weights, grad, ctx.needs_input_grad[0]
        )
        return of_value, None, of_locations, of_weights
