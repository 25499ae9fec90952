"""Weights for another window, image size or number of channels, against other implementations."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from swin_dense.checkpoints.adapt import adapted, inflate_stem, resize_bias_table, resize_position
from swin_dense.checkpoints.pretrained import Pretrained
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer, SwinTransformerV2
from tests.checkpoints import microsoft
from tests.references import plain_swin_v2
from tests.references.swin_weights import randomise

SMALL = dict(embed_dims=8, depths=(2, 2), num_heads=(1, 2), out_indices=(0, 1))


def random(model: SwinTransformer, seed: int = 0) -> SwinTransformer:
    randomise(model, seed)
    return model.eval()


def saved(model: SwinTransformer, folder: Path, **more: Tensor) -> str:
    path = folder / 'swin.pth'
    torch.save(dict(model={**model.state_dict(), **more}), path)
    return str(path)


def filled(model: SwinTransformer, path: str) -> SwinTransformer:
    Pretrained(path)(model)
    return model.eval()


def by_opencv(image: np.ndarray, width: int, height: int) -> Tensor:
    """Bicubic, in which OpenCV agrees with torch to its fixed point of the coefficients."""
    return torch.from_numpy(cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC))


def assert_interpolated(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize(('old', 'new'), [(7, 12), (8, 16), (12, 7), (2, 3)])
def test_a_bias_table_of_another_window(old: int, new: int):
    """Head by head: the rows of the table are an image of offsets, dy down and dx across."""
    heads, side = 3, 2 * old - 1
    table = torch.randn(side * side, heads)
    resized = resize_bias_table(table, (2 * new - 1) ** 2)
    for head in range(heads):
        image = np.array([[table[dy * side + dx, head].item() for dx in range(side)] for dy in range(side)])
        expected = by_opencv(image, 2 * new - 1, 2 * new - 1).float()
        assert_interpolated(resized[:, head].reshape(2 * new - 1, 2 * new - 1), expected)


@pytest.mark.parametrize('axis', [0, 1], ids=['rows', 'columns'])
def test_a_bias_that_follows_one_axis_still_does(axis: int):
    """A bias by dy alone (or dx alone) is one after the resize, and grows as it did."""
    ramp = torch.arange(13.0).expand(13, 13)
    table = (ramp.T if axis == 0 else ramp).reshape(-1, 1)
    resized = resize_bias_table(table, 23 * 23).reshape(23, 23)
    along = resized[:, 0] if axis == 0 else resized[0]
    torch.testing.assert_close(resized, (along[:, None] if axis == 0 else along[None]).expand(23, 23))
    assert (along.diff() > 0)[1:-1].all()


def test_a_bias_table_in_half_precision():
    table = torch.randn(49, 2).half()
    resized = resize_bias_table(table, 81)
    assert resized.dtype == torch.float16
    torch.testing.assert_close(resized, resize_bias_table(table.float(), 81).half())


def test_what_fits_is_not_touched():
    table, position, stem = torch.randn(169, 3), torch.randn(1, 8, 5, 7), torch.randn(8, 3, 4, 4)
    assert resize_bias_table(table, 169) is table
    assert resize_position(position, 5, 7) is position
    assert inflate_stem(stem, 3) is stem


@pytest.mark.parametrize(
    ('old', 'new'), [((56, 56), (96, 96)), ((5, 7), (11, 6))], ids=['224 to 384', 'not square']
)
def test_a_position_embedding_of_another_image(old: tuple[int, int], new: tuple[int, int]):
    position = torch.randn(1, 4, *old)
    resized = resize_position(position, *new)
    for channel in range(4):
        expected = by_opencv(position[0, channel].double().numpy(), new[1], new[0]).float()
        assert_interpolated(resized[0, channel], expected)


@pytest.mark.parametrize('channels', [1, 2, 4, 6, 7])
@torch.no_grad()
def test_equal_planes_give_the_same_features(channels: int, tmp_path: Path):
    ours = random(SwinTransformer(**SMALL, window_size=4))
    path = saved(ours, tmp_path)
    plane = torch.randn(1, 1, 64, 48)
    inflated = filled(random(SwinTransformer(**SMALL, window_size=4, in_channels=channels), 1), path)
    pairs = zip(inflated(plane.expand(-1, channels, -1, -1)), ours(plane.expand(-1, 3, -1, -1)), strict=True)
    assert all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in pairs)


def test_a_fourth_band_takes_its_share_of_the_first():
    weight = torch.randn(8, 3, 4, 4)
    inflated = inflate_stem(weight, 4)
    torch.testing.assert_close(inflated[:, [0, 3]], (weight[:, :1] / 2).expand(-1, 2, -1, -1))
    torch.testing.assert_close(inflated[:, 1:3], weight[:, 1:])
    torch.testing.assert_close(inflate_stem(weight, 2)[:, 0], weight[:, 0] + weight[:, 2])
    torch.testing.assert_close(inflate_stem(weight, 1), weight.sum(1, keepdim=True))
    torch.testing.assert_close(inflate_stem(weight, 6), torch.cat([weight, weight], 1) / 2)


@pytest.mark.parametrize(
    ('name', 'old', 'new'),
    [
        ('layers.0.blocks.0.attn.relative_position_bias_table', (49, 2), (169, 3)),
        ('layers.0.blocks.0.attn.relative_position_bias_table', (50, 3), (169, 3)),
        ('layers.0.blocks.0.attn.relative_position_bias_table', (64, 3), (169, 3)),
        ('layers.0.blocks.0.attn.relative_position_bias_table', (49,), (169, 3)),
        ('patch_embed.proj.weight', (8, 3, 2, 2), (8, 3, 4, 4)),
        ('patch_embed.proj.weight', (8, 48), (8, 3, 4, 4)),
        ('absolute_pos_embed', (1, 16, 5, 5), (1, 8, 5, 5)),
        ('absolute_pos_embed', (1, 8), (1, 8, 5, 5)),
        ('layers.0.blocks.0.mlp.fc1.weight', (16, 8), (32, 8)),
    ],
)
def test_what_cannot_be_adapted(name: str, old: tuple[int, ...], new: tuple[int, ...]):
    assert adapted(name, torch.zeros(old), torch.Size(new)) is None


def test_a_model_of_another_window_image_and_camera(tmp_path: Path, told: list[str]):
    """Every tensor that is not named here is taken as it is."""
    ours = random(SwinTransformer(**SMALL, window_size=7, use_abs_pos_embed=True, pretrain_img_size=224))
    wide = SwinTransformer(
        **SMALL, window_size=12, use_abs_pos_embed=True, pretrain_img_size=384, in_channels=4
    )
    filled(wide, saved(ours, tmp_path))
    old = ours.state_dict()
    for name, value in wide.state_dict().items():
        if name.endswith('bias_table'):
            assert torch.equal(value, resize_bias_table(old[name], 23 * 23))
        elif name == 'absolute_pos_embed':
            assert torch.equal(value, resize_position(old[name], 96, 96))
        elif name == 'patch_embed.proj.weight':
            assert torch.equal(value, inflate_stem(old[name], 4))
        else:
            assert torch.equal(value, old[name]), name
    assert 'adapted 6: grid (56, 56) -> (96, 96), input channels 3 -> 4, window 7 -> 12' in told[1]


def filled_v2(folder: Path, **arguments: object) -> tuple[SwinTransformerV2, SwinTransformerV2]:
    """A model of window 8, and one of window 16 with its weights."""
    ours = random(SwinTransformerV2(**SMALL, window_size=8))
    path = saved(ours, folder, **table_of(8, 8))
    return ours, filled(SwinTransformerV2(**SMALL, window_size=16, **arguments), path)


def table_of(window: int, pretrained: int) -> dict[str, Tensor]:
    """As Microsoft's files have it, of every block."""
    table = microsoft.coordinates(window, pretrained)
    return {f'layers.{i}.blocks.{j}.attn.relative_coords_table': table for i in (0, 1) for j in (0, 1)}


@torch.no_grad()
def test_v2_in_larger_windows_evaluates_its_mlp_at_the_papers_coordinates(tmp_path: Path):
    ours, wide = filled_v2(tmp_path, pretrained_window_sizes=[8, 8])
    weights = {key: value.double() for key, value in ours.state_dict().items()}
    attention = wide.layers[1].blocks[1].attn
    bias = attention.position_bias().unflatten(2, (16, 16)).unflatten(1, (16, 16))  # nH, qy, qx, ky, kx
    for dy in range(-15, 16, 3):
        for dx in range(-15, 16, 2):
            expected = plain_swin_v2.position_bias(weights, 'layers.1.blocks.1.attn', dy, dx, pretrained=8)
            query, key = (max(dy, 0), max(dx, 0)), (max(-dy, 0), max(-dx, 0))
            found = bias[:, query[0], query[1], key[0], key[1]]
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    small = ours.layers[1].blocks[1].attn.position_bias().unflatten(2, (8, 8)).unflatten(1, (8, 8))
    torch.testing.assert_close(bias[:, :8, :8, :8, :8], small)


@pytest.mark.parametrize('arguments', [{}, dict(pretrained_window_sizes=[8, 0])])
def test_v2_in_larger_windows_must_be_told_the_pretraining(arguments: dict, tmp_path: Path):
    stage = 1 if arguments else 0
    with pytest.raises(UserError) as caught:
        filled_v2(tmp_path, **arguments)
    assert str(caught.value) == (
        f'checkpoint {tmp_path / "swin.pth"}: layers.{stage}.blocks.0.attn learned its position bias in '
        'windows of 8, but the model takes 16: give pretrained_window_sizes, one for each stage'
    )


@pytest.mark.parametrize('pretrained', [2, 6, 7, 8, 12, 16, 24])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_v2_tells_the_pretraining_from_the_table(pretrained: int, dtype: torch.dtype, tmp_path: Path):
    table = {key: value.to(dtype) for key, value in table_of(8, pretrained).items()}
    path = saved(random(SwinTransformerV2(**SMALL, window_size=8)), tmp_path, **table)
    filled(SwinTransformerV2(**SMALL, window_size=4, pretrained_window_sizes=[pretrained] * 2), path)
    with pytest.raises(UserError, match=f'in windows of {pretrained}, but the model takes 5: '):
        filled(SwinTransformerV2(**SMALL, window_size=5), path)


@pytest.mark.parametrize('value', [0.0, float('nan'), float('inf')])
def test_v2_with_a_table_of_no_coordinates(value: float, tmp_path: Path):
    table = {key: torch.full_like(x, value) for key, x in table_of(8, 8).items()}
    path = saved(random(SwinTransformerV2(**SMALL, window_size=8)), tmp_path, **table)
    with pytest.raises(UserError, match='learned its position bias in windows of'):
        filled(SwinTransformerV2(**SMALL, window_size=8), path)


@pytest.mark.parametrize('version', [1, 2])
def test_a_file_of_the_other_version(version: int, tmp_path: Path):
    kinds = {1: SwinTransformer, 2: SwinTransformerV2}
    path = saved(random(kinds[3 - version](**SMALL, window_size=4)), tmp_path)
    with pytest.raises(UserError, match=f'is a Swin v{3 - version}, but the model is a Swin v{version}$'):
        filled(kinds[version](**SMALL, window_size=4), path)
