"""torch.compile takes the backbones in one graph, and sizes do not compile anew."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from swin_dense.models import SwinTransformer, SwinTransformerV2
from tests.references.swin_weights import SMALL, randomise

SIZES = [
    (260, 300),
    (448, 320),
    (333, 257),
    (280, 350),
]  # C5 is wider than a window of 8: torch treats sizes of 1 apart
both_versions = pytest.mark.parametrize('kind', [SwinTransformer, SwinTransformerV2])


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch.compiler.reset()


def built(kind: type[nn.Module]) -> nn.Module:
    model = kind(**SMALL, drop_path_rate=0.0)
    randomise(model)
    return model


def largest_difference(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> float:
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True))


def counting(compiled: list[int]) -> Callable:
    """A backend that runs the graph as it is and counts the graphs."""

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable:
        compiled.append(len(graph.graph.nodes))
        return graph.forward

    return backend


@both_versions
@pytest.mark.parametrize('training', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_graph_serves_every_size(kind: type[nn.Module], training: bool):
    model = built(kind).train(training)
    compiled: list[int] = []
    call = torch.compile(model, fullgraph=True, dynamic=True, backend=counting(compiled))
    for size in SIZES:
        x = torch.randn(2, 3, *size)
        with torch.set_grad_enabled(training):
            assert largest_difference(call(x), model(x)) < 1e-5
    assert len(compiled) == 1


@pytest.mark.slow
@both_versions
def test_inductor_computes_the_same(kind: type[nn.Module]):
    model = built(kind).eval()
    call = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for size in SIZES:
            x = torch.randn(1, 3, *size)
            assert largest_difference(call(x), model(x)) < 1e-5


@pytest.mark.slow
def test_inductor_computes_the_same_gradients():
    model = built(SwinTransformer).train()
    call = torch.compile(model, fullgraph=True)
    x = torch.randn(1, 3, 97, 61, requires_grad=True)
    gradients = []
    for function in (model, call):
        model.zero_grad()
        x.grad = None
        sum(y.square().mean() for y in function(x)).backward()
        gradients.append((x.grad, *(p.grad for p in model.parameters())))
    assert largest_difference(gradients[1], gradients[0]) < 1e-4
