"""Deformable convolution behind mmcv's interface, against a loop over the formula of the paper."""

import mmcv.ops
import pytest
import torch
from torch import Tensor, nn

from tests.gradients import assert_same

CASES = [
    dict(stride=1, padding=1, dilation=1, groups=1, deform_groups=1),
    dict(stride=2, padding=2, dilation=2, groups=2, deform_groups=1),
    dict(stride=1, padding=0, dilation=1, groups=2, deform_groups=4),
]


def bilinear(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """One sample of (H, W); cells outside are 0."""
    value = plane.new_zeros(())
    for i in (int(y.floor()), int(y.floor()) + 1):
        for j in (int(x.floor()), int(x.floor()) + 1):
            if 0 <= i < plane.size(0) and 0 <= j < plane.size(1):
                value = value + plane[i, j] * (1 - (y - i).abs()) * (1 - (x - j).abs())
    return value


def reference(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, settings: dict
) -> Tensor:
    """Deformable ConvNets v2, eq. 1: y(p) = sum over k of w_k x(p + p_k + dp_k) dm_k."""
    outputs, kernel = len(weight), weight.size(2)
    stride, padding, dilation = settings['stride'], settings['padding'], settings['dilation']
    per_group, per_deform = outputs // settings['groups'], x.size(1) // settings['deform_groups']
    result = []
    for n in range(len(x)):
        for o in range(outputs):
            for p in range(offset.size(2)):
                for q in range(offset.size(3)):
                    total = x.new_zeros(()) if bias is None else bias[o]
                    for c in range(weight.size(1)):
                        channel = o // per_group * weight.size(1) + c
                        group = channel // per_deform
                        for k in range(kernel**2):
                            place = group * kernel**2 + k
                            y = p * stride - padding + k // kernel * dilation + offset[n, 2 * place, p, q]
                            z = q * stride - padding + k % kernel * dilation + offset[n, 2 * place + 1, p, q]
                            sample = bilinear(x[n, channel], y, z)
                            if mask is not None:
                                sample = sample * mask[n, place, p, q]
                            total = total + weight[o, c, k // kernel, k % kernel] * sample
                    result.append(total)
    return torch.stack(result).view(len(x), outputs, *offset.shape[2:])


def tensors(settings: dict, modulated: bool) -> list[Tensor]:
    torch.manual_seed(0)
    kernel, channels = 3, 4
    x = torch.randn(2, channels, 5, 6, dtype=torch.float64)
    size = [
        (side + 2 * settings['padding'] - settings['dilation'] * (kernel - 1) - 1) // settings['stride'] + 1
        for side in (5, 6)
    ]
    places = settings['deform_groups'] * kernel**2
    offset = 2 * torch.randn(2, 2 * places, *size, dtype=torch.float64)
    weight = torch.randn(4, channels // settings['groups'], kernel, kernel, dtype=torch.float64)
    if not modulated:
        return [x, offset, weight]
    mask = torch.rand(2, places, *size, dtype=torch.float64)
    return [x, offset, mask, weight, torch.randn(4, dtype=torch.float64)]


@pytest.mark.parametrize('settings', CASES, ids=str)
@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
def test_outputs_and_gradients(settings: dict, modulated: bool):
    given = [tensor.requires_grad_() for tensor in tensors(settings, modulated)]
    if modulated:
        x, offset, mask, weight, bias = given
        function = mmcv.ops.modulated_deform_conv2d
    else:
        (x, offset, weight), mask, bias = given, None, None
        function = mmcv.ops.deform_conv2d
    ours = function(*given, *settings.values())
    expected = reference(x, offset, mask, weight, bias, settings)
    assert_same(ours, expected, given)


def test_without_offsets_it_is_a_convolution_and_a_frozen_input_leaves_the_weight_its_gradient():
    x, weight = torch.randn(2, 4, 6, 6), torch.randn(3, 4, 3, 3, requires_grad=True)
    ours = mmcv.ops.deform_conv2d(x, torch.zeros(2, 18, 6, 6), weight, 1, 1)
    plain = nn.functional.conv2d(x, weight, padding=1)
    torch.testing.assert_close(ours, plain)
    cotangent = torch.randn_like(ours)
    gradients = [torch.autograd.grad(y, weight, cotangent)[0] for y in (ours, plain)]
    torch.testing.assert_close(*gradients)


def test_offsets_of_a_larger_map_are_read_as_mmcv_reads_their_memory():
    """mmdet's DyHead gives the offsets of a finer level to a coarser one."""
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(5, 3, 3, 3, dtype=torch.float64)
    offset = torch.randn(2, 18, 8, 8, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 9, 8, 8, dtype=torch.float64, requires_grad=True)
    ours = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1)
    first = offset.flatten(1)[:, : 18 * 16].view(2, 18, 4, 4), mask.flatten(1)[:, : 9 * 16].view(2, 9, 4, 4)
    expected = mmcv.ops.modulated_deform_conv2d(x, *first, weight, None, 1, 1)
    assert torch.equal(ours, expected)
    cotangent = torch.randn_like(ours)
    for gradient, wanted in zip(
        torch.autograd.grad(ours, (offset, mask), cotangent),
        torch.autograd.grad(expected, (offset, mask), cotangent),
        strict=True,
    ):
        assert torch.equal(gradient, wanted)
    with pytest.raises(ValueError, match=r'of \(2, 2\) are fewer than outputs of \(4, 4\)'):
        mmcv.ops.modulated_deform_conv2d(x, offset[..., :2, :2], mask[..., :2, :2], weight, None, 1, 1)


def test_packs_in_half_precision():
    """Offsets from a layer in bf16 make mmcv cast the rest to it; we compute in float32."""
    torch.manual_seed(0)
    pack = mmcv.ops.ModulatedDeformConv2dPack(4, 4, 3, padding=1)
    x = torch.randn(1, 4, 8, 8)
    with torch.autocast('cpu', torch.bfloat16):
        rough = pack(x)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), pack(x), rtol=0.05, atol=0.02)
