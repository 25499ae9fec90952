"""RoIAlign sample by sample (Mask R-CNN, section 3), with mmcv's borders, for the tests of its relatives."""

import math

import torch
from torch import Tensor


def sample(maps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values (C,) of maps (C, H, W); up to one cell outside the value at the border, further away 0."""
    height, width = maps.shape[1:]
    if not (-1 <= x.item() <= width and -1 <= y.item() <= height):
        return maps.new_zeros(len(maps))
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
    value = maps.new_zeros(len(maps))
    for i in (top, top + 1):
        for j in (left, left + 1):
            if i < height and j < width:
                value = value + maps[:, i, j] * (1 - (y - i).abs()) * (1 - (x - j).abs())
    return value


def pooled(
    features: Tensor,
    roi: list[float],
    size: tuple[int, int],
    scale: float,
    ratio: int,
    aligned: bool,
    moves: Tensor | None,
    how: str,
) -> Tensor:
    """One RoI, (C, *size); ``moves`` (2, *size) shift its bins along x and y in units of its side."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (side * scale - shift for side in roi[1:])
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1.0), max(height, 1.0)
    step_y, step_x = height / size[0], width / size[1]
    rows, columns = ratio or math.ceil(step_y), ratio or math.ceil(step_x)
    bins = []
    for i in range(size[0]):
        for j in range(size[1]):
            dx, dy = torch.zeros(2, dtype=torch.float64) if moves is None else moves[:, i, j]
            samples = [
                sample(
                    features[int(roi[0])],
                    x1 + j * step_x + (k + 0.5) * step_x / columns + dx * width,
                    y1 + i * step_y + (m + 0.5) * step_y / rows + dy * height,
                )
                for m in range(rows)
                for k in range(columns)
            ]
            stacked = torch.stack(samples)
            bins.append(stacked.amax(0) if how == 'max' else stacked.mean(0))
    return torch.stack(bins, 1).view(-1, *size)
