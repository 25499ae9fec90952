"""Deformable attention against mmcv's plain function, which samples all maps into memory."""

import importlib
import warnings

import mmcv.ops
import pytest
import torch
from torch import Tensor

from swin_dense import hosts
from swin_dense.kernels import deformable_attention as kernel
from swin_dense.kernels import deformable_bags, deformable_maps
from tests.gradients import assert_same

hosts.prepare()
MODULE = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
PLAIN = MODULE.multi_scale_deformable_attn_pytorch.__wrapped__
SIZES = ((7, 5), (4, 9), (1, 1), (2, 3))


def inputs(queries: int, dtype: torch.dtype = torch.float64, batch: int = 2) -> tuple[Tensor, ...]:
    """Value, locations (some outside the maps, some on borders) and weights that require gradients."""
    torch.manual_seed(0)
    cells = sum(height * width for height, width in SIZES)
    value = torch.randn(batch, cells, 3, 4, dtype=dtype)
    locations = 1.6 * torch.rand(batch, queries, 3, len(SIZES), 2, 2, dtype=dtype) - 0.3
    locations[0, 0, 0] = torch.tensor([0.0, 1.0])
    locations[0, 1, 0] = torch.tensor([-3.0, 0.5])
    weights = torch.rand(batch, queries, 3, len(SIZES), 2, dtype=dtype)
    return tuple(tensor.requires_grad_() for tensor in (value, locations, weights))


@pytest.mark.parametrize('queries', [2, 40], ids=['fewer samples than cells', 'more'])
@pytest.mark.parametrize('method', [deformable_bags, deformable_maps], ids=['bags', 'maps'])
def test_outputs_and_gradients(method: object, queries: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel, 'deformable_bags', method)
    given = inputs(queries)
    expected = PLAIN(given[0], torch.tensor(SIZES), *given[1:])
    assert_same(kernel.deformable_attention(given[0], SIZES, *given[1:]), expected, given, 1e-10)


@pytest.mark.parametrize('queries', [2, 40])
def test_gradients_are_those_of_differences(queries: int):
    """At 40 queries of 1 image, rows are sorted by level; at 2 all at once. Locations stay off the cells."""
    given = inputs(queries, batch=1)
    with torch.no_grad():
        given[1][0, :2] = torch.rand(2, 3, len(SIZES), 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda value, locations, weights: kernel.deformable_attention(value, SIZES, locations, weights),
        given,
        fast_mode=True,
    )


def test_float32_and_bfloat16():
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 0.02)):
        exact = [tensor.detach().to(dtype).double() for tensor in inputs(30, torch.float32)]
        rough = [tensor.to(dtype) for tensor in exact]
        ours = kernel.deformable_attention(rough[0], SIZES, *rough[1:])
        assert ours.dtype == dtype
        expected = PLAIN(exact[0], torch.tensor(SIZES), *exact[1:])
        torch.testing.assert_close(ours.double(), expected, rtol=tolerance, atol=tolerance)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    given = inputs(30)
    whole = [kernel.deformable_attention(given[0], SIZES, *given[1:]) for _ in range(2)]
    monkeypatch.setattr(deformable_bags, 'CHUNK', 50)
    monkeypatch.setattr(deformable_maps, 'SAMPLED', 200)
    assert_same(kernel.deformable_attention(given[0], SIZES, *given[1:]), whole[0], given, 1e-12)
    monkeypatch.setattr(kernel, 'deformable_bags', deformable_maps)
    assert_same(kernel.deformable_attention(given[0], SIZES, *given[1:]), whole[1], given, 1e-12)


def test_only_what_is_asked_for_gets_a_gradient():
    value, locations, weights = inputs(5)
    frozen = kernel.deformable_attention(value.detach(), SIZES, locations, weights)
    whole = kernel.deformable_attention(value, SIZES, locations, weights)
    for ours, expected in zip(
        torch.autograd.grad(frozen.sum(), (locations, weights)),
        torch.autograd.grad(whole.sum(), (locations, weights)),
        strict=True,
    ):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('wrong', [1, 2])
def test_nan_goes_on_into_the_result(wrong: int):
    """A run must see that its numbers are broken; a sample at NaN must not crash it or count as 0."""
    given = [tensor.detach().clone() for tensor in inputs(5)]
    given[wrong][1, 3, 2, 1] = torch.nan
    result = kernel.deformable_attention(given[0], SIZES, *given[1:]).view(2, 5, 3, 4)
    assert result[1, 3, 2].isnan().all()
    result[1, 3, 2] = 0
    assert result.isfinite().all()


def test_sizes_that_do_not_fit():
    value, locations, weights = inputs(2)
    with pytest.raises(ValueError, match=r'value has 78 cells .* the sizes have 77 cells in 3 levels'):
        kernel.deformable_attention(value, SIZES[:1] + SIZES[1:2] + SIZES[3:], locations, weights)


def test_mmcvs_layer_and_its_function_take_the_kernel(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def counted(*arguments: object, **others: object) -> Tensor:
        calls.append(1)
        return forward(*arguments, **others)

    forward = kernel.forward
    monkeypatch.setattr(kernel, 'forward', counted)
    torch.manual_seed(0)
    layer = mmcv.ops.MultiScaleDeformableAttention(12, 3, len(SIZES), 2, batch_first=True, dropout=0.0)
    torch.nn.init.normal_(layer.sampling_offsets.weight)
    query, value = torch.randn(2, 6, 12), torch.randn(2, 78, 12)
    settings = dict(
        value=value, reference_points=torch.rand(2, 6, len(SIZES), 2), spatial_shapes=torch.tensor(SIZES)
    )
    ours = layer(query, **settings)
    assert calls
    with monkeypatch.context() as undone:
        undone.setattr(MODULE, 'multi_scale_deformable_attn_pytorch', PLAIN)
        torch.testing.assert_close(ours, layer(query, **settings))


@pytest.mark.skipif(hosts.prepare() == 'mmcv', reason="mmcv's compiled ops are installed")
def test_the_extension_that_mmcv_calls_on_gpus():
    given = inputs(30)
    starts = torch.tensor([0, 35, 71, 72])
    function = MODULE.MultiScaleDeformableAttnFunction
    ours = function.apply(given[0], torch.tensor(SIZES), starts, *given[1:], 64)
    assert_same(ours, PLAIN(given[0], torch.tensor(SIZES), *given[1:]), given, 1e-10)


def test_graphs_and_transforms_get_the_plain_function():
    given = [tensor.detach() for tensor in inputs(5)]
    sizes = torch.tensor(SIZES)
    expected = PLAIN(given[0], sizes, *given[1:])
    attention = MODULE.multi_scale_deformable_attn_pytorch

    def of_value(value: Tensor) -> Tensor:
        return attention(value, sizes, *given[1:])

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        traced = torch.jit.trace(of_value, given[0], check_trace=False)
    torch.testing.assert_close(traced(given[0]), expected, rtol=1e-10, atol=1e-10)
    several = torch.func.vmap(of_value)(torch.stack([given[0], 2 * given[0]]))
    torch.testing.assert_close(several, torch.stack([expected, 2 * expected]), rtol=1e-10, atol=1e-10)
