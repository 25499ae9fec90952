"""RoIAlign (Mask R-CNN, section 3) by small matrices, for the CPU and for deterministic mode.

A bin's value is a mean of bilinear samples on a regular grid, and so it is separable: one matrix leads from
the map's rows to the bins' rows, another from its columns to the bins' columns. Both are applied to the part
of the map that a RoI touches. Torchvision's operator visits the samples one by one, on one thread. It is some
five times slower forward and twelve times backward. On CUDA it adds up its gradient in the order in which
threads finish, which differs from run to run. Semantics are torchvision's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

MAX_SIDE = 2048  # of a RoI in cells of the map; the samples of larger ones would take much memory


class Axis(NamedTuple):
    """One of the two directions, of K RoIs.

    Attributes:
        weights: (K, bins, size), from a row (or column) of the map to a row of bins.
        first, stop: of each RoI, the part of the map whose weights are not all 0.
    """

    weights: Tensor
    first: list[int]
    stop: list[int]


def is_preferred(rois: Tensor, scale: float) -> bool:
    """Whether to pool RoIs (K, 5) here: on the CPU or in deterministic mode, if their sizes are sensible."""
    if rois.device.type != 'cpu' and not torch.are_deterministic_algorithms_enabled():
        return False
    sides = (rois[:, 3:] - rois[:, 1:3]) * scale
    return bool((sides.abs() <= MAX_SIDE).all() and rois.isfinite().all())


@torch.no_grad()
def forward(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Pool RoIs from a map.

    Args:
        features: (B, C, H, W); channels_last is faster.
        rois: (K, 5) as index in the batch, x1, y1, x2, y2 in pixels of the image.
        size: height and width in bins.
        scale: size of the map over the size of the image.
        sampling_ratio: samples of a bin in each direction; 0 for one for each cell, rounded up.
        aligned: whether the centre of a cell lies at half its side, which is right, or at its corner.

    Returns:
        (K, C, *size).
    """
    y, x = _axes(rois, size, features.shape[2:], scale, sampling_ratio, aligned)
    maps = features.permute(0, 2, 3, 1).contiguous()
    channels = maps.size(3)
    pooled = maps.new_empty(len(rois), *size, channels)
    images = rois[:, 0].long().tolist()
    with _one_thread_without_autocast(rois.device.type):
        for k, image in enumerate(images):
            rows, columns = slice(y.first[k], y.stop[k]), slice(x.first[k], x.stop[k])
            part = maps[image, rows, columns].flatten(1)  # (h, w * C), a view
            by_row = torch.mm(y.weights[k, :, rows], part).view(size[0], x.stop[k] - x.first[k], channels)
            torch.bmm(x.weights[k, :, columns].expand(size[0], -1, -1), by_row, out=pooled[k])
    return pooled.permute(0, 3, 1, 2)


@torch.no_grad()
def backward(
    grad: Tensor, rois: Tensor, shape: torch.Size, scale: float, sampling_ratio: int, aligned: bool
) -> Tensor:
    """Gradient of the map, of ``shape`` (B, C, H, W), from that of the pooled RoIs (K, C, *size)."""
    y, x = _axes(rois, grad.shape[2:], shape[2:], scale, sampling_ratio, aligned)
    grad = grad.permute(0, 2, 3, 1).contiguous()
    bins = grad.size(1)
    maps = grad.new_zeros(shape[0], *shape[2:], shape[1])
    images = rois[:, 0].long().tolist()
    with _one_thread_without_autocast(rois.device.type):
        for k, image in enumerate(images):
            rows, columns = slice(y.first[k], y.stop[k]), slice(x.first[k], x.stop[k])
            by_row = torch.bmm(x.weights[k, :, columns].t().expand(bins, -1, -1), grad[k])
            part = maps[image, rows, columns].flatten(1)
            part.addmm_(y.weights[k, :, rows].t(), by_row.flatten(1))
    return maps.permute(0, 3, 1, 2)


def _axes(
    rois: Tensor, bins: Sequence[int], size: Sequence[int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Axis, Axis]:
    """The vertical and the horizontal direction."""
    corners = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    start, length = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        length = length.clamp(min=1)
    y, x = (_axis(start[:, i], length[:, i], bins[1 - i], size[1 - i], sampling_ratio) for i in (1, 0))
    return y, x


def _axis(start: Tensor, length: Tensor, bins: int, size: int, sampling_ratio: int) -> Axis:
    """``start`` and ``length`` (K,) of the RoIs in cells of a map of ``size``."""
    step = length / bins
    samples = step.ceil().long() if sampling_ratio <= 0 else torch.full_like(step, sampling_ratio).long()
    number = torch.arange(samples.max().clamp(min=1).item() if len(samples) else 1, device=start.device)
    bin_numbers = torch.arange(bins, device=start.device).view(-1, 1)
    count = samples.clamp(min=1).to(start.dtype).view(-1, 1, 1)
    step = step.view(-1, 1, 1)
    # in torchvision's order of operations: (K, bins, samples)
    at = start.view(-1, 1, 1) + bin_numbers * step + (number + 0.5) * step / count
    # a sample beyond the border by more than a cell is 0, a nearer one is taken from the border
    inside = (number < samples.view(-1, 1, 1)) & (at >= -1) & (at <= size)
    share = inside / count
    at = at.clamp(0, size - 1)
    low = at.long()
    high = (low + 1).clamp(max=size - 1)
    weights = start.new_zeros(len(start), bins, size)
    weights.scatter_add_(2, low, (low + 1 - at) * share)
    weights.scatter_add_(2, high, (at - low) * share)
    used = inside.flatten(1)
    first = low.flatten(1).masked_fill(~used, size).amin(1)
    stop = high.flatten(1).masked_fill(~used, -1).amax(1) + 1
    return Axis(weights, torch.minimum(first, stop).tolist(), stop.tolist())


@contextmanager
def _one_thread_without_autocast(device: str) -> Iterator[None]:
    """Several threads would wait for each other after each small product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        torch.set_num_threads(threads)
