"""Multi-scale deformable attention behind mmcv's interfaces: its extension's, and its own for the CPU."""

import functools
import importlib
from collections.abc import Callable

from torch import Tensor

from swin_dense.kernels import deformable_attention as kernel
from swin_dense.kernels.eager import is_eager


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """``kernels.deformable_attention``, with the sizes of the maps as a tensor (levels, 2)."""
    return kernel.forward(value, _sizes(value_spatial_shapes), sampling_locations, attention_weights)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the gradients of value, locations and weights into ``grad_*``."""
    sizes = _sizes(value_spatial_shapes)
    grads = kernel.backward(value, sizes, sampling_locations, attention_weights, grad_output, of_value=True)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads, strict=True):
        if grad is not None:
            target.copy_(grad)


def install() -> None:
    """Put the kernel in the place of mmcv's plain function, which samples all maps into memory at once."""
    module = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
    name = 'multi_scale_deformable_attn_pytorch'
    plain = getattr(module, name)
    if not hasattr(plain, '__wrapped__'):
        setattr(module, name, _faster(plain))


def _faster(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(plain)
    def attention(
        value: Tensor, value_spatial_shapes: Tensor, sampling_locations: Tensor, attention_weights: Tensor
    ) -> Tensor:
        if not is_eager():
            return plain(value, value_spatial_shapes, sampling_locations, attention_weights)
        sizes = _sizes(value_spatial_shapes)
        return kernel.deformable_attention(value, sizes, sampling_locations, attention_weights)

    return attention


def _sizes(shapes: Tensor) -> kernel.Sizes:
    return tuple((int(height), int(width)) for height, width in shapes.tolist())
