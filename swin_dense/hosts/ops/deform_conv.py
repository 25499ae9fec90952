"""Deformable convolution (https://arxiv.org/abs/1703.06211), and v2 (1811.11168), by torchvision's operator.

mmcv and torchvision lay out offsets alike: (y, x) of each kernel position, for each deformable group.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

from swin_dense.kernels.precision import exact_dtype


class _Geometry(NamedTuple):
    """Each as height, width."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803  mmcv's names
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the convolution, without a bias, into ``output`` (B, O, H', W').

    ``input`` is (B, C, H, W), ``weight`` (O, C / group, kH, kW), ``offset``
    (B, 2 * deformable_group * kH * kW, H', W'). d is the stride. ``columns``, ``ones`` and
    ``im2col_step`` are scratch of mmcv's own way.
    """
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW))
    output.copy_(_convolution(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradInput: Tensor,  # noqa: N803
    gradOffset: Tensor,  # noqa: N803
    weight: Tensor,
    columns: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write the gradients of the input and the offset into ``gradInput`` and ``gradOffset``.

    ``columns`` takes the gradient of the weight along: the next call asks for it.
    """
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW))
    grads = _gradients(gradOutput, input, weight, offset, None, geometry, group, deformable_group)
    gradInput.copy_(grads.input)
    gradOffset.copy_(grads.offset)
    columns.resize_(weight.shape).copy_(grads.weight)


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,  # noqa: N803
    gradWeight: Tensor,  # noqa: N803
    columns: Tensor,
    ones: Tensor,
    kW: int,  # noqa: N803
    kH: int,  # noqa: N803
    dW: int,  # noqa: N803
    dH: int,  # noqa: N803
    padW: int,  # noqa: N803
    padH: int,  # noqa: N803
    dilationW: int,  # noqa: N803
    dilationH: int,  # noqa: N803
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Write ``scale`` times the gradient of the weight into ``gradWeight``."""
    if columns.shape == gradWeight.shape:  # from the call before
        gradWeight.copy_(columns * scale)
        return
    geometry = _Geometry((dH, dW), (padH, padW), (dilationH, dilationW))
    weight = torch.zeros_like(gradWeight)
    grads = _gradients(gradOutput, input, weight, offset, None, geometry, group, deformable_group)
    gradWeight.copy_(grads.weight * scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """As ``deform_conv_forward``, with ``mask`` (B, deformable_group * kH * kW, H', W') and ``bias`` (O,)."""
    geometry = _Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    size = output.shape[2:]
    offset, mask = _of_size(offset, size), _of_size(mask, size)
    output.copy_(_convolution(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write the gradients of input, weight, bias, offset and mask into ``grad_*``."""
    geometry = _Geometry((stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w))
    size = grad_output.shape[2:]
    read = (_of_size(offset, size), _of_size(mask, size))
    grads = _gradients(grad_output, input, weight, *read, geometry, group, deformable_group)
    grad_input.copy_(grads.input)
    grad_weight.copy_(grads.weight)
    _of_size(grad_offset, size).copy_(grads.offset)
    _of_size(grad_mask, size).copy_(grads.mask)
    if with_bias:
        grad_bias.copy_(grads.bias)


def _of_size(x: Tensor, size: torch.Size) -> Tensor:
    """The values (B, C, *size) that mmcv reads of offsets or masks (B, C, H, W) of a larger map.

    mmdet's DyHead gives those of the finer level to the coarser one. mmcv's function takes the memory of each
    image as if it had the size of the output: the first values of it. Published weights were trained so.

    Raises:
        ValueError: the map is smaller than the output; mmcv would read beyond its end.
    """
    if x.shape[2:] == size:
        return x
    if x.size(2) * x.size(3) < size.numel():
        raise ValueError(f'offsets or masks of {tuple(x.shape[2:])} are fewer than outputs of {tuple(size)}')
    return x.flatten(1)[:, : x.size(1) * size.numel()].view(len(x), x.size(1), *size)


def _convolution(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None, geometry: _Geometry
) -> Tensor:
    exact = exact_dtype(x)
    return deform_conv2d(
        x.to(exact),
        offset.to(exact),
        weight.to(exact),
        None if bias is None else bias.to(exact),
        *geometry,
        mask=None if mask is None else mask.to(exact),
    )


class _Gradients(NamedTuple):
    """In the order of torchvision's operator."""

    input: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    bias: Tensor


def _gradients(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    geometry: _Geometry,
    groups: int,
    deformable_groups: int,
) -> _Gradients:
    exact = exact_dtype(x)
    bias = weight.new_zeros(len(weight))
    given = x.new_zeros(len(x), 1) if mask is None else mask  # the operator wants a tensor
    tensors = (grad_output, x, weight, offset, given, bias)
    return _Gradients(
        *torch.ops.torchvision._deform_conv2d_backward(
            *(tensor.to(exact).contiguous() for tensor in tensors),
            *geometry.stride,
            *geometry.padding,
            *geometry.dilation,
            groups,
            deformable_groups,
            mask is not None,
        )
    )
