"""What mmcv.ops gives without mmcv's compiled extension, against slow code that is plainly right."""

import importlib
import math

import mmcv.ops
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses.focal_loss import FocalLoss, py_sigmoid_focal_loss
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from swin_dense import hosts

only_stand_in = pytest.mark.skipif(
    hosts.prepare() == 'mmcv', reason="mmcv's compiled ops are installed: there is no stand-in to test"
)


def slow_nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    def area(box: list[float]) -> float:
        return (box[2] - box[0] + offset) * (box[3] - box[1] + offset)

    def overlap(a: list[float], b: list[float]) -> float:
        width = min(a[2], b[2]) - max(a[0], b[0]) + offset
        height = min(a[3], b[3]) - max(a[1], b[1]) + offset
        inside = max(width, 0) * max(height, 0)
        return inside / (area(a) + area(b) - inside)

    listed = boxes.tolist()
    kept: list[int] = []
    for i in sorted(range(len(listed)), key=lambda i: -scores[i].item()):
        if all(overlap(listed[i], listed[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def random_boxes(count: int, side: float = 60) -> tuple[Tensor, Tensor]:
    corner = torch.rand(count, 2) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2) * side / 2], dim=1), torch.rand(count)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7])
@pytest.mark.parametrize('side', [6, 60])
def test_nms(threshold: float, offset: int, side: float):
    boxes, scores = random_boxes(150, side)
    dets, kept = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
    expected = slow_nms(boxes, scores, threshold, offset)
    assert 1 < len(expected) < 150
    assert kept.tolist() == expected
    assert torch.equal(dets, torch.cat([boxes[expected], scores[expected, None]], dim=1))


def test_nms_offset_matters():
    boxes = torch.tensor([[0.0, 0, 1, 1], [1, 0, 2, 1]])  # they share a column of pixels, not an area
    scores = torch.tensor([0.9, 0.8])
    assert mmcv.ops.nms(boxes, scores, 0.3, offset=0)[1].tolist() == [0, 1]
    assert mmcv.ops.nms(boxes, scores, 0.3, offset=1)[1].tolist() == [0]


def test_nms_score_threshold_and_max_num():
    boxes, scores = random_boxes(150)
    confident = torch.nonzero(scores > 0.4).flatten()
    expected = [confident[i].item() for i in slow_nms(boxes[confident], scores[confident], 0.5, 0)]
    kept = mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.4)[1]
    assert kept.tolist() == expected
    kept = mmcv.ops.nms(boxes, scores, 0.5, score_threshold=0.4, max_num=7)[1]
    assert kept.tolist() == expected[:7]


def test_nms_of_nothing():
    dets, kept = mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


@only_stand_in
def test_nms_of_half_precision_boxes():
    boxes, scores = random_boxes(50)
    boxes, scores = boxes.bfloat16(), torch.linspace(0, 1, 50).bfloat16()
    kept = mmcv.ops.nms(boxes, scores, 0.5)[1]
    assert kept.tolist() == slow_nms(boxes.float(), scores.float(), 0.5, 0)


def test_batched_nms_keeps_classes_apart():
    boxes, scores = random_boxes(100)
    classes = torch.arange(100) % 3
    kept = mmcv.ops.batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.4))[1]
    expected = []
    for c in range(3):
        own = torch.nonzero(classes == c).flatten()
        expected += [own[i].item() for i in slow_nms(boxes[own], scores[own], 0.4, 0)]
    assert sorted(kept.tolist()) == sorted(expected)


def bilinear(channel: Tensor, y: float, x: float) -> Tensor:
    """A map's value between pixels; outside by more than one pixel it is 0, else the border's."""
    height, width = channel.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return channel.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    return (
        channel[top, left] * (1 - down) * (1 - along)
        + channel[top, right] * (1 - down) * along
        + channel[bottom, left] * down * (1 - along)
        + channel[bottom, right] * down * along
    )


def slow_roi_align(
    features: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """Mask R-CNN, section 3: the mean of bilinear samples on a regular grid inside each bin."""
    pooled = features.new_zeros(len(rois), features.size(1), *size)
    for k, (image, *box) in enumerate(rois.tolist()):
        left, top, right, bottom = (side * scale - (0.5 if aligned else 0) for side in box)
        height, width = bottom - top, right - left
        if not aligned:
            height, width = max(height, 1), max(width, 1)
        bin_height, bin_width = height / size[0], width / size[1]
        rows, columns = ratio or math.ceil(bin_height), ratio or math.ceil(bin_width)
        for c in range(features.size(1)):
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [
                        bilinear(
                            features[int(image), c],
                            top + (i + (row + 0.5) / rows) * bin_height,
                            left + (j + (column + 0.5) / columns) * bin_width,
                        )
                        for row in range(rows)
                        for column in range(columns)
                    ]
                    pooled[k, c, i, j] = sum(samples) / len(samples)
    return pooled


ROIS = torch.tensor(
    [
        [0, 3.0, 5.0, 21.0, 30.0],
        [1, 0.0, 0.0, 43.9, 35.9],
        [1, 17.3, 9.1, 18.2, 9.4],  # smaller than one pixel of the map
        [0, -9.0, -7.0, 12.0, 60.0],  # beyond the image
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize('aligned', [True, False], ids=['aligned', 'unaligned'])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(ratio: int, aligned: bool):
    features = torch.randn(2, 2, 9, 11, dtype=torch.float64, requires_grad=True)
    arguments = (ROIS, (3, 2), 0.25, ratio)
    ours = mmcv.ops.roi_align(features, *arguments, 'avg', aligned)
    slow = slow_roi_align(features, *arguments, aligned)
    torch.testing.assert_close(ours, slow, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours, torchvision_roi_align(features, *arguments, aligned))
    cotangent = torch.randn_like(ours)
    gradient, expected = (torch.autograd.grad(x, features, cotangent)[0] for x in (ours, slow))
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_roi_align_layer_of_the_hosts():
    layer = mmcv.ops.RoIAlign((7, 7), spatial_scale=0.25, sampling_ratio=0)
    features = torch.randn(2, 3, 9, 11, requires_grad=True)
    pooled = layer(features, ROIS.float())
    torch.testing.assert_close(
        pooled, slow_roi_align(features, ROIS.float(), (7, 7), 0.25, 0, True), rtol=1e-4, atol=1e-5
    )
    assert layer(features, torch.zeros(0, 5)).shape == (0, 3, 7, 7)


def test_roi_align_gradient_of_a_strided_map():
    """Heads hand back gradients of any layout, and our backbone's maps are channels-last."""
    features = torch.randn(2, 3, 9, 11, dtype=torch.float64)
    strided = features.contiguous(memory_format=torch.channels_last).requires_grad_()
    features.requires_grad_()
    for x in (features, strided):
        pooled = mmcv.ops.roi_align(x, ROIS, (4, 4), 0.25, 2, 'avg', True)
        pooled.transpose(2, 3).square().sum().backward()
    torch.testing.assert_close(strided.grad, features.grad)


@only_stand_in
def test_roi_align_of_bfloat16_maps_keeps_the_coordinates_exact():
    features = torch.randn(1, 2, 200, 300).bfloat16()
    rois = torch.tensor([[0, 801.3, 555.7, 1003.1, 700.9], [0, 1101.7, 3.3, 1187.9, 777.1]])
    results = []
    for x in (features, features.float()):
        x.requires_grad_()
        pooled = mmcv.ops.roi_align(x, rois, (5, 5), 0.25, 2, 'avg', True)
        pooled.float().sum().backward()
        results.append((pooled.float(), x.grad.float()))
    for rough, exact in zip(*results, strict=True):
        torch.testing.assert_close(rough, exact, rtol=2**-8, atol=1e-4)


@only_stand_in
def test_other_ops_import_and_say_what_they_need_when_called():
    corners = importlib.import_module('mmcv.ops').min_area_polygons
    with pytest.raises(NotImplementedError, match=r"min_area_polygons needs mmcv's.*pip install"):
        corners(torch.rand(2, 18))


@only_stand_in
def test_the_stand_in_has_no_invented_attributes():
    """Python and mmengine probe modules for dunder names; an answer to those would mislead them."""
    extension = importlib.import_module('mmcv._ext')
    assert not hasattr(extension, '__path__')
    assert not hasattr(extension, '__wrapped__')
    assert callable(extension.anything_else)


def focal_reference(
    logits: Tensor, target: Tensor, gamma: float, alpha: float, class_weight: Tensor | None
) -> Tensor:
    classes = logits.size(1)
    row_weight = None
    if class_weight is not None:
        row_weight = torch.stack(
            [class_weight[t] if t < classes else class_weight.new_ones(()) for t in target]
        )
    one_hot = F.one_hot(target, classes + 1)[:, :classes]
    return py_sigmoid_focal_loss(logits, one_hot, row_weight, gamma, alpha, reduction='none')


@only_stand_in
@pytest.mark.parametrize('weighted', [False, True], ids=['plain', 'class_weight'])
@pytest.mark.parametrize(('gamma', 'alpha'), [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
@pytest.mark.parametrize('reduction', ['none', 'sum', 'mean'])
def test_sigmoid_focal_loss(reduction: str, gamma: float, alpha: float, weighted: bool):
    classes = 5
    logits = (3 * torch.randn(40, classes, dtype=torch.float64)).requires_grad_()
    target = torch.arange(40) % (classes + 1)  # the last is the background
    class_weight = torch.rand(classes, dtype=torch.float64) + 0.5 if weighted else None
    ours = mmcv.ops.sigmoid_focal_loss(logits, target, gamma, alpha, class_weight, reduction)
    each = focal_reference(logits, target, gamma, alpha, class_weight)
    expected = {'none': each, 'sum': each.sum(), 'mean': each.sum() / len(target)}[reduction]
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn_like(ours)
    gradient, wanted = (torch.autograd.grad(x, logits, cotangent)[0] for x in (ours, expected))
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


@only_stand_in
def test_sigmoid_focal_loss_of_no_rows():
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.zeros(0, dtype=torch.long), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss == 0
    assert logits.grad.shape == (0, 4)


def test_mmdets_focal_loss_on_the_cpu():
    logits, target = torch.randn(12, 5), torch.arange(12) % 6
    loss = FocalLoss(reduction='sum')(logits, target)
    torch.testing.assert_close(loss, focal_reference(logits, target, 2.0, 0.25, None).sum())
