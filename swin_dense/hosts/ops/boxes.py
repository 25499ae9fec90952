"""NMS in all its kinds, with the rules of mmcv's compiled functions: ties, borders and thresholds."""

import torch
from torch import Tensor
from torchvision import ops as torchvision_ops

from swin_dense.hosts.ops import rotated

HARD, LINEAR, GAUSSIAN = 0, 1, 2  # mmcv's numbers for the decay of soft NMS


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the kept boxes, by falling score.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        offset: 1 counts the last pixel as part of the box, so widths are x2 - x1 + 1.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    if boxes.dtype != torch.float64:
        boxes = boxes.float()
    return torchvision_ops.nms(boxes, scores.to(boxes.dtype), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (https://arxiv.org/abs/1704.04503): lower the scores of boxes that overlap better ones.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        dets: (N, 5), receives the kept boxes with their new scores in the first K rows.
        iou_threshold: the overlap from which ``HARD`` and ``LINEAR`` lower a score.
        sigma: width of the decay of ``GAUSSIAN``.
        min_score: a box whose score falls below this is dropped.
        method: ``HARD``, ``LINEAR`` or ``GAUSSIAN``.
        offset: 1 counts the last pixel as part of the box.

    Returns:
        Indices (K,) of the kept boxes, by falling score.
    """
    boxes, scores, order = boxes.clone(), scores.clone(), torch.arange(len(boxes))
    i = 0
    while i < len(order):
        best = i + int(scores[i:].argmax())
        for values in (boxes, scores, order):
            values[[i, best]] = values[[best, i]]
        rest = slice(i + 1, None)
        overlap = _iou(boxes[i], boxes[rest], offset)
        if method == GAUSSIAN:
            weight = torch.exp(-(overlap * overlap) / sigma)
        else:
            lowered = torch.zeros_like(overlap) if method == HARD else 1 - overlap
            weight = torch.where(overlap >= iou_threshold, lowered, 1)
        scores[rest] *= weight
        kept = torch.cat([torch.arange(i + 1), i + 1 + _close_gaps(scores[rest] >= min_score)])
        boxes, scores, order = boxes[kept], scores[kept], order[kept]
        i += 1
    dets[: len(order)] = torch.cat([boxes, scores[:, None]], 1).to(dets)
    return order


def _close_gaps(kept: Tensor) -> Tensor:
    """Order of the kept items (N,) after each dropped one was replaced by the last one of the list.

    mmcv drops boxes like this. The order decides which of two equal scores comes first.
    """
    count = int(kept.sum())
    order = torch.arange(count)
    order[~kept[:count]] = (count + kept[count:].nonzero().flatten()).flip(0)
    return order


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """For each box that NMS keeps, by falling score: its index, and those of the boxes it suppresses.

    Args:
        dets: (N, 5) as x1, y1, x2, y2, score.
        iou_threshold: a box that overlaps a better one by at least this is suppressed.
    """
    boxes = dets[:, :4]
    left = dets[:, 4].sort(descending=True)[1]
    groups = []
    while len(left):
        best, others = left[0], left[1:]
        suppressed = _iou(boxes[best], boxes[others], 0) >= iou_threshold
        groups.append([int(best), *others[suppressed].tolist()])
        left = others[~suppressed]
    return groups


def _iou(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU (N,) of one box (4,) with others (N, 4); NaN, which compares as no overlap, if both are empty."""
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    intersection = (high - low + offset).clamp(min=0).prod(1)
    area = (box[2:] - box[:2] + offset).prod()
    areas = (boxes[:, 2:] - boxes[:, :2] + offset).prod(1)
    return intersection / (area + areas - intersection)


def nms_rotated(
    dets: Tensor,
    scores: Tensor,
    order: Tensor,
    dets_sorted: Tensor,
    labels: Tensor,
    iou_threshold: float,
    multi_label: int,
) -> Tensor:
    """Indices (K,) of the rotated boxes that NMS keeps, by falling score.

    Args:
        dets: (N, 5) as centre x, centre y, width, height in pixels and angle in radians; with ``multi_label``
            (N, 6), with the label last. Boxes of different labels do not suppress each other.
        scores: (N,).
        order: indices (N,) by falling score.
        dets_sorted: ``dets`` in that order; unused.
        labels: of each box; unused, for ``dets`` has them.
        iou_threshold: a box that overlaps a better one by at least this is suppressed.
        multi_label: whether ``dets`` has labels.
    """
    kept, left = [], order
    while len(left):
        best, others = left[0], left[1:]
        kept.append(best)
        suppressed = rotated.iou(dets[best, None, :5], dets[others, :5])[0] >= iou_threshold
        if multi_label:
            suppressed &= dets[others, 5] == dets[best, 5]
        left = others[~suppressed]
    return torch.stack(kept) if kept else order


def box_iou_rotated(boxes1: Tensor, boxes2: Tensor, ious: Tensor, mode_flag: int, aligned: bool) -> None:
    """Write the overlaps of rotated boxes (N, 5), (M, 5) into ``ious``.

    Args:
        boxes1: as centre x, centre y, width, height in pixels and angle in radians.
        boxes2: likewise.
        ious: (N * M,), or (N,) if ``aligned``.
        mode_flag: 0 divides the intersection by the union, 1 by the area of the first box.
        aligned: pairs of the same index alone.
    """
    pairs = (boxes1[:, None], boxes2[:, None]) if aligned else (boxes1, boxes2)
    ious.copy_(rotated.overlaps(*pairs, of_first=mode_flag == 1).flatten())
