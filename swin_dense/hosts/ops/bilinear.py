"""Bilinear samples of feature maps, with the borders of mmcv's pooling functions, and their grids in RoIs.

A sample up to one cell outside the map takes the value at the border; one further away is 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

VALUES = 1 << 22  # that are sampled at a time, of all channels


class Corners(NamedTuple):
    """The four cells around each sample.

    Attributes:
        cells: (4, ...) index of the cell in a map of H * W cells.
        weights: (4, ...) of each cell; all 0 for a sample outside the map.
        slopes: (4, ..., 2) of the weights along x and y.
    """

    cells: Tensor
    weights: Tensor
    slopes: Tensor


def corners(x: Tensor, y: Tensor, height: int, width: int) -> Corners:
    """The cells around samples at x and y, which have one shape, in units of cells."""
    inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
    left, right, toward_right = _axis(x, width)
    top, bottom, toward_bottom = _axis(y, height)
    # left of the first cell, the value is constant
    moves = torch.stack([inside & (x >= 0), inside & (y >= 0)], -1)
    cells, weights, slopes = [], [], []
    for row, vertical, down in ((top, 1 - toward_bottom, -1), (bottom, toward_bottom, 1)):
        for column, horizontal, across in ((left, 1 - toward_right, -1), (right, toward_right, 1)):
            cells.append(row * width + column)
            weights.append(vertical * horizontal * inside)
            slopes.append(torch.stack([across * vertical, down * horizontal], -1) * moves)
    return Corners(torch.stack(cells), torch.stack(weights), torch.stack(slopes))


def _axis(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after each position, and how far it is toward the second, from 0 to 1."""
    position = position.clamp(min=0)
    before = position.floor().long().clamp(max=size - 1)
    after = (before + 1).clamp(max=size - 1)
    return before, after, torch.where(before < size - 1, position - before, 0)


def sample(cells: Tensor, around: Corners) -> Tensor:
    """Values (C, ...) of a map (C, H * W) at the samples."""
    values = cells[:, around.cells[0]] * around.weights[0]
    for corner, weight in zip(around.cells[1:], around.weights[1:], strict=True):
        values += cells[:, corner] * weight
    return values


def start_and_side(roi: Tensor, scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """The upper left corner (2,) and the size (2,) of a RoI, as x and y in cells of the map.

    Args:
        roi: (5,) as batch index, x1, y1, x2, y2 in pixels of the image.
        scale: size of the map over the size of the image.
        aligned: whether the centre of a cell lies at half its side, which is right, or at its corner.
    """
    start, stop = roi[1:3] * scale - 0.5 * aligned, roi[3:] * scale - 0.5 * aligned
    side = stop - start
    return start, side if aligned else side.clamp(min=1)


def grid(start: Tensor, side: Tensor, size: tuple[int, int], sampling_ratio: int) -> tuple[Tensor, Tensor]:
    """x and y (bins, samples) of a RoI's samples: a regular grid in each bin, row after row.

    Args:
        start: of the RoI, (2,).
        side: of the RoI, (2,).
        size: height and width in bins.
        sampling_ratio: samples of a bin in each direction; 0 for one for each cell, rounded up.
    """
    step = side / side.new_tensor([size[1], size[0]])
    counts = [max(sampling_ratio or int(steps), 0) for steps in step.ceil().tolist()]
    x, y = (
        start[i]
        + step[i] * torch.arange(bins).to(side)[:, None]
        + step[i] * (torch.arange(count).to(side) + 0.5) / max(count, 1)
        for i, (bins, count) in enumerate(zip((size[1], size[0]), counts, strict=True))
    )  # (bins, samples) along one side
    shape = (*size, y.size(1), x.size(1))
    x, y = x[None, :, None, :].expand(shape), y[:, None, :, None].expand(shape)
    return x.reshape(size[0] * size[1], -1), y.reshape(size[0] * size[1], -1)


def parts(x: Tensor, channels: int) -> Iterator[slice]:
    """Slices of the bins of x (bins, samples), so that the samples of all channels take little memory."""
    step = max(1, VALUES // max(1, channels * x.size(1)))
    return (slice(i, i + step) for i in range(0, len(x), step))
