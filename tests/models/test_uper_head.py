"""Convolving maps at their own resolution equals convolving them enlarged, alone and in mmseg's UPerHead."""

from collections.abc import Callable, Sequence
from unittest import mock

import mmseg.registry
import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from mmengine import ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils._python_dispatch import TorchDispatchMode

from swin_dense.kernels import resized_conv, winograd
from swin_dense.kernels.resized_conv import conv_of_resized
from swin_dense.models import SwinTransformer, UPerHead
from tests.kernels.blocks import relative_difference

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')  # mmseg's, of its own defaults

ALIGN = pytest.mark.parametrize('align_corners', [False, True], ids=['edges', 'corners'])
CHANNELS = [4, 6, 8, 10]
CLASSES = 5
PLACES = 5  # of a head where maps are convolved 3x3: after pooling, at three levels, and all four


def conv_of_enlarged(maps: Sequence[Tensor], weight: Tensor, align_corners: bool) -> Tensor:
    size = maps[0].shape[2:]
    others = [F.interpolate(x, size, mode='bilinear', align_corners=align_corners) for x in maps[1:]]
    return F.conv2d(torch.cat([maps[0], *others], dim=1), weight, padding=weight.size(2) // 2)


SIZES = {
    'twice each': [(16, 24), (8, 12), (4, 6)],
    'odd': [(9, 13), (5, 7), (3, 4), (2, 2)],
    'one pixel': [(7, 5), (1, 1)],
    'one row': [(1, 9), (1, 4), (1, 1)],
    'all of one pixel': [(1, 1), (1, 1)],
    'larger than the first': [(5, 7), (10, 14), (6, 3), (11, 7)],
    'pools': [(6, 8), (1, 1), (2, 2), (3, 3), (6, 6)],
    'one map': [(6, 5)],
}


@pytest.fixture(params=['own', 'enlarged', 'chosen', 'winograd own', 'winograd enlarged'])
def resolution(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where maps of another size are convolved, and how, whatever saves multiplications here."""
    if 'own' in request.param:
        monkeypatch.setattr(resized_conv, 'saves_multiplications', lambda shape, size, *_: shape[2:] != size)
    elif 'enlarged' in request.param:
        monkeypatch.setattr(resized_conv, 'saves_multiplications', lambda *_: False)
    if 'winograd' in request.param:
        monkeypatch.setattr(winograd, 'MIN_TILES', 1)
        monkeypatch.setattr(winograd, 'MIN_CHANNELS', 1)
    return request.param


@ALIGN
@pytest.mark.usefixtures('resolution')
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES)
def test_conv_of_resized(sizes: list[tuple[int, int]], kernel: int, align_corners: bool):
    maps = [torch.randn(2, 3 + i, *size, dtype=torch.float64) for i, size in enumerate(sizes)]
    weight = torch.randn(4, sum(x.size(1) for x in maps), kernel, kernel, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (*maps, weight)]
    results = []
    for function in (conv_of_resized, conv_of_enlarged):
        output = function(maps, weight, align_corners)
        cotangent = torch.arange(output.numel(), dtype=torch.float64).sin().view_as(output)
        results.append([output, *torch.autograd.grad(output, inputs, cotangent)])
    for ours, theirs in zip(*results, strict=True):
        assert relative_difference(ours, theirs) <= 1e-12


@pytest.mark.usefixtures('resolution')
def test_conv_of_resized_takes_strided_maps_and_changes_none():
    maps = [torch.randn(2, 8, 10, 3).permute(0, 3, 1, 2), torch.randn(2, 3, 8, 5)[:, :, ::2]]
    before = [x.clone() for x in maps]
    weight = torch.randn(4, 6, 3, 3)
    result = conv_of_resized(maps, weight, False)
    assert relative_difference(result, conv_of_enlarged(before, weight, False)) <= 1e-5
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(x, y) for x, y in zip(maps, before, strict=True))


@pytest.mark.parametrize(
    ('shape', 'size', 'saves', 'saves_four_times'),
    [
        ((1, 512, 64, 64), (128, 128), True, False),  # UPerNet's at 512x512
        ((1, 512, 32, 32), (128, 128), True, True),
        ((2, 512, 16, 16), (128, 128), True, True),
        ((1, 512, 128, 128), (128, 128), False, False),
        ((1, 512, 256, 256), (128, 128), False, False),
        ((1, 64, 64, 64), (128, 128), False, False),  # few channels, a wide map
        ((1, 64, 16, 16), (128, 128), True, True),
    ],
)
def test_where_own_resolution_saves_multiplications(
    shape: tuple[int, ...], size: tuple[int, int], saves: bool, saves_four_times: bool
):
    """Against a convolution with all multiplications, and with a quarter of them."""
    assert resized_conv.saves_multiplications(shape, size, 3, 1) is saves
    assert resized_conv.saves_multiplications(shape, size, 3, 4) is saves_four_times


def heads(**arguments: object) -> tuple[UPerHead, MMSegUPerHead]:
    """Ours and mmseg's with the same weights, loaded strictly in both directions."""
    arguments = {
        **dict(in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=6, num_classes=CLASSES),
        **dict(norm_cfg=dict(type='BN'), align_corners=False),
        **arguments,
    }
    ours, theirs = UPerHead(**arguments).double(), MMSegUPerHead(**arguments).double()
    with torch.no_grad():
        for tensor in (*ours.parameters(), *ours.buffers()):
            if tensor.is_floating_point():  # all but BatchNorm's count of batches
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.dim() == 1 else torch.randn_like(tensor))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def pyramid(height: int, width: int) -> list[Tensor]:
    """C2..C5 of an image of height x width."""
    sizes = [[-(-side // stride) for side in (height, width)] for stride in (4, 8, 16, 32)]
    return [torch.randn(2, c, *size, dtype=torch.float64) for c, size in zip(CHANNELS, sizes, strict=True)]


def run(head: MMSegUPerHead, maps: list[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
    """The logits, the losses, every gradient, and the running statistics behind the pass, by name."""
    torch.manual_seed(7)  # dropout before the classifier
    maps = [x.clone().requires_grad_() for x in maps]
    labels = torch.randint(CLASSES, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]
    logits = head(maps)
    losses = head.loss_by_feat(logits, samples)
    named = {**dict(head.named_parameters()), **{f'map {i}': x for i, x in enumerate(maps)}}
    total = losses['loss_ce'] + logits.sin().sum()
    values = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    gradients = {name: gradient for name, gradient in zip(named, values, strict=True) if gradient is not None}
    buffers = {f'buffer {name}': buffer.clone() for name, buffer in head.named_buffers()}
    return {'logits': logits, **losses, **gradients, **buffers}


def assert_equal(ours: UPerHead, theirs: MMSegUPerHead, maps: list[Tensor], size: tuple[int, int]) -> None:
    results, expected = run(ours, maps, size), run(theirs, maps, size)
    assert set(results) == set(expected)
    largest = max(value.abs().max() for value in expected.values())
    for name, value in expected.items():
        difference = (results[name] - value).abs().max()
        # BatchNorm over two values leaves their signs: the gradient of what pools give nearly cancels
        scale = max(value.abs().max(), 1e-6 * largest)
        assert difference <= 1e-10 * scale, f'{name}: {difference}'


def spy() -> mock.Mock:
    """Stands in for ``conv_of_resized``, computes the same and counts."""
    return mock.patch.object(resized_conv, 'conv_of_resized', side_effect=conv_of_resized)


@ALIGN
@pytest.mark.usefixtures('resolution')
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('size', [(64, 96), (33, 47), (130, 70), (5, 1)])
def test_equals_mmseg(size: tuple[int, int], training: bool, align_corners: bool):
    ours, theirs = heads(align_corners=align_corners)
    with spy() as fused:
        assert_equal(ours.train(training), theirs.train(training), pyramid(*size), size)
    assert fused.call_count == PLACES


OPTIONS = {
    'no norm': dict(norm_cfg=None),
    'group norm': dict(norm_cfg=dict(type='GN', num_groups=2)),
    'no activation': dict(act_cfg=None),
    'gelu': dict(act_cfg=dict(type='GELU')),
    'leaky relu': dict(act_cfg=dict(type='LeakyReLU', negative_slope=0.2)),
    'one pool': dict(pool_scales=(4,)),
    'three levels': dict(in_channels=CHANNELS[1:], in_index=[1, 2, 3]),
    'padded otherwise': dict(conv_cfg=dict(type='Conv2dAdaptivePadding')),
    'standardised weights': dict(conv_cfg=dict(type='ConvWS')),
}


@pytest.mark.usefixtures('resolution')
@pytest.mark.parametrize('option', OPTIONS)
def test_options_equal_mmsegs(option: str):
    ours, theirs = heads(**OPTIONS[option])
    with spy() as fused:
        assert_equal(ours, theirs, pyramid(66, 90), (66, 90))
    assert fused.called is ('conv_cfg' not in OPTIONS[option])


def reorder(head: MMSegUPerHead) -> None:
    old = head.fpn_bottleneck
    new = ConvModule(24, 6, 3, padding=1, norm_cfg=dict(type='BN'), order=('act', 'conv', 'norm'))
    new.load_state_dict(old.state_dict())
    head.fpn_bottleneck = new.double()


def adapt(head: MMSegUPerHead) -> None:
    """Replace a convolution by one that adds to what it computes."""

    class Adapted(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + x[:, :6]

    old = head.bottleneck.conv
    new = Adapted(old.in_channels, old.out_channels, 3, padding=1, bias=False).double()
    new.load_state_dict(old.state_dict())
    head.bottleneck.conv = new


def limit(head: MMSegUPerHead) -> None:
    """Divide the weight by its largest singular value, through a parametrization."""
    torch.manual_seed(0)
    nn.utils.parametrizations.spectral_norm(head.bottleneck.conv)


def limit_by_hook(head: MMSegUPerHead) -> None:
    """The same, through a hook."""
    torch.manual_seed(0)
    nn.utils.spectral_norm(head.bottleneck.conv)


def thin_out(head: MMSegUPerHead) -> None:
    prune.l1_unstructured(head.bottleneck.conv, 'weight', 0.5)
    with torch.no_grad():  # as a step of an optimiser
        head.bottleneck.conv.weight_orig.mul_(2)


def reflect(head: MMSegUPerHead) -> None:
    new = ConvModule(34, 6, 3, padding=1, norm_cfg=dict(type='BN'), padding_mode='reflect')
    new.load_state_dict(head.bottleneck.state_dict())
    head.bottleneck = new.double()


@pytest.mark.parametrize(
    'change',
    [reorder, adapt, limit, limit_by_hook, thin_out, reflect],
)
def test_replaced_parts_equal_mmsegs(change: Callable):
    both = heads()
    for head in both:
        change(head)
    with spy() as fused:
        assert_equal(*both, pyramid(66, 90), (66, 90))
    assert fused.call_count == PLACES - 1, 'all others'


@pytest.mark.parametrize(
    'name', ['bottleneck', 'fpn_bottleneck', 'fpn_bottleneck.conv', 'fpn_convs.0', 'fpn_convs.1.conv']
)
def test_hooks_fire(name: str):
    head, calls = heads()[0], []
    head.get_submodule(name).register_forward_hook(lambda *_: calls.append(1))
    head(pyramid(66, 90))
    assert calls


@torch.no_grad()
def test_norm_fused_into_the_convolution():
    ours, theirs = (fuse_conv_bn(head.eval()) for head in heads())
    assert ours.fpn_bottleneck.conv.bias is not None
    maps = pyramid(66, 90)
    with spy() as fused:
        assert relative_difference(ours(maps), theirs(maps)) <= 1e-12
    assert fused.call_count == PLACES


@torch.no_grad()
def test_not_under_autocast_or_in_half_precision():
    ours, theirs = (head.float().eval() for head in heads())
    maps = [x.float() for x in pyramid(33, 47)]
    with spy() as fused:
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert torch.equal(ours(maps), theirs(maps))
        maps = [x.bfloat16() for x in maps]
        assert torch.equal(ours.bfloat16()(maps), theirs.bfloat16()(maps))
    assert not fused.called


def test_initialised_as_mmsegs():
    weights = []
    for head in (UPerHead, MMSegUPerHead):
        torch.manual_seed(3)
        made = head(in_channels=CHANNELS, in_index=[0, 1, 2, 3], channels=6, num_classes=CLASSES)
        made.init_weights()
        weights.append(made.state_dict())
    assert list(weights[0]) == list(weights[1])
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


class Largest(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else [result]
        sizes = [x.numel() for x in outputs if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
def test_no_tensor_is_much_larger_than_the_output(training: bool):
    ours, theirs = heads(in_channels=[8, 16, 32, 64], channels=24)
    sizes = {8: 32, 16: 16, 32: 8, 64: 4}  # channels and sides of the maps
    maps = [torch.randn(2, c, side, side, dtype=torch.float64) for c, side in sizes.items()]
    largest = []
    for head in (ours, theirs):
        with Largest() as largest_of_head:
            head.train(training)(maps)
        largest.append(largest_of_head.elements / (2 * 24 * 32 * 32))
    assert largest[0] <= 1.6
    assert largest[1] == 4  # mmseg's four levels side by side


@pytest.mark.parametrize('scope', ['mmseg', 'swin_dense'])
def test_builds_in_a_segmentor(scope: str):
    config = dict(
        type='mmseg.EncoderDecoder',
        backbone=dict(type='swin_dense.SwinTransformer', embed_dims=8, depths=(1,) * 4, num_heads=(1,) * 4),
        decode_head=dict(
            type='swin_dense.UPerHead',
            in_channels=[8, 16, 32, 64],
            in_index=[0, 1, 2, 3],
            channels=6,
            num_classes=CLASSES,
            norm_cfg=dict(type='BN'),
            align_corners=False,
            loss_decode=dict(type='mmseg.CrossEntropyLoss'),
        ),
        test_cfg=ConfigDict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope(scope):
        model = mmseg.registry.MODELS.build(config)
    assert type(model.backbone) is SwinTransformer
    assert type(model.decode_head) is UPerHead
    image, label = torch.randn(2, 3, 50, 70), torch.zeros(1, 50, 70, dtype=torch.long)
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(50, 70), ori_shape=(50, 70)))
        for _ in image
    ]
    with spy() as fused:
        losses = model.loss(image, samples)
        losses['decode.loss_ce'].backward()
        assert fused.call_count == PLACES
        predictions = model.eval().predict(image, samples)
        assert fused.call_count == 2 * PLACES
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert predictions[0].pred_sem_seg.data.shape == (1, 50, 70)
