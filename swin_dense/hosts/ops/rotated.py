"""Overlap of rotated boxes: the area of the convex polygon that two rectangles share."""

import torch
from torch import Tensor

CHUNK = 1 << 14  # pairs at a time: each has 24 candidate corners
SMALL = 1e-14  # an area below this counts as none, as in mmcv
TOLERANCE = 1e-9  # of a position along an edge, for corners that lie on the other box's edge


def iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """IoU (..., N, M) of rotated boxes (..., N, 5) and (..., M, 5).

    Boxes are centre x, centre y, width, height in pixels and angle in radians.
    """
    return overlaps(boxes1, boxes2, of_first=False)


def overlaps(boxes1: Tensor, boxes2: Tensor, of_first: bool) -> Tensor:
    """As ``iou``; with ``of_first`` the intersection over the area of the first box."""
    shape = torch.broadcast_shapes(boxes1.shape[:-2], boxes2.shape[:-2])
    pairs = (*shape, boxes1.size(-2), boxes2.size(-2), 5)
    first = boxes1.unsqueeze(-2).expand(pairs).reshape(-1, 5).double()
    second = boxes2.unsqueeze(-3).expand(pairs).reshape(-1, 5).double()
    shared = [_intersection(a, b) for a, b in zip(first.split(CHUNK), second.split(CHUNK), strict=True)]
    intersection = torch.cat(shared) if shared else first.new_zeros(0)
    area1, area2 = first[:, 2] * first[:, 3], second[:, 2] * second[:, 3]
    whole = area1 if of_first else area1 + area2 - intersection
    ratio = torch.where((area1 < SMALL) | (area2 < SMALL), 0, intersection / whole)
    return ratio.view(pairs[:-1]).to(boxes1.dtype)


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Shared area (K,) of pairs of boxes (K, 5)."""
    # far from the origin, products of coordinates would lose their last digits
    middle = (boxes1[:, :2] + boxes2[:, :2]) / 2
    corners1, corners2 = _corners(boxes1, middle), _corners(boxes2, middle)
    crossings, crossed = _crossings(corners1, corners2)
    points = torch.cat([corners1, corners2, crossings], 1)
    valid = torch.cat([_inside(corners1, corners2), _inside(corners2, corners1), crossed], 1)
    return _area(points, valid)


def _corners(boxes: Tensor, origin: Tensor) -> Tensor:
    """The four corners (K, 4, 2) in their order around the box."""
    cos, sin = boxes[:, 4].cos(), boxes[:, 4].sin()
    across = torch.stack([cos, sin], -1) * boxes[:, 2, None] / 2
    along = torch.stack([-sin, cos], -1) * boxes[:, 3, None] / 2
    centre = boxes[:, :2] - origin
    corners = (across + along, along - across, -across - along, across - along)
    return torch.stack([centre + corner for corner in corners], 1)


def _inside(points: Tensor, box: Tensor) -> Tensor:
    """Which points (K, P, 2) lie in the box of corners (K, 4, 2), or on its border: (K, P)."""
    inside = points.new_ones(points.shape[:-1], dtype=torch.bool)
    for neighbour in (box[:, 1], box[:, 3]):
        side = neighbour - box[:, 0]
        from_corner = points - box[:, :1]
        position = (from_corner * side[:, None]).sum(-1) / side.square().sum(-1, keepdim=True)
        inside &= (position >= -TOLERANCE) & (position <= 1 + TOLERANCE)
    return inside


def _crossings(corners1: Tensor, corners2: Tensor) -> tuple[Tensor, Tensor]:
    """Where the edges of two boxes cross: points (K, 16, 2), and which of them exist (K, 16)."""
    start1, start2 = corners1[:, :, None], corners2[:, None]
    edge1 = corners1.roll(-1, 1)[:, :, None] - start1
    edge2 = corners2.roll(-1, 1)[:, None] - start2
    between = start2 - start1
    turn = _cross(edge1, edge2)
    along1, along2 = _cross(between, edge2) / turn, _cross(between, edge1) / turn  # parallel: not finite
    crossed = (along1 >= 0) & (along1 <= 1) & (along2 >= 0) & (along2 <= 1)
    points = start1 + torch.where(crossed, along1, 0)[..., None] * edge1
    return points.flatten(1, 2), crossed.flatten(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _area(points: Tensor, valid: Tensor) -> Tensor:
    """Area (K,) of the convex polygons whose corners are the valid ones of points (K, P, 2), in any order."""
    count = valid.sum(1, keepdim=True)
    centre = (points * valid[..., None]).sum(1) / count.clamp(min=1)
    # an invalid point becomes a valid one: a corner that comes twice adds no area
    some = points.gather(1, valid.int().argmax(1)[:, None, None].expand(-1, 1, 2))
    spokes = torch.where(valid[..., None], points, some) - centre[:, None]
    order = torch.atan2(spokes[..., 1], spokes[..., 0]).argsort(1)
    spokes = spokes.gather(1, order[..., None].expand_as(spokes))
    area = _cross(spokes, spokes.roll(-1, 1)).sum(1).abs() / 2
    return torch.where(count[:, 0] > 2, area, 0)
