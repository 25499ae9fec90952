"""Our Swin computes what timm's and torchvision's compute, where their semantics are the same.

timm rolls before it pads, so every map must divide by the window. torchvision drops the rows and
columns of the image that 4 does not divide. Both leave out the shift where a map is not larger than
the window, and both are classifiers: our output norms are applied to their stages outside.
"""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer as TimmSwin
from torch import Tensor
from torchvision.models.swin_transformer import SwinTransformer as TorchvisionSwin

from swin_dense.models import SwinTransformer
from tests.references.swin_weights import SMALL, TINY, random_swin, to_timm, to_torchvision

TOLERANCE = 1e-10


def load(theirs: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    """Load all of ``weights``; only the classifier and derived buffers may stay as they are."""
    unmatched = theirs.load_state_dict(weights, strict=False)
    assert not unmatched.unexpected_keys
    own = ('norm.', 'head.')
    rest = [key for key in unmatched.missing_keys if not key.startswith(own)]
    assert all(key.endswith('relative_position_index') for key in rest), rest


def timm_maps(ours: SwinTransformer, arguments: dict, image: Tensor) -> list[Tensor]:
    theirs = TimmSwin(
        img_size=tuple(image.shape[2:]),
        embed_dim=arguments['embed_dims'],
        depths=arguments['depths'],
        num_heads=arguments['num_heads'],
        window_size=arguments['window_size'],
        num_classes=0,
        drop_path_rate=0.0,
    ).double()
    load(theirs, to_timm(ours.state_dict()))
    maps, x = [], theirs.patch_embed(image)
    for stage in theirs.layers:
        x = stage(x)
        maps.append(x)
    return maps


def torchvision_maps(ours: SwinTransformer, arguments: dict, image: Tensor) -> list[Tensor]:
    theirs = TorchvisionSwin(
        patch_size=[4, 4],
        embed_dim=arguments['embed_dims'],
        depths=list(arguments['depths']),
        num_heads=list(arguments['num_heads']),
        window_size=[arguments['window_size']] * 2,
        stochastic_depth_prob=0.0,
        num_classes=1,
    ).double()
    load(theirs, to_torchvision(ours.state_dict()))
    maps, x = [], image
    for i, layer in enumerate(theirs.features):
        x = layer(x)
        if i % 2:
            maps.append(x)
    return maps


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def compare(peer: object, arguments: dict, image: Tensor) -> None:
    """Outputs and the image's gradient against the peer's stages behind our output norms."""
    ours = random_swin(**arguments)
    image.requires_grad_()
    reference = [
        getattr(ours, f'norm{i}')(x).permute(0, 3, 1, 2) for i, x in enumerate(peer(ours, arguments, image))
    ]
    outputs = ours(image)
    assert len(outputs) == len(reference) == 4
    cotangents = [torch.randn_like(x) for x in outputs]
    assert max(map(relative_difference, outputs, reference)) <= TOLERANCE
    gradient, theirs = (torch.autograd.grad(x, image, cotangents)[0] for x in (outputs, reference))
    assert relative_difference(gradient, theirs) <= TOLERANCE


@pytest.mark.parametrize(
    ('window', 'height', 'width', 'batch'),
    [(7, 448, 672, 1), (7, 448, 448, 2), (6, 384, 384, 2), (4, 256, 384, 2)],
)
def test_timm(window: int, height: int, width: int, batch: int):
    compare(
        timm_maps,
        dict(SMALL, window_size=window),
        torch.randn(batch, 3, height, width, dtype=torch.float64),
    )


@pytest.mark.slow
def test_timm_swin_t():
    compare(timm_maps, dict(TINY, window_size=7), torch.randn(1, 3, 448, 448, dtype=torch.float64))


@pytest.mark.slow
def test_timm_at_detection_size():
    compare(timm_maps, dict(SMALL, window_size=7), torch.randn(1, 3, 896, 1344, dtype=torch.float64))


@pytest.mark.parametrize(
    ('window', 'height', 'width', 'batch'),
    [(7, 256, 384, 2), (7, 500, 376, 1), (12, 400, 512, 1), (4, 172, 204, 2)],
)
def test_torchvision(window: int, height: int, width: int, batch: int):
    compare(
        torchvision_maps,
        dict(SMALL, window_size=window),
        torch.randn(batch, 3, height, width, dtype=torch.float64),
    )


def test_torchvision_swin_t():
    compare(torchvision_maps, dict(TINY, window_size=7), torch.randn(1, 3, 256, 288, dtype=torch.float64))


@pytest.mark.slow
def test_torchvision_at_detection_size():
    compare(torchvision_maps, dict(SMALL, window_size=7), torch.randn(1, 3, 800, 1336, dtype=torch.float64))
