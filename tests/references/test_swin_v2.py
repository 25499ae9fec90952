"""Our Swin V2 computes what others compute, where their semantics are the same, and so do its gradients.

- mmpretrain with ``pad_small_map``: at any size.
- torchvision: where 4 divides the image and every map is larger than the window.
- timm with ``always_partition``: where every map divides by the window (it rolls before it pads).
- ``plain_swin_v2``, written for this comparison: at any size.

timm and torchvision are classifiers: our output norms are applied to their stages outside. All three
keep the coordinates in single precision, which the double precision comparisons replace.

The reference is computed in double precision, or two rounded results would be compared. The measure is the
largest absolute difference of a tensor over the largest absolute value of the reference tensor, for every
output, the gradient of the image and that of every parameter, and for the outputs once more in evaluation
without gradients, which the CPU computes in another way.
"""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwin
from torch import Tensor, nn
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from swin_dense.models import SwinTransformerV2
from tests.references import plain_swin_v2
from tests.references.swin_weights import (
    OUTPUT_NORMS,
    TINY,
    StateDict,
    random_swin_v2,
    to_mmpretrain,
    to_timm,
    to_torchvision,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
SMALL = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4))
DTYPES = pytest.mark.parametrize('dtype', TOLERANCE, ids=['float64', 'float32'])


def image_of(batch: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn((batch, 3, height, width), generator=generator, dtype=torch.float64)
    return image.to(dtype).requires_grad_()


def evaluate(outputs: list[Tensor], image: Tensor, parameters: StateDict) -> tuple[StateDict, StateDict]:
    """Outputs and image gradient, and the parameters' gradients, for random cotangents."""
    generator = torch.Generator().manual_seed(2)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs]
    gradients = torch.autograd.grad(outputs, [image, *parameters.values()], cotangents)
    values = {f'output {i}': x.detach() for i, x in enumerate(outputs)}
    return {**values, 'image': gradients[0]}, dict(zip(parameters, gradients[1:], strict=True))


def load(theirs: nn.Module, weights: StateDict) -> None:
    """Load all of ``weights``; only the classifier and derived buffers may stay as they are."""
    unmatched = theirs.load_state_dict(weights, strict=False)
    assert not unmatched.unexpected_keys
    rest = [key for key in unmatched.missing_keys if not key.startswith(('norm.', 'head.'))]
    assert all(key.endswith(('relative_position_index', 'relative_coords_table')) for key in rest), rest


def windows_of(case: dict) -> list[tuple[int, int]]:
    """The window and that of the pretraining for each stage."""
    window, stages = case['window_size'], len(case['depths'])
    windows = [window] * stages if isinstance(window, int) else window
    return [(side, own or side) for side, own in zip(windows, case['pretrained_window_sizes'], strict=True)]


def refine_coordinates(theirs: nn.Module, case: dict) -> None:
    """Put the coordinates, which all of them compute in single precision, in the precision of the rest."""
    by_stage = zip(windows_of(case), case['depths'], strict=True)
    by_block = [windows for windows, depth in by_stage for _ in range(depth)]
    tables = [module for module in theirs.modules() if hasattr(module, 'relative_coords_table')]
    for module, (window, pretrained) in zip(tables, by_block, strict=True):
        axis = [plain_swin_v2.log_coordinate(offset, pretrained) for offset in range(1 - window, window)]
        exact = module.relative_coords_table.new_tensor([[[[dy, dx] for dx in axis] for dy in axis]])
        torch.testing.assert_close(module.relative_coords_table, exact, rtol=0, atol=1e-6)
        module.relative_coords_table = exact


def behind_our_norms(
    ours: SwinTransformerV2, theirs: nn.Module, maps: list[Tensor], image: Tensor
) -> tuple[StateDict, StateDict]:
    """``evaluate`` maps (B, H, W, C) of a classifier behind copies of our output norms."""
    norms = {name: deepcopy(getattr(ours, name)) for name in OUTPUT_NORMS}
    outputs = [norm(x).permute(0, 3, 1, 2) for norm, x in zip(norms.values(), maps, strict=True)]
    parameters = {k: v for k, v in theirs.named_parameters() if not k.startswith(('norm.', 'head.'))}
    parameters |= {f'{name}.{k}': v for name, norm in norms.items() for k, v in norm.named_parameters()}
    return evaluate(outputs, image, parameters)


def keeping_output_norms(convert: Callable) -> Callable:
    """``convert``, which drops the output norms, but with them."""
    return lambda values: {
        **convert(values),
        **{key: value for key, value in values.items() if key.split('.')[0] in OUTPUT_NORMS},
    }


def timm_results(ours: SwinTransformerV2, case: dict, image: Tensor) -> tuple[StateDict, StateDict]:
    theirs = TimmSwin(
        img_size=tuple(image.shape[2:]),
        embed_dim=case['embed_dims'],
        depths=case['depths'],
        num_heads=case['num_heads'],
        window_size=case['window_size'],
        pretrained_window_sizes=case['pretrained_window_sizes'],
        qkv_bias=case['qkv_bias'],
        always_partition=True,
        num_classes=0,
        drop_path_rate=0.0,
    ).to(image.dtype)
    load(theirs, to_timm(ours.state_dict()))
    refine_coordinates(theirs, case)
    maps, x = [], theirs.patch_embed(image)
    for stage in theirs.layers:
        x = stage(x)
        maps.append(x)
    return behind_our_norms(ours, theirs, maps, image)


def torchvision_results(ours: SwinTransformerV2, case: dict, image: Tensor) -> tuple[StateDict, StateDict]:
    theirs = TorchvisionSwin(
        patch_size=[4, 4],
        embed_dim=case['embed_dims'],
        depths=list(case['depths']),
        num_heads=list(case['num_heads']),
        window_size=[case['window_size']] * 2,
        stochastic_depth_prob=0.0,
        num_classes=1,
        block=SwinTransformerBlockV2,
        downsample_layer=PatchMergingV2,
    ).to(image.dtype)
    load(theirs, to_torchvision(ours.state_dict()))
    refine_coordinates(theirs, case)
    maps, x = [], image
    for i, layer in enumerate(theirs.features):
        x = layer(x)
        if i % 2:
            maps.append(x)
    return behind_our_norms(ours, theirs, maps, image)


def mmpretrain_results(ours: SwinTransformerV2, case: dict, image: Tensor) -> tuple[StateDict, StateDict]:
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    theirs = backbones.SwinTransformerV2(
        arch=dict(
            embed_dims=case['embed_dims'],
            depths=case['depths'],
            num_heads=case['num_heads'],
            extra_norm_every_n_blocks=case['extra_norm_every'] or 0,
        ),
        window_size=case['window_size'],
        pretrained_window_sizes=case['pretrained_window_sizes'],
        out_indices=(0, 1, 2, 3),
        pad_small_map=True,
        drop_path_rate=0.0,
    ).to(image.dtype)
    load(theirs, to_mmpretrain(ours.state_dict()))
    refine_coordinates(theirs, case)
    return evaluate(theirs(image), image, dict(theirs.named_parameters()))


def plain_results(ours: SwinTransformerV2, case: dict, image: Tensor) -> tuple[StateDict, StateDict]:
    weights = {name: value.clone().requires_grad_() for name, value in ours.state_dict().items()}
    settings = (case['depths'], case['num_heads'], windows_of(case), case['extra_norm_every'])
    maps = [plain_swin_v2.forward(weights, x, *settings) for x in image]
    return evaluate([torch.stack(x) for x in zip(*maps, strict=True)], image, weights)


CONVERT = {
    timm_results: keeping_output_norms(to_timm),
    torchvision_results: keeping_output_norms(to_torchvision),
    mmpretrain_results: to_mmpretrain,
    plain_results: dict,
}


def compare(
    peer: Callable,
    size: tuple[int, int, int],
    dtype: torch.dtype = torch.float64,
    change: Callable = lambda model: None,
    **arguments: object,
) -> None:
    """Every output and gradient of ours against the peer's in double precision, for an image (B, H, W)."""
    case = {**SMALL, 'pretrained_window_sizes': (0, 0, 0, 0), 'extra_norm_every': None, 'qkv_bias': True}
    case |= arguments
    ours = random_swin_v2(**case).to(dtype)
    change(ours)
    image = image_of(*size, dtype)
    exact = image.detach().double().requires_grad_()
    reference, reference_gradients = peer(deepcopy(ours).double(), case, exact)
    values, gradients = evaluate(ours(image), image, dict(ours.named_parameters()))
    assert_close(values, reference, dtype)
    rounding = {}
    if dtype == torch.float32:
        _, rounded = peer(deepcopy(ours), case, image.detach().clone().requires_grad_())
        rounding = {name: largest_difference(rounded[name], x) for name, x in reference_gradients.items()}
    assert_close(CONVERT[peer](gradients), reference_gradients, dtype, rounding)
    with torch.no_grad():
        outputs = {f'output {i}': x for i, x in enumerate(ours.eval()(image))}
    assert_close(outputs, {name: reference[name] for name in outputs}, dtype)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def assert_close(
    ours: StateDict, theirs: StateDict, dtype: torch.dtype, rounding: dict[str, float] | None = None
) -> None:
    """``rounding``: by how much the peer itself, in single precision, misses its gradients in double."""
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        allowed = TOLERANCE[dtype] * tensor.abs().max().item()
        if rounding and any(part in name for part in ('logit_scale', 'q_bias', 'cpb_mlp')):
            # sums over all tokens that nearly cancel: how precise they are depends on the processor
            allowed = max(10 * allowed, 4 * rounding[name])
        difference = largest_difference(ours[name], tensor)
        assert difference <= allowed, f'{name}: {difference} > {allowed}'


@DTYPES
@pytest.mark.parametrize(
    ('size', 'arguments'),
    [
        ((2, 256, 256), dict(window_size=8)),
        ((1, 128, 256), dict(window_size=4)),
        ((1, 128, 256), dict(window_size=4, pretrained_window_sizes=(8, 6, 3, 0))),
        ((1, 128, 128), dict(window_size=(8, 4, 2, 1))),
        ((1, 128, 128), dict(window_size=4, qkv_bias=False)),
    ],
)
def test_timm(size: tuple[int, int, int], arguments: dict, dtype: torch.dtype):
    compare(timm_results, size, dtype, **arguments)


@DTYPES
@pytest.mark.parametrize(
    ('size', 'window'), [((1, 300, 340), 8), ((2, 172, 204), 4), ((1, 256, 288), 7), ((1, 400, 272), 8)]
)
def test_torchvision(size: tuple[int, int, int], window: int, dtype: torch.dtype):
    compare(torchvision_results, size, dtype, window_size=window)


@DTYPES
@pytest.mark.parametrize(
    ('size', 'arguments'),
    [
        ((2, 33, 47), dict(window_size=8)),
        ((1, 1, 1), dict(window_size=8)),
        ((1, 130, 151), dict(window_size=7)),
        ((1, 125, 94), dict(window_size=(8, 8, 4, 2))),
        ((1, 66, 90), dict(window_size=4, pretrained_window_sizes=(8, 6, 3, 0))),
        ((1, 66, 90), dict(window_size=4, depths=(1, 3, 4, 5), extra_norm_every=2)),
    ],
)
def test_mmpretrain(size: tuple[int, int, int], arguments: dict, dtype: torch.dtype):
    compare(mmpretrain_results, size, dtype, **arguments)


@pytest.mark.parametrize(
    ('size', 'arguments'),
    [
        ((1, 33, 47), dict(window_size=8)),
        ((2, 33, 47), dict(window_size=4, qkv_bias=False)),
        ((1, 1, 1), dict(window_size=4)),
        ((1, 125, 94), dict(window_size=4)),
        ((1, 66, 90), dict(window_size=(5, 4, 1, 2), pretrained_window_sizes=(7, 0, 3, 1))),
        ((1, 40, 50), dict(window_size=3, depths=(1, 3, 2, 4), extra_norm_every=2)),
    ],
)
def test_plain(size: tuple[int, int, int], arguments: dict):
    compare(plain_results, size, **arguments)


def test_plain_in_single_precision():
    compare(plain_results, (1, 33, 47), torch.float32, window_size=4)


@torch.no_grad()
def sharpen(model: SwinTransformerV2) -> None:
    """Take one head of each block beyond the largest scale, and the others close to it."""
    for name, parameter in model.named_parameters():
        if name.endswith('logit_scale'):
            parameter.fill_(4.5)
            parameter[-1] = 5


@pytest.mark.parametrize('peer', [mmpretrain_results, plain_results])
def test_largest_scale_and_mask_of_minus_100(peer: Callable):
    """A mask of -100 is outweighed where cos(q, k) is -0.6 for the token's own and 0.6 across the seam.

    In the corner windows of side 2 each token sees only itself, and vectors of 4 channels differ so.
    """
    compare(peer, (1, 66, 90), change=sharpen, num_heads=(4, 4, 4, 4), window_size=2)


@pytest.mark.slow
def test_timm_swin_v2_t():
    compare(timm_results, (1, 256, 256), **TINY, window_size=8)


@pytest.mark.slow
def test_torchvision_at_detection_size():
    compare(torchvision_results, (1, 800, 1336), window_size=8)


@pytest.mark.slow
def test_mmpretrain_at_detection_size():
    compare(mmpretrain_results, (1, 800, 1333), window_size=8)
