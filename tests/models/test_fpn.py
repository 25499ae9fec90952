"""Our FPN holds mmdet's parameters and computes what mmdet's computes."""

import pytest
import torch
from mmdet.models.necks import FPN as MMDetFPN  # noqa: N811
from torch import Tensor

from swin_dense.kernels import winograd
from swin_dense.models import FPN

CHANNELS = [4, 8, 16, 32]
OPTIONS = {
    'four levels': dict(num_outs=4),
    'mask r-cnn': dict(num_outs=5),
    'subsampled twice': dict(num_outs=6),
    'start level': dict(num_outs=5, start_level=1),
    'on_input': dict(num_outs=5, start_level=1, add_extra_convs='on_input'),
    'on_lateral': dict(num_outs=5, start_level=1, add_extra_convs='on_lateral'),
    'on_output': dict(num_outs=5, start_level=1, add_extra_convs='on_output'),
    'true': dict(num_outs=5, start_level=1, add_extra_convs=True),
    'relu': dict(num_outs=6, start_level=1, add_extra_convs='on_output', relu_before_extra_convs=True),
    'relu on_input': dict(num_outs=6, start_level=1, add_extra_convs=True, relu_before_extra_convs=True),
    'no room for extra': dict(num_outs=4, add_extra_convs='on_output'),
    'norm': dict(num_outs=5, norm_cfg=dict(type='BN')),
}


def pyramid(height: int, width: int, channels: list[int] = CHANNELS) -> list[Tensor]:
    maps = []
    for c in channels:
        maps.append(torch.randn(2, c, height, width, dtype=torch.float64, requires_grad=True))
        height, width = (height + 1) // 2, (width + 1) // 2
    return maps


def run(fpn: torch.nn.Module, maps: list[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    outputs = fpn(maps)
    cotangents = [torch.arange(x.numel(), dtype=x.dtype).sin().view_as(x) for x in outputs]
    named = dict(fpn.named_parameters()) | {f'map {i}': x for i, x in enumerate(maps)}
    values = torch.autograd.grad(outputs, list(named.values()), cotangents, allow_unused=True)
    return outputs, dict(zip(named, values, strict=True))


@pytest.mark.parametrize('fewest', [1, winograd.MIN_CHANNELS], ids=['winograd', 'direct'])
@pytest.mark.parametrize('size', [(16, 24), (25, 43), (5, 3), (1, 1)])
@pytest.mark.parametrize('option', OPTIONS)
def test_equals_mmdet(option: str, size: tuple[int, int], fewest: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(winograd, 'MIN_CHANNELS', fewest)
    monkeypatch.setattr(winograd, 'MIN_TILES', 1)
    arguments = dict(in_channels=CHANNELS, out_channels=6, **OPTIONS[option])
    ours, theirs = FPN(**arguments).double(), MMDetFPN(**arguments).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    maps = pyramid(*size)
    (outputs, gradients), (expected, wanted) = run(ours, maps), run(theirs, maps)
    assert isinstance(outputs, tuple)
    assert len(outputs) == arguments['num_outs']
    for x, y in zip(outputs, expected, strict=True):
        assert x.shape == y.shape
        assert (x - y).abs().max() <= 1e-12
    for name, gradient in wanted.items():
        if gradient is None:
            assert gradients[name] is None, name
        else:
            assert (gradients[name] - gradient).abs().max() <= 1e-12 * max(1, gradient.abs().max()), name


def test_initialised_as_mmdet():
    arguments = dict(in_channels=CHANNELS, out_channels=6, num_outs=5)
    weights = []
    for kind in (FPN, MMDetFPN):
        torch.manual_seed(3)
        fpn = kind(**arguments)
        fpn.init_weights()
        weights.append(fpn.state_dict())
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_takes_the_backbones_channels_last_maps():
    fpn = FPN(CHANNELS, 6, 5).double()
    maps = pyramid(25, 43)
    strided = [x.contiguous(memory_format=torch.channels_last) for x in maps]
    for x, y in zip(fpn(maps), fpn(tuple(strided)), strict=True):
        assert (x - y).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(num_outs=3), r'num_outs=3 and start_level=0 do not fit in_channels=\[4, 8, 16, 32\]'),
        (dict(num_outs=5, start_level=4), 'start_level=4 do not fit'),
        (dict(num_outs=5, add_extra_convs='on_inputs'), "'on_inputs' is none of"),
    ],
)
def test_levels_that_do_not_fit(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        FPN(CHANNELS, 6, **arguments)


def test_maps_of_other_channels():
    fpn = FPN(CHANNELS, 6, 5).double()
    with pytest.raises(ValueError, match=r'in_channels=\[4, 8, 16, 32\].* maps of \[4, 8, 16, 31\]'):
        fpn(pyramid(16, 16, [4, 8, 16, 31]))
    with pytest.raises(ValueError, match=r'maps of \[4, 8, 16\]'):
        fpn(pyramid(16, 16, CHANNELS[:3]))
