"""Soft NMS, NMS in groups and rotated boxes, against loops written from their definitions."""

import math

import mmcv.ops
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from swin_dense.hosts.ops import rotated


def random_boxes(count: int, seed: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = 60 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([corner, corner + 5 + 40 * torch.rand(count, 2, generator=generator)], 1)
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return boxes, (scores * 8).round() / 8 if ties else scores


def soft_nms_reference(
    boxes: Tensor, scores: Tensor, threshold: float, sigma: float, least: float, method: str
) -> list[tuple[int, float]]:
    """Algorithm of Bodla et al., figure 3, box by box; index and final score of each kept box."""
    left = {i: float(score) for i, score in enumerate(scores)}
    overlap = box_iou(boxes, boxes)
    kept = []
    while left:
        best = max(left, key=lambda i: left[i])
        kept.append((best, left.pop(best)))
        for i in list(left):
            iou = float(overlap[best, i])
            if method == 'gaussian':
                left[i] *= math.exp(-iou * iou / sigma)
            elif iou >= threshold:
                left[i] *= 0 if method == 'naive' else 1 - iou
            if left[i] < least:
                del left[i]
    return kept


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('seed', range(4))
def test_soft_nms(method: str, seed: int):
    boxes, scores = random_boxes(60, seed)
    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method)
    expected = soft_nms_reference(boxes, scores, 0.3, 0.5, 0.05, method)
    assert 5 < len(expected) < 60
    assert kept.tolist() == [i for i, _ in expected]
    wanted = torch.tensor([score for _, score in expected], dtype=torch.float64)
    torch.testing.assert_close(dets[:, 4], wanted, rtol=1e-12, atol=0)
    assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms_takes_equal_scores_in_mmcvs_order():
    """A dropped box is replaced by the last one of the list, which then comes before others of its score."""
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [50, 0, 60, 10], [70, 0, 80, 10.0]])
    scores = torch.tensor([0.9, 0.5, 0.5, 0.5])
    _, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, min_score=0.2, method='naive')
    assert kept.tolist() == [0, 3, 2]


def test_soft_nms_of_nothing_and_with_whole_pixels():
    dets, kept = mmcv.ops.soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5)
    assert len(kept) == 0
    boxes = torch.tensor([[0, 0, 9, 9], [5, 0, 14, 9.0]])  # 10 pixels wide each, 5 of them shared: IoU 1/3
    dets, _ = mmcv.ops.soft_nms(boxes, torch.tensor([0.9, 0.6]), 0.3, method='linear', offset=1)
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.4]))


@pytest.mark.parametrize('seed', range(4))
def test_nms_match(seed: int):
    boxes, scores = random_boxes(50, seed)
    overlap = box_iou(boxes, boxes)
    left, groups = scores.argsort(descending=True).tolist(), []
    while left:
        best = left[0]
        groups.append([best] + [i for i in left[1:] if overlap[best, i] >= 0.4])
        left = [i for i in left if i not in groups[-1]]
    matched = mmcv.ops.nms_match(torch.cat([boxes, scores[:, None]], 1), 0.4)
    assert [group.tolist() for group in matched] == groups
    assert any(len(group) > 1 for group in groups)


def clip_polygon(subject: list[tuple[float, float]], clip: list[tuple[float, float]]) -> float:
    """Area of the intersection of two convex polygons (Sutherland and Hodgman), counter-clockwise."""
    for (ax, ay), (bx, by) in zip(clip, clip[1:] + clip[:1], strict=True):
        points, side = (
            [],
            lambda p, a=(ax, ay), b=(bx, by): (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0]),
        )
        for p, q in zip(subject, subject[1:] + subject[:1], strict=True):
            before, after = side(p), side(q)
            if before >= 0:
                points.append(p)
            if before * after < 0:
                t = before / (before - after)
                points.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])))
        subject = points
        if not subject:
            return 0.0
    pairs = zip(subject, subject[1:] + subject[:1], strict=True)
    return abs(sum(p[0] * q[1] - p[1] * q[0] for p, q in pairs)) / 2


def corners_of(box: list[float]) -> list[tuple[float, float]]:
    x, y, width, height, angle = box
    cos, sin = math.cos(angle), math.sin(angle)
    halves = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [
        (x + cos * i * width / 2 - sin * j * height / 2, y + sin * i * width / 2 + cos * j * height / 2)
        for i, j in halves
    ]


def rotated_boxes(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([30, 30, 25, 15, 6], dtype=torch.float64)
    low = torch.tensor([1000, 0, 2, 2, -3], dtype=torch.float64)
    return torch.rand(count, 5, generator=generator, dtype=torch.float64) * scale + low


def rotated_iou_reference(a: Tensor, b: Tensor) -> float:
    shared = clip_polygon(corners_of(a.tolist()), corners_of(b.tolist()))
    return shared / float(a[2] * a[3] + b[2] * b[3] - shared)


def test_iou_of_rotated_boxes():
    a, b = rotated_boxes(30, 0), rotated_boxes(25, 1)
    expected = torch.tensor([[rotated_iou_reference(x, y) for y in b] for x in a], dtype=torch.float64)
    assert (expected > 0.1).sum() > 50
    torch.testing.assert_close(mmcv.ops.box_iou_rotated(a, b), expected, rtol=0, atol=1e-10)
    aligned = mmcv.ops.box_iou_rotated(a[:25], b, aligned=True)
    torch.testing.assert_close(aligned, expected[:25].diagonal(), rtol=0, atol=1e-10)
    torch.testing.assert_close(rotated.iou(a, a).diagonal(), torch.ones(30).double(), rtol=0, atol=1e-10)


def test_iou_of_upright_boxes_is_torchvisions_and_of_empty_ones_0():
    boxes, _ = random_boxes(20, 3)
    upright = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
    upright = torch.cat([upright, upright.new_zeros(20, 1)], 1)
    torch.testing.assert_close(rotated.iou(upright, upright), box_iou(boxes, boxes), rtol=0, atol=1e-10)
    upright[:, 2] = 0
    assert (rotated.iou(upright, upright) == 0).all()
    quarter = rotated.iou(torch.tensor([[0, 0, 4, 2, 0.0]]), torch.tensor([[0, 0, 2, 4, math.pi / 2]]))
    torch.testing.assert_close(quarter, torch.ones(1, 1))


@pytest.mark.parametrize('labelled', [False, True])
def test_nms_of_rotated_boxes(labelled: bool):
    boxes, scores = rotated_boxes(40, 5), torch.rand(40, dtype=torch.float64)
    labels = torch.arange(40) % 2 if labelled else None
    kept: list[int] = []
    for i in scores.argsort(descending=True).tolist():
        rivals = [j for j in kept if labels is None or labels[j] == labels[i]]
        if all(rotated_iou_reference(boxes[i], boxes[j]) < 0.3 for j in rivals):
            kept.append(i)
    dets, indices = mmcv.ops.nms_rotated(boxes, scores, 0.3, labels)
    assert indices.tolist() == kept
    assert 1 < len(kept) < 40
    assert torch.equal(dets[:, 5], scores[indices])
