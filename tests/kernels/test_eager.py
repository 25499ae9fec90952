"""What is captured, traced or transformed: it leaves nothing behind, and gives what plain calls give."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense.kernels.eager import eager_cache, is_eager
from tests.kernels import eager_outputs

ROOT = Path(__file__).parents[2]
NAMES = ('SwinTransformer', 'SwinTransformerV2')


@pytest.fixture
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    return eager_outputs.backbones()[request.param].eval()


both_versions = pytest.mark.parametrize('backbone', NAMES, indirect=True)


@pytest.mark.slow
def test_captures_change_nothing_afterwards(tmp_path: Path):
    """Export, static and dynamic, trace, fake tensors, inference mode, a device context, vmap."""
    saved = []
    for arguments in ([], ['capture']):
        path = tmp_path / f'outputs{len(arguments)}.pt'
        command = [sys.executable, '-m', 'tests.kernels.eager_outputs', path, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        saved.append(torch.load(path, weights_only=True))
    assert len(saved[0]) == 12
    assert saved[0].keys() == saved[1].keys()
    for key, tensors in saved[0].items():
        assert all(map(torch.equal, tensors, saved[1][key])), key


@both_versions
def test_fake_tensors_leave_nothing_behind(backbone: nn.Module):
    x = eager_outputs.image((37, 43))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shapes = [y.shape for y in backbone(mode.from_tensor(x))]
    maps = backbone(x)
    assert [y.shape for y in maps] == shapes
    assert all(y.isfinite().all() for y in maps)


def test_what_is_eager():
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(is_eager())
        return x * 2

    x = torch.ones(3)
    look(x)
    with torch.inference_mode(), torch.device('meta'):
        look(x)
    assert seen == [True, True]
    seen.clear()
    torch.func.vmap(look)(x)
    torch.func.jvp(look, (x,), (x,))
    with torch.autograd.forward_ad.dual_level():
        look(x)
    with FakeTensorMode():
        look(torch.ones(3))
    torch.jit.trace(look, x, check_trace=False)
    assert seen == [False] * 5


def test_the_cache_keeps_what_is_eager_alone():
    calls = []

    @eager_cache(maxsize=4)
    def steps(count: int) -> torch.Tensor:
        calls.append(count)
        return torch.arange(count, device='cpu')

    with FakeTensorMode():
        assert type(steps(3)) is not torch.Tensor
    with torch.inference_mode(), torch.device('meta'):
        first = steps(3)
    assert steps(3) is first
    assert (first.device.type, first.is_inference(), len(calls)) == ('cpu', False, 2)


@both_versions
def test_a_device_context_makes_every_parameter(backbone: nn.Module):
    kind = type(backbone)
    with torch.device('meta'):
        made = kind(window_size=5, **eager_outputs.OPTIONS)
    assert {tensor.device.type for tensor in (*made.parameters(), *made.buffers())} == {'meta'}


@both_versions
def test_vmap(backbone: nn.Module):
    x = eager_outputs.image((40, 56), 2)
    for batch, by_image in zip(backbone(x), torch.func.vmap(backbone)(x[:, None]), strict=True):
        torch.testing.assert_close(by_image.squeeze(1), batch, rtol=1e-4, atol=1e-5)


@both_versions
@pytest.mark.parametrize('training', [False, True])
def test_derivatives_of_torch_func(backbone: nn.Module, training: bool):
    """Forward mode, and rows of the jacobian all at once: as backward gives them, one by one."""

    def outputs(x: torch.Tensor) -> torch.Tensor:
        return backbone(x)[3][0, :3].flatten()

    backbone.train(training)
    x = eager_outputs.image((24, 24))
    rows = torch.autograd.functional.jacobian(outputs, x)
    torch.testing.assert_close(torch.func.jacrev(outputs)(x), rows, rtol=1e-4, atol=1e-5)
    together = torch.autograd.functional.jacobian(outputs, x, vectorize=True)
    torch.testing.assert_close(together, rows, rtol=1e-5, atol=1e-6)
    direction = torch.randn_like(x)
    _, slope = torch.func.jvp(outputs, (x,), (direction,))
    torch.testing.assert_close(slope, (rows * direction).flatten(1).sum(1), rtol=1e-4, atol=1e-4)


@both_versions
def test_a_trace_serves_other_sizes(backbone: nn.Module):
    """With pads, also where the traced size needs none: 160 is a multiple of 4 * 5 * 8."""
    traced = torch.jit.trace(backbone, eager_outputs.image((160, 160)), check_trace=False)
    for size in ((150, 130), (80, 96)):
        x = eager_outputs.image(size)
        for ours, theirs in zip(backbone(x), traced(x), strict=True):
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@both_versions
def test_a_trace_is_the_same_twice(backbone: nn.Module):
    x = eager_outputs.image((40, 56))
    traced = torch.jit.trace(backbone, x)  # traces twice and compares
    for ours, theirs in zip(backbone(x), traced(x), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


@both_versions
@pytest.mark.filterwarnings('ignore')
def test_quantized(backbone: nn.Module):
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(backbone), {nn.Linear}, torch.qint8)
    x = eager_outputs.image((40, 56))
    for ours, theirs in zip(small(x), backbone(x), strict=True):
        assert (ours - theirs).abs().max() < 0.1 * theirs.abs().max()
