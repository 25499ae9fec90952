"""Winograd's convolution is torch's but for rounding, gradients too, and stands in only where it is one."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from swin_dense.kernels import winograd
from swin_dense.kernels.winograd import conv3x3
from swin_dense.models import WinogradConv2d
from tests.kernels.blocks import relative_difference

SIZES = {
    # batch, height, width
    'one tile': (1, 4, 4),
    'one pixel': (1, 1, 1),
    'one row': (2, 1, 9),
    'several images at a time': (70, 6, 5),
    'several rows of tiles at a time': (2, 70, 50),
    'wide': (1, 5, 530),
    'odd': (3, 13, 23),
}


def results(x: Tensor, weight: Tensor, bias: Tensor | None, plain: bool) -> list[Tensor]:
    """The output and the gradients of all inputs, for the same cotangent."""
    inputs = [tensor.detach().requires_grad_() for tensor in (x, weight, bias) if tensor is not None]
    output = F.conv2d(*inputs, padding=1) if plain else conv3x3(*inputs)
    cotangent = torch.arange(output.numel(), dtype=torch.float64).sin().view_as(output).to(output.dtype)
    return [output, *torch.autograd.grad(output, inputs, cotangent)]


@pytest.mark.parametrize('with_bias', [False, True], ids=['', 'bias'])
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_equals_torchs(size: tuple[int, int, int], with_bias: bool):
    batch, *sides = size
    x = torch.randn(batch, 3, *sides, dtype=torch.float64)
    weight, bias = torch.randn(5, 3, 3, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    bias = bias if with_bias else None
    for ours, theirs in zip(results(x, weight, bias, False), results(x, weight, bias, True), strict=True):
        assert ours.shape == theirs.shape
        assert relative_difference(ours, theirs) <= 1e-13


def test_rows_of_the_jacobian_all_at_once():
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in ((1, 2, 6, 5), (1, 2, 3, 3), (1,))]
    ours = torch.autograd.functional.jacobian(conv3x3, tuple(inputs), vectorize=True)
    theirs = torch.autograd.functional.jacobian(lambda *args: F.conv2d(*args, padding=1), tuple(inputs))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('channels', [8, 128, 512])
def test_single_precision(channels: int):
    """To 1e-5 of the largest number, of outputs and gradients, with as many terms as heads have."""
    x, bias = torch.randn(1, channels, 40, 36).relu(), torch.randn(channels)
    weight = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
    exact = results(x.double(), weight.double(), bias.double(), True)
    for ours, theirs in zip(results(x, weight, bias, False), exact, strict=True):
        assert ours.dtype == torch.float32
        assert relative_difference(ours.double(), theirs) <= 1e-5


def test_any_layout_and_nothing_is_changed():
    x = torch.randn(2, 9, 10, 6, dtype=torch.float64).permute(0, 3, 1, 2)[:, ::2]
    weight = torch.randn(3, 3, 4, 3, dtype=torch.float64).permute(2, 1, 0, 3)
    before = x.clone(), weight.clone()
    output = conv3x3(x, weight)
    assert relative_difference(output, F.conv2d(x, weight, padding=1)) <= 1e-13
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize('size', [(8, 8), (7, 6)])
def test_the_output_may_be_changed_in_place(size: tuple[int, int]):
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    gradients = []
    for function in (conv3x3, lambda x, weight: F.conv2d(x, weight, padding=1)):
        output = function(x, weight)
        output.permute(0, 2, 3, 1).mul_(3)
        gradients += torch.autograd.grad(output.relu_().sum(), x)
    assert relative_difference(*gradients) <= 1e-13


@pytest.mark.parametrize('wanted', [0, 1, 2])
def test_only_wanted_gradients_are_computed(wanted: int):
    inputs = [torch.randn(1, 2, 8, 8), torch.randn(3, 2, 3, 3), torch.randn(3)]
    inputs[wanted].requires_grad_()
    with (
        mock.patch.object(winograd, '_convolve', wraps=winograd._convolve) as convolve,
        mock.patch.object(winograd, '_weight_gradient', wraps=winograd._weight_gradient) as of_weight,
    ):
        conv3x3(*inputs).sum().backward()
    assert convolve.call_count == (2 if wanted == 0 else 1)
    assert of_weight.call_count == (1 if wanted == 1 else 0)
    assert [x.grad is not None for x in inputs] == [i == wanted for i in range(3)]


def spy() -> mock.Mock:
    """Counts the calls of ``conv3x3``."""
    return mock.patch.object(winograd, 'conv3x3', wraps=conv3x3)


MANY = 128
OTHERS = {
    'one tap': dict(kernel_size=1),
    'five taps': dict(kernel_size=5, padding=2),
    'stride': dict(padding=1, stride=2),
    'dilation': dict(padding=2, dilation=2),
    'groups': dict(padding=1, groups=2),
    'no padding': dict(padding=0),
    'padded by name': dict(padding='same'),
    'reflected': dict(padding=1, padding_mode='reflect'),
}


@torch.no_grad()
@pytest.mark.parametrize('option', OTHERS)
def test_other_convolutions_are_torchs(option: str):
    arguments = dict(in_channels=MANY, out_channels=MANY, kernel_size=3) | OTHERS[option]
    ours, theirs = WinogradConv2d(**arguments), nn.Conv2d(**arguments)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(1, MANY, 48, 48)
    with spy() as used:
        assert torch.equal(ours(x), theirs(x))
    assert not used.called


@torch.no_grad()
@pytest.mark.parametrize(
    ('shape', 'out', 'faster'),
    [
        ((1, 128, 48, 48), 128, True),
        ((2, 128, 32, 32), 128, True),
        ((1, 128, 32, 32), 128, False),  # few tiles
        ((1, 64, 48, 48), 128, False),  # few channels
        ((1, 128, 48, 48), 64, False),
        ((0, 128, 48, 48), 128, False),
    ],
)
def test_where_it_stands_in(shape: tuple[int, ...], out: int, faster: bool):
    conv, x = WinogradConv2d(shape[1], out, 3, padding=1), torch.randn(shape)
    with spy() as used:
        output = conv(x)
    assert used.called is faster
    assert output.shape == (shape[0], out, *shape[2:])


@torch.no_grad()
def test_not_in_half_precision_and_not_when_compiled_or_traced():
    conv, x = WinogradConv2d(MANY, MANY, 3, padding=1), torch.randn(1, MANY, 48, 48)
    with spy() as used:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert conv(x).dtype == torch.bfloat16
        torch.jit.trace(conv, x, check_trace=False)
        torch.compile(conv, backend='eager', fullgraph=True)(x)
        assert conv.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert not used.called


@torch.no_grad()
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'swin_dense'])
def test_a_config_names_it(scope: str):
    with DefaultScope.overwrite_default_scope(scope):
        module = ConvModule(MANY, MANY, 3, padding=1, conv_cfg=dict(type='swin_dense.WinogradConv2d'))
    with spy() as used:
        module(torch.randn(1, MANY, 48, 48))
    assert type(module.conv) is WinogradConv2d
    assert used.called
