"""A 3x3 convolution of maps that are enlarged first, computed at the maps' own resolution.

Bilinear enlarging mixes pixels and a convolution's tap mixes channels, so the two commute:

    conv(enlarge(x)) = sum over taps t of shift_t(enlarge(W_t x))

W_t x costs the pixels of the small map. Enlarging and shifting are products with small matrices, one for
each axis, so that everything is a matrix product. Exact in real arithmetic. Maps for which that saves
nothing are enlarged and convolved, with a quarter of the products if they are large (``winograd.py``).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.kernels import winograd
from swin_dense.kernels.eager import eager_cache


def conv_of_resized(maps: Sequence[Tensor], weight: Tensor, align_corners: bool) -> Tensor:
    """Convolve the maps side by side, each enlarged (bilinear) to the size of the first one.

    Equals ``F.conv2d(torch.cat([first, *enlarged_others], dim=1), weight, padding='same')`` but for rounding.

    Args:
        maps: (B, C_i, H_i, W_i), the first one of the output's size H, W.
        weight: (C_out, sum of C_i, K, K), K odd.
        align_corners: as in ``F.interpolate``.

    Returns:
        (B, C_out, H, W), channels-last in memory.
    """
    size = maps[0].shape[2:]
    parts = weight.split([x.size(1) for x in maps], dim=1)
    fewer = winograd.FEWER if winograd.serves(maps[0], weight) else 1
    at_own = [saves_products(x.shape, size, weight.size(2), fewer) for x in maps]
    enlarged = _side_by_side(
        [_enlarge(x, size, align_corners) for x, own in zip(maps, at_own, strict=True) if not own]
    )
    kernel = _side_by_side([part for part, own in zip(parts, at_own, strict=True) if not own])
    if winograd.serves(enlarged, kernel):
        result = winograd.conv3x3(enlarged, kernel)
    else:
        enlarged = enlarged.contiguous(memory_format=torch.channels_last)
        result = F.conv2d(enlarged, kernel, padding=weight.size(2) // 2)
    result = result.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C_out)
    for x, part, own in zip(maps, parts, at_own, strict=True):
        if own:
            result = _add_conv_of_resized(result, x, part, align_corners)
    return result.permute(0, 3, 1, 2)


def saves_products(shape: Sequence[int], size: Sequence[int], taps: int, fewer: int) -> bool:
    """Whether a map (B, C, h, w) takes fewer multiplications at its own resolution than enlarged to H, W.

    For each output channel and row of taps: K C H W directly, or as many times ``fewer`` as the convolution
    saves; else K C h w, and K h w W + h H W to enlarge.
    """
    (_, channels, low_height, low_width), (height, width) = shape, size
    at_own = taps * (channels + width) * low_height * low_width + low_height * height * width
    return at_own < taps * channels * height * width / fewer


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0]


def _enlarge(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


def _add_conv_of_resized(result: Tensor, x: Tensor, weight: Tensor, align_corners: bool) -> Tensor:
    """``result`` (B, H, W, C_out) plus the convolution of x (B, C, h, w) enlarged to H, W.

    One row of taps at a time, which bounds what lies between to a few times h w C_out numbers an image: W_t x
    for the taps of the row, then w -> W with the taps' shifts along it, then h -> H with the row's, added up.
    """
    batch, height, width, out = result.shape
    channels, low_height, low_width = x.shape[1:]
    taps = weight.size(2)
    tokens = x.permute(0, 2, 3, 1).reshape(-1, channels)
    columns = shifted_resizing(low_width, width, taps, align_corners, x.device, x.dtype)
    columns = columns.permute(1, 2, 0).flatten(1)  # (W, w * K)
    rows = shifted_resizing(low_height, height, taps, align_corners, x.device, x.dtype)
    result = result.view(batch, height, -1)
    for row, tap_row in zip(rows, weight.unbind(2), strict=True):
        products = tokens @ tap_row.permute(1, 2, 0).flatten(1)  # (B h w, K C_out)
        wide = columns @ products.view(batch * low_height, low_width * taps, out)
        wide = wide.view(batch, low_height, width * out)
        result.baddbmm_(row.expand(batch, -1, -1), wide)
    return result.view(batch, height, width, out)


@eager_cache(maxsize=64)
@torch.no_grad()
def shifted_resizing(
    size: int, to: int, taps: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(taps, to, size) matrices that resize one axis from ``size`` to ``to`` and shift it by each tap.

    Row p of tap t is row p + t - taps // 2 of the resizing, or zero where that lies outside: a
    convolution pads what is enlarged.
    """
    one_hot = torch.eye(size, dtype=torch.float64, device='cpu').unsqueeze(0)  # channels are the sources
    resizing = F.interpolate(one_hot.unsqueeze(2), (1, to), mode='bilinear', align_corners=align_corners)
    resizing = F.pad(resizing[0, :, 0].T, (0, 0, taps // 2, taps // 2))  # (to + taps - 1, size)
    return torch.stack([resizing[tap : tap + to] for tap in range(taps)]).to(device, dtype)
