"""A 3x3 convolution of maps that are enlarged first, computed at the maps' own resolution.

Bilinear enlarging mixes pixels and a convolution's tap mixes channels, so the two commute:

    conv(enlarge(x)) = sum over taps t of shift_t(enlarge(W_t x))

W_t x costs the pixels of the small map. A small matrix for each axis enlarges and shifts it, so that
everything is a matrix product. Exact in real arithmetic. Maps for which that saves nothing are enlarged and
convolved, with a quarter of the multiplications if they are large (``winograd.py``).
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
    reduction = winograd.REDUCTION if winograd.is_faster(maps[0].shape, weight.shape) else 1
    at_own_size = [saves_multiplications(x.shape, size, weight.size(2), reduction) for x in maps]
    together = [i for i, own in enumerate(at_own_size) if not own]
    enlarged = _concatenate([_enlarge(maps[i], size, align_corners) for i in together])
    result = _convolve(enlarged, _concatenate([parts[i] for i in together]))
    result = result.permute(0, 2, 3, 1).contiguous()  # (B, H, W, C_out)
    for x, part, own in zip(maps, parts, at_own_size, strict=True):
        if own:
            result = _add_conv_of_resized(result, x, part, align_corners)
    return result.permute(0, 3, 1, 2)


def saves_multiplications(shape: Sequence[int], size: Sequence[int], taps: int, reduction: int) -> bool:
    """Whether a map (B, C, h, w) takes fewer multiplications at its own size than enlarged to H, W.

    For each output channel and row of taps they are K (C h w + h w W) + h H W: the convolution, and enlarging
    along two axes. For the enlarged map they are K C H W, divided by the ``reduction`` of the convolution.
    """
    (_, channels, low_height, low_width), (height, width) = shape, size
    at_own_size = taps * (channels + width) * low_height * low_width + low_height * height * width
    return at_own_size < taps * channels * height * width / reduction


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C_out, H, W)."""
    if winograd.is_faster(x.shape, weight.shape):
        return winograd.conv3x3(x, weight)
    x = x.contiguous(memory_format=torch.channels_last)
    return F.conv2d(x, weight, padding=weight.size(2) // 2)


def _concatenate(tensors: list[Tensor]) -> Tensor:
    """Along the channels; one tensor is not copied."""
    return torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0]


def _enlarge(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode='bilinear', align_corners=align_corners)


def _add_conv_of_resized(result: Tensor, x: Tensor, weight: Tensor, align_corners: bool) -> Tensor:
    """``result`` (B, H, W, C_out) plus the convolution of x (B, C, h, w) enlarged to H, W.

    One row of taps at a time, so that intermediate tensors have a few times h w C_out numbers for each image.
    For a row: W_t x of its taps, then w -> W, shifted by each tap, then h -> H, shifted by the row and added.
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
        projected = tokens @ tap_row.permute(1, 2, 0).flatten(1)  # (B h w, K C_out)
        wide = columns @ projected.view(batch * low_height, low_width * taps, out)
        wide = wide.view(batch, low_height, width * out)
        result.baddbmm_(row.expand(batch, -1, -1), wide)
    return result.view(batch, height, width, out)


@eager_cache(maxsize=64)
@torch.no_grad()
def shifted_resizing(
    size: int, to: int, taps: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """(taps, to, size) matrices that resize one axis from ``size`` to ``to`` and shift it by each tap.

    Row p of tap t is row p + t - taps // 2 of the resizing, or zero where that lies outside: the convolution
    pads the enlarged map with zeros.
    """
    one_hot = torch.eye(size, dtype=torch.float64, device='cpu').unsqueeze(0)  # channels are the sources
    resizing = F.interpolate(one_hot.unsqueeze(2), (1, to), mode='bilinear', align_corners=align_corners)
    resizing = F.pad(resizing[0, :, 0].T, (0, 0, taps // 2, taps // 2))  # (to + taps - 1, size)
    return torch.stack([resizing[tap : tap + to] for tap in range(taps)]).to(device, dtype)
