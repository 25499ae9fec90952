"""RoIAlign by matrices equals torchvision's operator, which visits the samples one by one."""

import pytest
import torch
from torch import Tensor

from swin_dense.hosts.ops import rois as stand_in
from swin_dense.kernels import roi_align

torchvision_forward = torch.ops.torchvision.roi_align
torchvision_backward = torch.ops.torchvision._roi_align_backward
SHAPE = (2, 5, 21, 30)
SCALE = 0.25
ODD = [
    # x1, y1, x2, y2 on an image of 84 x 120 pixels
    (-30.0, -30.0, -20.0, -20.0),  # outside
    (200.0, 10.0, 240.0, 40.0),
    (-10.0, -10.0, 130.0, 100.0),  # larger than the image
    (30.0, 20.0, 30.0, 20.0),  # empty
    (30.0, 20.0, 20.0, 10.0),  # turned around
    (-4.0, -4.0, 4.0, 4.0),  # samples at a cell beyond the border
    (112.0, 76.0, 124.0, 88.0),
    (0.0, 0.0, 28.0, 28.0),  # bins of whole cells
    (7.0, 0.0, 7.5, 84.0),
]


def random_rois(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    corner = torch.rand(count, 2, dtype=dtype) * torch.tensor([130.0, 90.0]) - 10
    boxes = torch.cat([corner, corner + torch.rand(count, 2, dtype=dtype) * 80], dim=1)
    boxes = torch.cat([boxes, torch.tensor(ODD, dtype=dtype)])
    return torch.cat([torch.randint(2, (len(boxes), 1)).to(dtype), boxes], dim=1)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 1, 2, 5])
@pytest.mark.parametrize('size', [(7, 7), (14, 14), (3, 5), (1, 1)])
class TestEquals:
    def test_forward(self, size: tuple[int, int], sampling_ratio: int, aligned: bool):
        features, rois = torch.randn(SHAPE, dtype=torch.float64), random_rois(40)
        expected = torchvision_forward(features, rois, SCALE, *size, sampling_ratio, aligned)
        for layout in (torch.contiguous_format, torch.channels_last):
            maps = features.contiguous(memory_format=layout)
            pooled = roi_align.forward(maps, rois, size, SCALE, sampling_ratio, aligned)
            torch.testing.assert_close(pooled, expected, rtol=0, atol=1e-12)

    def test_backward(self, size: tuple[int, int], sampling_ratio: int, aligned: bool):
        rois = random_rois(40)
        grad = torch.randn(len(rois), SHAPE[1], *size, dtype=torch.float64)
        expected = torchvision_backward(grad, rois, SCALE, *size, *SHAPE, sampling_ratio, aligned)
        result = roi_align.backward(grad, rois, torch.Size(SHAPE), SCALE, sampling_ratio, aligned)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_single_precision():
    features, rois = torch.randn(SHAPE), random_rois(200, torch.float32)
    expected = torchvision_forward(features, rois, SCALE, 7, 7, 0, True)
    pooled = roi_align.forward(features, rois, (7, 7), SCALE, 0, True)
    assert (pooled - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype: torch.dtype):
    features, rois = torch.randn(SHAPE, dtype=dtype), random_rois(40, dtype)
    grad = torch.randn(len(rois), SHAPE[1], 7, 7, dtype=dtype)
    without = roi_align.forward(features, rois, (7, 7), SCALE, 0, True)
    without_backward = roi_align.backward(grad, rois, torch.Size(SHAPE), SCALE, 0, True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(roi_align.forward(features, rois, (7, 7), SCALE, 0, True), without)
        backward = roi_align.backward(grad, rois, torch.Size(SHAPE), SCALE, 0, True)
    assert torch.equal(backward, without_backward)


def test_no_rois():
    assert roi_align.forward(torch.randn(SHAPE), torch.zeros(0, 5), (7, 7), SCALE, 0, True).shape == (
        0,
        5,
        7,
        7,
    )
    grad = roi_align.backward(torch.zeros(0, 5, 7, 7), torch.zeros(0, 5), torch.Size(SHAPE), SCALE, 0, True)
    assert torch.equal(grad, torch.zeros(SHAPE))


def test_threads_are_given_back():
    before = torch.get_num_threads()
    roi_align.forward(torch.randn(SHAPE), random_rois(3, torch.float32), (7, 7), SCALE, 0, True)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e9])
def test_rois_of_no_sensible_size_are_torchvisions(bad: float):
    rois = random_rois(3, torch.float32)
    assert roi_align.is_preferred(rois, SCALE)
    rois[1, 3] = bad
    assert not roi_align.is_preferred(rois, SCALE)


def test_the_stand_in_takes_it(monkeypatch: pytest.MonkeyPatch):
    features, rois = torch.randn(SHAPE), random_rois(3, torch.float32)
    output, grad = torch.zeros(len(rois), 5, 7, 7), torch.zeros(SHAPE)
    common = (7, 7, SCALE, 0, stand_in.MEAN, True)

    def no_loops(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch.ops.torchvision, 'roi_align', no_loops)
    monkeypatch.setattr(torch.ops.torchvision, '_roi_align_backward', no_loops)
    stand_in.roi_align_forward(features, rois, output, *[torch.empty(0)] * 2, *common)
    stand_in.roi_align_backward(output, rois, *[torch.empty(0)] * 2, grad, *common)
    assert output.any()
    assert grad.any()
