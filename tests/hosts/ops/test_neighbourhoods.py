"""CARAFE, point-wise spatial attention and masked convolution, against loops over their definitions."""

import mmcv.ops
import pytest
import torch
from mmcv.ops.carafe import carafe
from torch import Tensor, nn

from tests.gradients import assert_same


def carafe_reference(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int) -> Tensor:
    """CARAFE, eq. 2: each output cell is a weighted sum of the k x k cells around its source."""
    batch, channels, height, width = features.shape
    result = []
    for n in range(batch):
        for c in range(channels):
            group = c // (channels // groups)
            for y in range(height * scale):
                for x in range(width * scale):
                    total = features.new_zeros(())
                    for k in range(kernel**2):
                        i = y // scale + k // kernel - kernel // 2
                        j = x // scale + k % kernel - kernel // 2
                        if 0 <= i < height and 0 <= j < width:
                            total = total + features[n, c, i, j] * masks[n, group * kernel**2 + k, y, x]
                    result.append(total)
    return torch.stack(result).view(batch, channels, height * scale, width * scale)


@pytest.mark.parametrize(('kernel', 'groups', 'scale'), [(3, 1, 2), (5, 2, 1), (3, 4, 3)])
def test_carafe(kernel: int, groups: int, scale: int):
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, groups * kernel**2, 3 * scale, 4 * scale, dtype=torch.float64, requires_grad=True)
    ours = carafe(features, masks, kernel, groups, scale)
    expected = carafe_reference(features, masks, kernel, groups, scale)
    assert_same(ours, expected, (features, masks))
    naive = mmcv.ops.carafe_naive(features.detach(), masks.detach(), kernel, groups, scale)
    torch.testing.assert_close(naive, expected, rtol=1e-10, atol=1e-10)


def psa_reference(masks: Tensor, kind: str, size: tuple[int, int]) -> Tensor:
    """PSANet, section 3.2: the mask of cell (h, w) is centred on it and cut at the map's border."""
    batch, _, height, width = masks.shape
    result = masks.new_zeros(batch, height * width, height, width)
    for h in range(height):
        for w in range(width):
            for k in range(size[0] * size[1]):
                y, x = h + k // size[1] - (size[0] - 1) // 2, w + k % size[1] - (size[1] - 1) // 2
                if 0 <= y < height and 0 <= x < width:
                    if kind == 'collect':
                        result[:, y * width + x, h, w] = masks[:, k, h, w]
                    else:
                        result[:, h * width + w, y, x] = masks[:, k, h, w]
    return result


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
@pytest.mark.parametrize('size', [(3, 3), (7, 9), (5, 3)], ids=str)
def test_point_wise_spatial_attention(kind: str, size: tuple[int, int]):
    torch.manual_seed(0)
    masks = torch.randn(2, size[0] * size[1], 4, 5, dtype=torch.float64, requires_grad=True)
    ours, expected = mmcv.ops.PSAMask(kind, size)(masks), psa_reference(masks, kind, size)
    assert_same(ours, expected, [masks], tolerance=0.0)


def test_a_masked_convolution_is_the_convolution_where_the_mask_is_set():
    torch.manual_seed(0)
    layer = mmcv.ops.MaskedConv2d(3, 5, (3, 5), padding=(1, 2)).double()
    x, mask = torch.randn(1, 3, 6, 7, dtype=torch.float64), torch.rand(1, 6, 7) > 0.5
    with torch.no_grad():
        masked, whole = layer(x, mask), nn.functional.conv2d(x, layer.weight, layer.bias, padding=(1, 2))
        assert mask.any()
        torch.testing.assert_close(masked, whole * mask, rtol=1e-10, atol=1e-10)
        assert (layer(x, torch.zeros_like(mask)) == 0).all()
