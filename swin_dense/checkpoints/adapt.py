"""Resize weights for a model of another window, image size or number of input channels. Pure functions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def window_side(rows: int) -> int | None:
    """Side M of the window whose bias table has (2M - 1)^2 rows; None if no window has so many rows."""
    side = math.isqrt(rows)
    return (side + 1) // 2 if side**2 == rows and side % 2 else None


def resize_bias_table(table: Tensor, rows: int) -> Tensor:
    """Bicubic resize of v1's relative position bias table to another window.

    Args:
        table: ((2M - 1)^2, nH). Rows are ordered by (dy, dx).
        rows: (2M' - 1)^2 for the new window side M'.

    Returns:
        (rows, nH). This is ``table`` itself if it has that many rows.
    """
    if table.size(0) == rows:
        return table
    old, new = math.isqrt(table.size(0)), math.isqrt(rows)
    image = table.T.reshape(1, -1, old, old).float()
    resized = F.interpolate(image, size=(new, new), mode='bicubic')
    return resized.flatten(2).squeeze(0).T.to(table.dtype)


def resize_position(position: Tensor, height: int, width: int) -> Tensor:
    """Bicubic resize of an absolute position embedding (1, C, h, w) -> (1, C, height, width)."""
    if position.shape[2:] == (height, width):
        return position
    return F.interpolate(position.float(), size=(height, width), mode='bicubic').to(position.dtype)


def inflate_stem(weight: Tensor, channels: int) -> Tensor:
    """Change the number of input channels of the patch embedding's weight.

    New channel c takes the place of old channel c mod K. If there are fewer new channels than old ones, old
    channel k is added to new channel k mod ``channels``. The new channels that take the place of one old
    channel share its weight equally. The sum of the weights is unchanged, so an image whose channels are
    equal keeps its features.

    Args:
        weight: (C, K, 4, 4), of a model with K input channels.
        channels: new number of input channels.

    Returns:
        (C, channels, 4, 4). This is ``weight`` itself if the number is the same.
    """
    old = weight.size(1)
    if old == channels:
        return weight
    place = torch.arange(max(old, channels))
    share = torch.zeros(channels, old, dtype=weight.dtype)
    share[place % channels, place % old] = 1.0
    share /= share.sum(0)
    return torch.einsum('nk,ckhw->cnhw', share, weight)


def adapted(name: str, value: Tensor, shape: torch.Size) -> tuple[Tensor, str] | None:
    """Resize a tensor of a backbone.

    Args:
        name: our name of the tensor.
        value: the tensor in the file.
        shape: the shape that the model needs.

    Returns:
        The resized tensor and a description of the change; None if this tensor cannot be resized so.
    """
    if value.ndim != len(shape):
        return None
    if name.endswith('relative_position_bias_table') and value.shape[1:] == shape[1:]:
        old, new = window_side(value.size(0)), window_side(shape[0])
        return (resize_bias_table(value, shape[0]), f'window {old} -> {new}') if old else None
    if name.endswith('absolute_pos_embed') and value.shape[:2] == shape[:2]:
        return resize_position(value, *shape[2:]), f'grid {tuple(value.shape[2:])} -> {tuple(shape[2:])}'
    if name.endswith('patch_embed.proj.weight') and (value.size(0), value.shape[2:]) == (shape[0], shape[2:]):
        return inflate_stem(value, shape[1]), f'input channels {value.size(1)} -> {shape[1]}'
    return None
