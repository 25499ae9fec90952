"""Deformable attention as embedding bags, for the CPU: no sample is ever in memory.

A sample is a weighted sum of the four cells around it, and a query's result is a weighted sum of samples. So
it is a bag: a weighted sum of rows of the value, where a row is one head of one cell. The gradient of the
value consists of bags, too: each row's bag holds the queries that read it. A sort of the samples by row finds
them.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 17  # samples at a time: what is computed of them stays in the cache


class Levels(NamedTuple):
    """The maps of an image, one after the other. Tensors have one row for each level.

    Attributes:
        starts: (levels, 1) first cell of each map, int32.
        widths: (levels, 1), int32.
        heights: (levels, 1), int32.
        heads: rows of a cell.
    """

    starts: Tensor
    widths: Tensor
    heights: Tensor
    heads: int

    def one(self, level: int) -> 'Levels':
        """This level alone, as if it began at cell 0."""
        part = slice(level, level + 1)
        return Levels(self.starts[part] * 0, self.widths[part], self.heights[part], self.heads)


class Side(NamedTuple):
    """Along one axis, the two cells around each sample. A cell outside the map has the share 0.

    Attributes:
        cells: of the map, int32; for a cell outside, the nearest one inside.
        shares: of the sample's value.
        first: the cell before the sample, which may be -1, int32.
    """

    cells: tuple[Tensor, Tensor]
    shares: tuple[Tensor, Tensor]
    first: Tensor


def forward(value: Tensor, locations: Tensor, weights: Tensor, sizes: tuple[tuple[int, int], ...]) -> Tensor:
    """As ``deformable_attention``, for tensors of one dtype, float32 or float64."""
    levels = _levels(sizes, value.size(2))
    rows = value.flatten(1, 2)
    result = value.new_empty(*locations.shape[:2], value[0, 0].numel())
    for image, part in _chunks(locations):
        x, y = _sides(locations[image, part], levels)
        bags = F.embedding_bag(
            _rows_around(x, y, levels),
            rows[image],
            per_sample_weights=_corner_weights(x, y, weights[image, part]),
            mode='sum',
        )
        result[image, part] = bags.view(-1, result.size(2))
    return result


def backward(
    value: Tensor,
    locations: Tensor,
    weights: Tensor,
    sizes: tuple[tuple[int, int], ...],
    grad: Tensor,
    of_value: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of value (None unless ``of_value``), locations and weights."""
    levels = _levels(sizes, value.size(2))
    rows = value.flatten(1, 2)
    grad = grad.reshape(*locations.shape[:3], value.size(3))
    of_locations, of_weights = torch.empty_like(locations), torch.empty_like(weights)
    for image, part in _chunks(locations):
        of_locations[image, part], of_weights[image, part] = _backward_of_samples(
            rows[image], locations[image, part], weights[image, part], grad[image, part], levels
        )
    if not of_value:
        return None, of_locations, of_weights
    few = weights[0].numel() < rows.size(1)
    method = _backward_of_value_for_few if few else _backward_of_value
    images = [
        method(locations[image], weights[image], grad[image].flatten(0, 1), levels).view(value[0].shape)
        for image in range(len(value))
    ]
    of_rows = images[0][None] if len(images) == 1 else torch.stack(images)  # a copy, of much
    return of_rows, of_locations, of_weights


def _levels(sizes: tuple[tuple[int, int], ...], heads: int) -> Levels:
    areas = [height * width for height, width in sizes]
    starts = [sum(areas[:level]) for level in range(len(sizes))]
    heights, widths = zip(*sizes, strict=True)
    starts_, widths_, heights_ = torch.tensor([starts, widths, heights], dtype=torch.int32)[..., None]
    return Levels(starts_, widths_, heights_, heads)


def _chunks(locations: Tensor) -> Iterator[tuple[int, slice]]:
    """Each image, and some of its queries at a time."""
    step = max(1, CHUNK // max(1, locations[0, :1].numel() // 2))
    for image in range(len(locations)):
        for first in range(0, locations.size(1), step):
            yield image, slice(first, first + step)


def _sides(locations: Tensor, levels: Levels) -> tuple[Side, Side]:
    """Where samples (q, heads, levels, P, 2) lie along x and y."""
    x, y = locations.unbind(-1)
    return _side(x, levels.widths), _side(y, levels.heights)


def _side(locations: Tensor, size: Tensor) -> Side:
    positions = (locations * size).sub_(0.5)
    # a sample outside the map moves to where both shares are 0, and stay 0
    positions = torch.where(positions <= -1, size, positions).minimum(size.to(locations))
    before = positions.floor()
    far = positions.sub_(before)
    first = before.int()
    # a position that is not a number has any cell: its share is not a number either
    first.clamp_(min=-1).clamp_(max=size)
    second = first + 1
    near = (1 - far).mul_((first >= 0) & (first < size))
    far.mul_(second < size)
    return Side((first.clamp(min=0).minimum(size - 1), second.minimum(size - 1)), (near, far), first)


def _rows_around(x: Side, y: Side, levels: Levels) -> Tensor:
    """(bags, 4 * levels * P) rows of the four cells around each sample; a bag is a query of a head."""
    heads = torch.arange(levels.heads, dtype=torch.int32)[:, None, None]
    around = x.first.new_empty(*x.first.shape[:2], 4, *x.first.shape[2:])
    columns = [column * levels.heads + heads for column in x.cells]
    for i, line in enumerate(y.cells):
        start = (line * levels.widths).add_(levels.starts).mul_(levels.heads)
        for j, column in enumerate(columns):
            torch.add(start, column, out=around[:, :, 2 * i + j])
    return around.flatten(0, 1).flatten(1)


def _corner_weights(x: Side, y: Side, weights: Tensor) -> Tensor:
    """(bags, 4 * levels * P) weights of the cells of ``_rows_around``, from weights (q, heads, levels, P)."""
    around = weights.new_empty(*weights.shape[:2], 4, *weights.shape[2:])
    for i, vertical in enumerate(y.shares):
        line = weights * vertical
        for j, horizontal in enumerate(x.shares):
            torch.mul(line, horizontal, out=around[:, :, 2 * i + j])
    return around.flatten(0, 1).flatten(1)


def _backward_of_samples(
    rows: Tensor, locations: Tensor, weights: Tensor, grad: Tensor, levels: Levels
) -> tuple[Tensor, Tensor]:
    """Gradients of locations and weights of some queries of one image."""
    x, y = _sides(locations, levels)
    products = _corner_weights(x, y, weights)
    with torch.enable_grad():
        products.requires_grad_()
        bags = F.embedding_bag(_rows_around(x, y, levels), rows, per_sample_weights=products, mode='sum')
        (of_products,) = torch.autograd.grad(bags, products, grad.reshape(bags.shape))
    corners = of_products.view(*weights.shape[:2], 4, *weights.shape[2:]).unbind(2)
    # of the shares, whose weights are the others' products: left, right; top, bottom
    left, right = (corners[j] * y.shares[0] + corners[2 + j] * y.shares[1] for j in (0, 1))
    top, bottom = (corners[2 * i] * x.shares[0] + corners[2 * i + 1] * x.shares[1] for i in (0, 1))
    slopes = [
        (far * (side.first < size - 1) - near * ((side.first >= 0) & (side.first < size))).mul_(size)
        for side, size, near, far in ((x, levels.widths, left, right), (y, levels.heights, top, bottom))
    ]
    of_weights = left * x.shares[0] + right * x.shares[1]
    return torch.stack(slopes, -1).mul_(weights[..., None]), of_weights


def _backward_of_value(locations: Tensor, weights: Tensor, grad: Tensor, levels: Levels) -> Tensor:
    """Gradient of an image's value (K * heads, C), from that of its bags (bags, C).

    The samples of a level are sorted by the cell above and left of them. For each of the four cells around,
    the sums of all samples between the same cells are then a map, which is added where it belongs.
    """
    points = weights.size(3)
    total = grad.new_zeros(int((levels.heights * levels.widths).sum()), levels.heads, grad.size(1))
    for level in range(weights.size(2)):
        one, part = levels.one(level), slice(level, level + 1)
        height, width, start = (int(each[level]) for each in (levels.heights, levels.widths, levels.starts))
        x, y = _sides(locations[:, :, part], one)
        # cells from -1 on, and those at the last row and column, whose other shares are 0
        grid = (height + 2, width + 2, levels.heads)
        cells = ((y.first + 1) * grid[1] + (x.first + 1)) * levels.heads
        cells += torch.arange(levels.heads, dtype=torch.int32)[:, None, None]
        order, starts = _by_row(cells, (height + 2) * (width + 2) * levels.heads)
        queries = (order // points).int()
        products = _corner_weights(x, y, weights[:, :, part]).view(-1, 4, points)
        view = total[start : start + height * width].unflatten(0, (height, width))
        for corner in range(4):
            down, across = divmod(corner, 2)
            sums = F.embedding_bag(
                queries, grad, starts, per_sample_weights=products[:, corner].flatten()[order], mode='sum'
            ).view(*grid, -1)
            view += sums[1 - down : 1 - down + height, 1 - across : 1 - across + width]
    return total.flatten(0, 1)


def _backward_of_value_for_few(locations: Tensor, weights: Tensor, grad: Tensor, levels: Levels) -> Tensor:
    """As ``_backward_of_value``. All four cells of each sample are sorted: better if most cells have none."""
    x, y = _sides(locations, levels)
    rows, products = _rows_around(x, y, levels), _corner_weights(x, y, weights)
    order, starts = _by_row(rows, int((levels.heights * levels.widths).sum()) * levels.heads)
    queries = (order // rows.size(1)).int()
    return F.embedding_bag(queries, grad, starts, per_sample_weights=products.flatten()[order], mode='sum')


def _by_row(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The order of rows (any shape) by number, and the place of the first of each of ``count`` numbers."""
    rows = rows.flatten()
    ends = torch.bincount(rows, minlength=count).cumsum(0)
    return rows.sort()[1], F.pad(ends[:-1], (1, 0)).int()
