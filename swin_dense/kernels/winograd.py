"""3x3 convolutions on the CPU with a quarter of the multiplications (Lavin and Gray 2016, F(4x4, 3x3)).

A tile of 6x6 input pixels makes 4x4 output pixels. The input transform (B^T d B), the filter transform
(G g G^T) and the output transform (A^T m A) act along rows, then along columns. Between them 36 values are
multiplied in place of 144. Exact in real arithmetic.

The transforms come from polynomial interpolation at six points: 0, 1/sqrt(2), -1/sqrt(2), sqrt(2), -sqrt(2)
and infinity. These round less than the usual 0, 1, -1, 2, -2 and infinity: in single precision the error is
that of a convolution that sums 9 C numbers.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.kernels.eager import Context, Gradients, for_each_gradient

INPUT_TILE = 6  # pixels along each axis, as many as interpolation points
OUTPUT_TILE = 4
REDUCTION = OUTPUT_TILE**2 * 9 // INPUT_TILE**2  # of the multiplications: 144 / 36
TILES_AT_ONCE = 128  # few enough for the cache, many enough for efficient matrix products
MIN_TILES = 128  # with fewer the filter transform costs more than is saved
MIN_CHANNELS = 128  # with fewer the input and output transforms cost more than is saved
SQUARES = (0.5, 2.0)  # of the finite points but 0; each is the other's reciprocal


def _filter_transform() -> Tensor:
    """(36, 9), the Kronecker product of G (6, 3) with itself; G divides by the distances of the points."""
    rows = [[1.0, 0.0, 0.0]]  # at 0, whose distances to the four others multiply to 1
    for square in SQUARES:
        # from the point to 0, to its opposite, and to the two whose square is the reciprocal
        distances = 2 * square * (square - 1 / square)
        rows += ([1 / distances, sign * square**0.5 / distances, square / distances] for sign in (1, -1))
    rows.append([0.0, 0.0, 1.0])  # at infinity
    g = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(g, g)


FILTER_TRANSFORM = _filter_transform()


def is_faster(size: Sequence[int], weight_size: Sequence[int]) -> bool:
    """Whether ``conv3x3`` was measured to be faster than torch's convolution for these sizes.

    Args:
        size: of the maps, (B, C, H, W).
        weight_size: of the weight, (C_out, C, K, K).
    """
    batch, _, height, width = size
    return (
        tuple(weight_size[2:]) == (3, 3)
        and min(weight_size[:2]) >= MIN_CHANNELS
        and batch * _tiles(height) * _tiles(width) >= MIN_TILES
    )


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` but for rounding; differentiable once.

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
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    @once_differentiable
    @for_each_gradient
    def backward(ctx: Context, grad: Tensor) -> Gradients:
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
    rows, columns = _tiles(height), _tiles(width)
    filters = _transform_filter(weight)
    maps = x.permute(0, 2, 3, 1)
    whole = (batch, out, OUTPUT_TILE * rows, OUTPUT_TILE * columns)
    result = torch.empty(whole, dtype=x.dtype, memory_format=torch.channels_last)
    by_tile = result.permute(0, 2, 3, 1).view(batch, rows, OUTPUT_TILE, columns, OUTPUT_TILE, out)
    for images, some_rows in _chunks(batch, rows, columns):
        transformed = torch.bmm(_transform_input(_cut(maps[images], some_rows)), filters)
        part = by_tile[images, some_rows]  # (b, n, 4, w, 4, C_out)
        _transform_output(transformed.view(INPUT_TILE, INPUT_TILE, *part.shape[:2], columns, out), part)
        if bias is not None:
            part += bias
    if whole[2:] == (height, width):
        return result  # not as a view of itself, which nobody might change in place
    return result[..., :height, :width].contiguous(memory_format=torch.channels_last)


def _weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """(C_out, C, 3, 3), from (B, C, H, W) and the gradient of the output (B, C_out, H, W)."""
    (batch, channels, height, width), out = x.shape, grad.size(1)
    maps, grads = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    total = x.new_zeros(INPUT_TILE**2, out, channels)
    for images, rows in _chunks(batch, _tiles(height), _tiles(width)):
        tiles = _transform_input(_cut(maps[images], rows))
        total.baddbmm_(_transform_output_gradient(_cut(grads[images], rows)).transpose(1, 2), tiles)
    weight_grad = total.view(INPUT_TILE**2, -1).t() @ FILTER_TRANSFORM.to(x.dtype)
    return weight_grad.view(out, channels, 3, 3)


def _tiles(pixels: int) -> int:
    return -(-pixels // OUTPUT_TILE)


def _chunks(batch: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Images and rows of tiles, about ``TILES_AT_ONCE`` tiles: rows of one image, or all rows of several."""
    images = max(1, TILES_AT_ONCE // (rows * columns))
    some_rows = min(rows, max(1, round(TILES_AT_ONCE / columns)))
    for first in range(0, batch, images):
        for top in range(0, rows, some_rows):
            yield slice(first, first + images), slice(top, min(top + some_rows, rows))


def _cut(maps: Tensor, rows: slice) -> Tensor:
    """(b, H, W, C) -> (b, 4 n + 2, 4 w + 2, C): n rows of w tiles and a pixel around them, zeros outside."""
    _, height, width, _ = maps.shape
    top, bottom = OUTPUT_TILE * rows.start - 1, OUTPUT_TILE * rows.stop + 1
    inside = maps[:, max(top, 0) : bottom]
    below = bottom - min(bottom, height)
    return F.pad(inside, (0, 0, 1, 1 + OUTPUT_TILE * _tiles(width) - width, max(-top, 0), below))


def _transform_filter(weight: Tensor) -> Tensor:
    """G g G^T: (C_out, C, 3, 3) -> (36, C, C_out)."""
    transform = FILTER_TRANSFORM.to(weight.dtype)
    return (transform @ weight.reshape(-1, 9).t()).view(-1, *weight.shape[:2]).transpose(1, 2)


def _transform_input(x: Tensor) -> Tensor:
    """B^T d B: (b, 4 n + 2, 4 w + 2, C), a pixel around the tiles -> (36, b n w, C)."""
    batch, height, width, channels = x.shape
    rows, columns = height // OUTPUT_TILE, width // OUTPUT_TILE
    bottom, right = OUTPUT_TILE * rows, OUTPUT_TILE * columns
    half = x.new_empty(INPUT_TILE, batch, rows, width, channels)
    _transform_input_axis([x[:, i : i + bottom : OUTPUT_TILE] for i in range(INPUT_TILE)], half)
    result = x.new_empty(INPUT_TILE, INPUT_TILE, batch, rows, columns, channels)
    _transform_input_axis(
        [half[..., i : i + right : OUTPUT_TILE, :] for i in range(INPUT_TILE)], result.transpose(0, 1)
    )
    return result.view(INPUT_TILE**2, -1, channels)


def _transform_input_axis(pixels: Sequence[Tensor], values: Tensor) -> None:
    """B^T, six values from six pixels: each by the polynomial that has the other points as its roots."""
    torch.sub(pixels[4], pixels[2], alpha=sum(SQUARES), out=values[0]).add_(pixels[0])
    torch.sub(pixels[5], pixels[3], alpha=sum(SQUARES), out=values[5]).add_(pixels[1])
    for i, square in zip((1, 3), SQUARES, strict=True):
        even = torch.sub(pixels[4], pixels[2], alpha=1 / square)
        odd = torch.sub(pixels[3], pixels[1], alpha=1 / square)
        torch.add(even, odd, alpha=square**0.5, out=values[i])
        torch.sub(even, odd, alpha=square**0.5, out=values[i + 1])


def _transform_output(values: Tensor, result: Tensor) -> None:
    """A^T m A: (6, 6, b, n, w, C) -> (b, n, 4, w, 4, C)."""
    _, *shape = values.shape
    half = values.new_empty(OUTPUT_TILE, *shape)
    _transform_output_axis(values, half)
    _transform_output_axis(half.transpose(0, 1), result.permute(4, 2, 0, 1, 3, 5))


def _transform_output_axis(values: Tensor, pixels: Tensor) -> None:
    """A^T, four pixels from six values: pixel k sums each value times the k-th power of its point."""
    (small, large), (first, second) = SQUARES, (square**0.5 for square in SQUARES)
    even, even_large = values[1] + values[2], values[3] + values[4]
    torch.add(values[0], even, out=pixels[0]).add_(even_large)
    torch.mul(even, small, out=pixels[2]).add_(even_large, alpha=large)
    odd = torch.sub(values[1], values[2], out=even)
    odd_large = torch.sub(values[3], values[4], out=even_large)
    torch.mul(odd, first, out=pixels[1]).add_(odd_large, alpha=second)
    torch.add(values[5], odd, alpha=small * first, out=pixels[3]).add_(odd_large, alpha=large * second)


def _transform_output_gradient(grad: Tensor) -> Tensor:
    """A g A^T, the transpose of the output transform: (b, 4 n + 2, 4 w + 2, C) -> (36, b n w, C).

    ``grad`` has a pixel around the tiles, which is not used.
    """
    grad = grad[:, 1:-1, 1:-1]
    batch, height, width, channels = grad.shape
    rows, columns = height // OUTPUT_TILE, width // OUTPUT_TILE
    half = grad.new_empty(INPUT_TILE, batch, rows, width, channels)
    _transform_output_gradient_axis([grad[:, i::OUTPUT_TILE] for i in range(OUTPUT_TILE)], half)
    result = grad.new_empty(INPUT_TILE, INPUT_TILE, batch, rows, columns, channels)
    _transform_output_gradient_axis(
        [half[..., i::OUTPUT_TILE, :] for i in range(OUTPUT_TILE)], result.transpose(0, 1)
    )
    return result.view(INPUT_TILE**2, -1, channels)


def _transform_output_gradient_axis(pixels: Sequence[Tensor], values: Tensor) -> None:
    """A, the transpose of ``_transform_output_axis``: six values from four pixels."""
    values[0].copy_(pixels[0])
    values[5].copy_(pixels[3])
    for i, square in zip((1, 3), SQUARES, strict=True):
        even = torch.add(pixels[0], pixels[2], alpha=square)
        odd = torch.add(pixels[1], pixels[3], alpha=square)
        torch.add(even, odd, alpha=square**0.5, out=values[i])
        torch.sub(even, odd, alpha=square**0.5, out=values[i + 1])
