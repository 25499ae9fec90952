"""The CPU's linear layer is torch's but for rounding, with all gradients."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.kernels import linear
from swin_dense.models.linear import Linear
from tests.kernels.blocks import relative_difference

SHAPES = [(1, 3), (0, 3), (70, 3), (2, 4, 5, 3)]


def layers(bias: bool = True, out: int = 5) -> tuple[Linear, nn.Linear]:
    """Ours and torch's, with the same weights."""
    ours, theirs = Linear(3, out, bias), nn.Linear(3, out, bias)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize('onednn', [True, False])
@pytest.mark.parametrize('with_bias', [True, False], ids=['bias', ''])
@pytest.mark.parametrize('size', [(2000, 768, 3072), (300, 3072, 96), (1, 5, 7)])
def test_single_precision(size: tuple[int, int, int], with_bias: bool, onednn: bool):
    tokens, channels, out = size
    x, weight, bias = torch.randn(tokens, channels), torch.randn(out, channels), torch.randn(out)
    bias = bias if with_bias else None
    with torch.backends.mkldnn.flags(enabled=onednn):
        result = linear.linear(x, weight, bias)
    exact = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    assert result.dtype == torch.float32
    assert relative_difference(result.double(), exact) <= 1e-5


def test_strided_inputs():
    x, weight = torch.randn(3, 10).t()[::2], torch.randn(3, 7).t()
    assert relative_difference(linear.linear(x, weight), F.linear(x, weight)) <= 1e-6


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', SHAPES)
def test_gradients_equal_torchs(shape: tuple[int, ...], bias: bool, dtype: torch.dtype):
    results = []
    x = torch.randn(shape, dtype=dtype)
    for layer in layers(bias):
        inputs = [x.clone().requires_grad_(), *layer.to(dtype).parameters()]
        output = layer(inputs[0])
        cotangent = torch.arange(output.numel(), dtype=torch.float64).sin().view_as(output).to(dtype)
        results.append([output, *torch.autograd.grad(output, inputs, cotangent)])
    for ours, theirs in zip(*results, strict=True):
        assert ours.shape == theirs.shape
        if theirs.count_nonzero():
            assert relative_difference(ours, theirs) <= (1e-6 if dtype == torch.float32 else 1e-14)
        else:
            assert not ours.count_nonzero()


@pytest.mark.parametrize('frozen', ['x', 'weight', 'bias'])
def test_frozen_inputs_have_no_gradient(frozen: str):
    layer, x = layers()[0], torch.randn(4, 3, requires_grad=True)
    named = dict(layer.named_parameters()) | {'x': x}
    named[frozen].requires_grad_(False)
    layer(x).sum().backward()
    assert [name for name, tensor in named.items() if tensor.grad is None] == [frozen]


def test_second_derivatives():
    layer = layers()[0].double()
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True), *layer.parameters()]
    assert torch.autograd.gradgradcheck(linear.differentiable_linear, inputs)


def test_in_a_function_transform():
    ours, theirs = layers()
    x = torch.randn(4, 3)
    gradients = [torch.func.grad(lambda x, layer=layer: layer(x).sin().sum())(x) for layer in (ours, theirs)]
    assert relative_difference(*gradients) <= 1e-6


def test_one_token_without_a_batch():
    ours, theirs = layers()
    assert torch.equal(ours(torch.ones(3)), theirs(torch.ones(3)))


def used() -> mock.Mock:
    return mock.patch.object(linear, 'linear', wraps=linear.linear)


@torch.no_grad()
def test_only_eager_and_in_its_own_precision():
    layer, x = layers()[0], torch.randn(4, 3)

    def run(dtype: torch.dtype = torch.float32) -> Tensor:
        return layer.to(dtype)(x.to(dtype))

    with used() as ours:
        run()
        run(torch.float64)
        assert ours.call_count == 2
        run(torch.bfloat16)
        layer.float()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert run().dtype == torch.bfloat16
        torch.compile(layer, backend='eager', fullgraph=True)(x)
        torch.jit.trace(layer, x, check_trace=False)
        assert ours.call_count == 2
