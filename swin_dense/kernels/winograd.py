"""3x3 convolutions on the CPU with a quarter of the multiplications (Lavin and Gray 2016, F(4x4, 3x3)).

A tile of 6x6 pixels makes 4x4 pixels of output. Row by row, then column by column, six pixels and three
taps are taken as polynomials and evaluated at six points; values there are multiplied rather than
convolved, 36 products in place of 144, and four pixels of output are interpolated from them. Exact in real
arithmetic. The points are 0, 1/sqrt(2), -1/sqrt(2), sqrt(2), -sqrt(2) and infinity, which round less than
the usual 0, 1, -1, 2, -2 and infinity: in single precision as much as the convolution that sums 9 C numbers.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from swin_dense.kernels.eager import one_by_one
from swin_dense.kernels.linear import is_eager_on_cpu

POINTS = 6  # for each axis
TILE = 4  # pixels of output along each axis
FEWER = TILE**2 * 9 // POINTS**2  # products, by this factor: 144 / 36
TILES = 128  # at a time: few enough for the cache, many enough for the matrix products
FEWEST_TILES = 128  # which pay for evaluating the kernel
FEWEST_CHANNELS = 128  # which pay for evaluating the tiles
SQUARES = (0.5, 2.0)  # of the points but 0 and infinity; each is the other's reciprocal


def _evaluation() -> Tensor:
    """(36, 9) what evaluates a kernel: (6, 3) of each axis, with the distances of the points divided out."""
    taps = [[1.0, 0.0, 0.0]]  # at 0, whose distances to the four others multiply to 1
    for square in SQUARES:
        # from the point to 0, to its opposite, and to the two whose square is the reciprocal
        distances = 2 * square * (square - 1 / square)
        taps += ([1 / distances, sign * square**0.5 / distances, square / distances] for sign in (1, -1))
    taps.append([0.0, 0.0, 1.0])  # at infinity
    of_axis = torch.tensor(taps, dtype=torch.float64)
    return torch.kron(of_axis, of_axis)


EVALUATION = _evaluation()


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether ``conv3x3`` is the faster way for maps of this size: eager on the CPU, channels, pixels."""
    batch, _, height, width = x.shape
    return (
        is_eager_on_cpu(x)
        and weight.dtype == x.dtype
        and weight.shape[2:] == (3, 3)
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and batch * _tiles(height) * _tiles(width) >= FEWEST_TILES
    )


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` but for rounding.

    Args:
        x: (B, C, H, W).
        weight: (C_out, C, 3, 3).
        bias: (C_out,).

    Returns:
        (B, C_out, H, W), channels-last in memory.
    """
    return _Conv3x3.apply(x, weight, bias)


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    @one_by_one
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _convolve(grad, weight.flip(2, 3).transpose(0, 1), None) if of_x else None,
            _weight_gradient(x, grad) if of_weight else None,
            grad.sum((0, 2, 3)) if of_bias else None,
        )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batch, _, height, width = x.shape
    out = len(weight)
    size = (_tiles(height), _tiles(width))
    kernels = _evaluate_kernel(weight)
    maps = x.permute(0, 2, 3, 1)
    whole = (batch, out, TILE * size[0], TILE * size[1])
    result = torch.empty(whole, dtype=x.dtype, memory_format=torch.channels_last)
    by_tile = result.permute(0, 2, 3, 1).view(batch, size[0], TILE, size[1], TILE, out)
    for images, rows in _chunks(batch, *size):
        products = torch.bmm(_evaluate_tiles(_cut(maps[images], rows)), kernels)
        part = by_tile[images, rows]  # (b, n, 4, w, 4, C_out)
        _interpolate(products.view(POINTS, POINTS, *part.shape[:2], size[1], out), part)
        if bias is not None:
            part += bias
    if whole[2:] == (height, width):
        return result  # not as a view of itself, which nobody might change in place
    return result[..., :height, :width].contiguous(memory_format=torch.channels_last)


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """(C_out, C, 3, 3), from (B, C, H, W) and the gradient of the output (B, C_out, H, W)."""
    (batch, channels, height, width), out = x.shape, grad.size(1)
    size = (_tiles(height), _tiles(width))
    maps, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    total = x.new_zeros(POINTS**2, out, channels)
    for images, rows in _chunks(batch, *size):
        tiles = _evaluate_tiles(_cut(maps[images], rows))
        total.baddbmm_(_evaluate_gradient(_cut(grads[images], rows)).transpose(1, 2), tiles)
    return (total.view(POINTS**2, -1).t() @ EVALUATION.to(x.dtype)).view(out, channels, 3, 3)


def _tiles(pixels: int) -> int:
    return -(-pixels // TILE)


def _chunks(batch: int, height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles that make about ``TILES`` tiles: of one image, or all of several."""
    images = max(1, TILES // (height * width))
    rows = min(height, max(1, round(TILES / width)))
    for first in range(0, batch, images):
        for top in range(0, height, rows):
            yield slice(first, first + images), slice(top, min(top + rows, height))


def _cut(maps: Tensor, rows: slice) -> Tensor:
    """(b, H, W, C) -> (b, 4 n + 2, 4 w + 2, C): n rows of w tiles, a pixel around them, zeros outside."""
    _, height, width, _ = maps.shape
    top, bottom = TILE * rows.start - 1, TILE * rows.stop + 1
    inside = maps[:, max(top, 0) : bottom]
    below = bottom - min(bottom, height)
    return F.pad(inside, (0, 0, 1, 1 + TILE * _tiles(width) - width, max(-top, 0), below))


def _evaluate_kernel(weight: Tensor) -> Tensor:
    """(C_out, C, 3, 3) -> (36, C, C_out)."""
    evaluation = EVALUATION.to(weight.dtype)
    return (evaluation @ weight.reshape(-1, 9).t()).view(-1, *weight.shape[:2]).transpose(1, 2)


def _evaluate_tiles(x: Tensor) -> Tensor:
    """(b, 4 n + 2, 4 w + 2, C) -> (36, b n w, C)."""
    batch, height, width, channels = x.shape
    rows, columns = height // TILE, width // TILE
    along = x.new_empty(POINTS, batch, rows, width, channels)
    _evaluate([x[:, i : i + TILE * rows : TILE] for i in range(POINTS)], along)
    result = x.new_empty(POINTS, POINTS, batch, rows, columns, channels)
    _evaluate([along[..., i : i + TILE * columns : TILE, :] for i in range(POINTS)], result.transpose(0, 1))
    return result.view(POINTS**2, -1, channels)


def _evaluate(pixels: Sequence[Tensor], values: Tensor) -> None:
    """Six pixels' sums for the six points: the other points' polynomial, the pixels as its powers."""
    torch.sub(pixels[4], pixels[2], alpha=sum(SQUARES), out=values[0]).add_(pixels[0])
    torch.sub(pixels[5], pixels[3], alpha=sum(SQUARES), out=values[5]).add_(pixels[1])
    for i, square in zip((1, 3), SQUARES, strict=True):
        even = torch.sub(pixels[4], pixels[2], alpha=1 / square)
        odd = torch.sub(pixels[3], pixels[1], alpha=1 / square)
        torch.add(even, odd, alpha=square**0.5, out=values[i])
        torch.sub(even, odd, alpha=square**0.5, out=values[i + 1])


def _interpolate(products: Tensor, result: Tensor) -> None:
    """(6, 6, b, n, w, C) -> (b, n, 4, w, 4, C)."""
    _, *shape = products.shape
    along = products.new_empty(TILE, *shape)
    _sum_powers(products, along)
    _sum_powers(along.transpose(0, 1), result.permute(4, 2, 0, 1, 3, 5))


def _sum_powers(values: Tensor, pixels: Tensor) -> None:
    """Four pixels from six values: each the sum of the values times its power, 0 to 3, of their points."""
    (small, large), (first, second) = SQUARES, (square**0.5 for square in SQUARES)
    even, even_large = values[1] + values[2], values[3] + values[4]
    torch.add(values[0], even, out=pixels[0]).add_(even_large)
    torch.mul(even, small, out=pixels[2]).add_(even_large, alpha=large)
    odd = torch.sub(values[1], values[2], out=even)
    odd_large = torch.sub(values[3], values[4], out=even_large)
    torch.mul(odd, first, out=pixels[1]).add_(odd_large, alpha=second)
    torch.add(values[5], odd, alpha=small * first, out=pixels[3]).add_(odd_large, alpha=large * second)


def _evaluate_gradient(grad: Tensor) -> Tensor:
    """(b, 4 n + 2, 4 w + 2, C), a pixel around the tiles -> (36, b n w, C), the gradient of the products."""
    grad = grad[:, 1:-1, 1:-1]
    batch, height, width, channels = grad.shape
    rows, columns = height // TILE, width // TILE
    along = grad.new_empty(POINTS, batch, rows, width, channels)
    _take_powers([grad[:, i::TILE] for i in range(TILE)], along)
    result = grad.new_empty(POINTS, POINTS, batch, rows, columns, channels)
    _take_powers([along[..., i::TILE, :] for i in range(TILE)], result.transpose(0, 1))
    return result.view(POINTS**2, -1, channels)


def _take_powers(pixels: Sequence[Tensor], values: Tensor) -> None:
    """The transpose of ``_sum_powers``: six values from four pixels."""
    values[0].copy_(pixels[0])
    values[5].copy_(pixels[3])
    for i, square in zip((1, 3), SQUARES, strict=True):
        even = torch.add(pixels[0], pixels[2], alpha=square)
        odd = torch.add(pixels[1], pixels[3], alpha=square)
        torch.add(even, odd, alpha=square**0.5, out=values[i])
        torch.sub(even, odd, alpha=square**0.5, out=values[i + 1])
