"""Deformable attention by sampling the maps, for GPUs: some queries of one level at a time."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLED = 1 << 26  # sampled values at a time


def forward(value: Tensor, locations: Tensor, weights: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """As ``deformable_attention``, for tensors of one dtype, float32 or float64."""
    batch, queries, heads = locations.shape[:3]
    result = value.new_zeros(batch * heads, value.size(3), queries)
    for level, cells in enumerate(_maps(value, sizes)):
        for part in _chunks(locations, value.size(3)):
            result[:, :, part] += _sums(cells, locations[:, part, :, level], weights[:, part, :, level])
    return result.view(batch, -1, queries).transpose(1, 2).contiguous()


def backward(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    sizes: tuple[tuple[int, int], ...],
    grad: Tensor,
    of_value: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of value (None unless ``of_value``), locations and weights."""
    batch, queries, heads = locations.shape[:3]
    grad = grad.view(batch, queries, heads, -1).permute(0, 2, 3, 1).flatten(0, 1)  # (B * heads, C, Q)
    total = torch.zeros_like(value) if of_value else None
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    targets = _maps(total, sizes) if total is not None else [None] * len(sizes)
    for level, (cells, target) in enumerate(zip(_maps(value, sizes), targets, strict=True)):
        for part in _chunks(locations, value.size(3)):
            given = (cells, locations[:, part, :, level], weights[:, part, :, level])
            with torch.enable_grad():
                inputs = [tensor.detach().requires_grad_(i > 0 or of_value) for i, tensor in enumerate(given)]
                sums = _sums(*inputs)
                wanted = inputs if of_value else inputs[1:]
                *of_cells, to_locations, to_weights = torch.autograd.grad(sums, wanted, grad[:, :, part])
            of_locations[:, part, :, level], of_weights[:, part, :, level] = to_locations, to_weights
            if target is not None:
                target += of_cells[0]
    return total, of_locations, of_weights


def _maps(value: Tensor, sizes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Views (B, heads, C, h, w) of each level of the value (B, K, heads, C)."""
    levels = value.split([height * width for height, width in sizes], 1)
    return [level.permute(0, 2, 3, 1).unflatten(3, size) for level, size in zip(levels, sizes, strict=True)]


def _chunks(locations: Tensor, channels: int) -> Iterator[slice]:
    """Some queries at a time."""
    batch, queries, heads, _, points, _ = locations.shape
    step = max(1, SAMPLED // max(1, batch * heads * points * channels))
    return (slice(first, first + step) for first in range(0, queries, step))


def _sums(cells: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums (B * heads, C, q) of samples of a map (B, heads, C, h, w).

    Locations are (B, q, heads, P, 2), weights (B, q, heads, P).
    """
    grid = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    samples = F.grid_sample(cells.flatten(0, 1), grid, align_corners=False)  # (B * heads, C, q, P)
    return (samples * weights.transpose(1, 2).flatten(0, 1)[:, None]).sum(3)
