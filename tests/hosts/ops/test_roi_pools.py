"""RoIPool, RoIAlign by maximum and deformable RoI pooling, against loops over their definitions."""

import math

import mmcv.ops
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align as torchvision_roi_align

from tests.gradients import assert_same
from tests.hosts.ops import slow_samples

ROIS = torch.tensor(
    [
        [0, 4.0, 6.0, 30.0, 26.0],
        [1, 0.0, 0.0, 47.0, 39.0],
        [1, 10.3, 11.7, 12.1, 30.9],
        [0, -9.0, -7.0, 20.0, 60.0],
        [1, 46.0, 38.0, 70.0, 80.0],
        [0, 200.0, 200.0, 240.0, 230.0],
    ],
    dtype=torch.float64,
)


@pytest.fixture
def features() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 10, 12, dtype=torch.float64, requires_grad=True)


def roi_pool_reference(features: Tensor, roi: list[float], size: tuple[int, int], scale: float) -> Tensor:
    """The largest cell of each bin, whose borders are rounded outwards; the last pixel belongs to the RoI."""
    image, x1, y1, x2, y2 = int(roi[0]), *(side * scale for side in (roi[1], roi[2], roi[3] + 1, roi[4] + 1))
    rows = []
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = (
                math.floor(low + k * (high - low) / n)
                for low, high, k, n in ((y1, y2, i, size[0]), (x1, x2, j, size[1]))
            )
            bottom, right = (
                math.ceil(low + (k + 1) * (high - low) / n)
                for low, high, k, n in ((y1, y2, i, size[0]), (x1, x2, j, size[1]))
            )
            part = features[image, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
            rows.append(part.amax((1, 2)) if part.numel() else features.new_zeros(features.size(1)))
    return torch.stack(rows, 1).view(-1, *size)


def test_roi_pool(features: Tensor):
    ours = mmcv.ops.roi_pool(features, ROIS, (3, 4), 0.25)
    expected = torch.stack([roi_pool_reference(features, roi, (3, 4), 0.25) for roi in ROIS.tolist()])
    assert (expected[-1] == 0).all(), 'a RoI outside the map'
    assert_same(ours, expected, [features])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_by_maximum(features: Tensor, ratio: int, aligned: bool):
    ours = mmcv.ops.roi_align(features, ROIS, (3, 4), 0.25, ratio, 'max', aligned)
    expected = torch.stack(
        [
            slow_samples.pooled(features, roi, (3, 4), 0.25, ratio, aligned, None, 'max')
            for roi in ROIS.tolist()
        ]
    )
    assert_same(ours, expected, [features])


def test_roi_align_by_maximum_of_no_area_is_mmcvs_lowest_number(features: Tensor):
    roi = torch.tensor([[0, 5, 5, 5, 5]], dtype=torch.float64)
    pooled = mmcv.ops.roi_align(features, roi, (2, 2), 0.25, 0, 'max', True)
    assert (pooled == torch.finfo(torch.float32).min).all()
    (gradient,) = torch.autograd.grad(pooled.sum(), features)
    assert (gradient == 0).all()


@pytest.mark.parametrize('ratio', [0, 2])
def test_deformable_roi_pooling(features: Tensor, ratio: int):
    offset = torch.randn(len(ROIS), 2, 3, 4, dtype=torch.float64, requires_grad=True)
    ours = mmcv.ops.deform_roi_pool(features, ROIS, offset, (3, 4), 0.25, ratio, 0.5)
    expected = torch.stack(
        [
            slow_samples.pooled(features, roi, (3, 4), 0.25, ratio, True, 0.5 * moves, 'mean')
            for roi, moves in zip(ROIS.tolist(), offset, strict=True)
        ]
    )
    assert_same(ours, expected, [features, offset])


def test_deformable_roi_pooling_without_offsets_is_roi_align(features: Tensor):
    ours = mmcv.ops.deform_roi_pool(features, ROIS, None, (3, 4), 0.25, 2, 0.1)
    assert_same(ours, torchvision_roi_align(features, ROIS, (3, 4), 0.25, 2, True), [features])


def test_chunks_of_bins_change_nothing(features: Tensor, monkeypatch: pytest.MonkeyPatch):
    from swin_dense.hosts.ops import bilinear

    whole = mmcv.ops.roi_align(features, ROIS, (3, 4), 0.25, 0, 'max', True)
    offset = torch.randn(len(ROIS), 2, 3, 4, dtype=torch.float64)
    moved = mmcv.ops.deform_roi_pool(features, ROIS, offset, (3, 4), 0.25, 0, 0.5)
    monkeypatch.setattr(bilinear, 'VALUES', 50)
    assert torch.equal(mmcv.ops.roi_align(features, ROIS, (3, 4), 0.25, 0, 'max', True), whole)
    assert torch.equal(mmcv.ops.deform_roi_pool(features, ROIS, offset, (3, 4), 0.25, 0, 0.5), moved)
