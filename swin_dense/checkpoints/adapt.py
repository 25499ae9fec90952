"""Make weights fit a model of another window, image size or number of input channels. Pure functions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def window_of(rows: int) -> int | None:
    """Side M of the window whose bias table has (2M - 1)^2 rows, None if there is none."""
    side = math.isqrt(rows)
    return (side + 1) // 2 if side**2 == rows and side % 2 else None


def resize_bias_table(table: Tensor, rows: int) -> Tensor:
    """Bicubic resize of v1's relative position bias table to another window.

    Args:
        table: ((2M - 1)^2, nH), rows by (dy, dx).
        rows: (2M' - 1)^2.

    Returns:
        (rows, nH), ``table`` itself if it has that many.
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
    """Patch embedding for another number of input channels.

    Every old channel's weight is shared out among the new channels that take its place (new channel c
    continues old channel c mod K, for fewer channels old k joins new k mod channels), so the weights sum
    to what they were: an image of equal planes keeps its features.

    Args:
        weight: (C, K, 4, 4).
        channels: new number of input channels.

    Returns:
        (C, channels, 4, 4), ``weight`` itself if nothing changes.
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
    """A backbone's tensor in another shape and what was done to it, None if that cannot be.

    Args:
        name: our name of the tensor.
        value: as the file has it.
        shape: as the model needs it.
    """
    if value.ndim != len(shape):
        return None
    if name.endswith('relative_position_bias_table') and value.shape[1:] == shape[1:]:
        old, new = window_of(value.size(0)), window_of(shape[0])
        return (resize_bias_table(value, shape[0]), f'window {old} -> {new}') if old else None
    if name.endswith('absolute_pos_embed') and value.shape[:2] == shape[:2]:
        return resize_position(value, *shape[2:]), f'grid {tuple(value.shape[2:])} -> {tuple(shape[2:])}'
    if name.endswith('patch_embed.proj.weight') and (value.size(0), value.shape[2:]) == (shape[0], shape[2:]):
        return inflate_stem(value, shape[1]), f'input channels {value.size(1)} -> {shape[1]}'
    return None
