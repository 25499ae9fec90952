"""The geometry against slow constructions that are plainly right."""

import pytest
import torch
from torch import Tensor

from swin_dense.kernels.windows import (
    join_windows,
    pad_to_multiple,
    relative_position_index,
    shift_masks,
    split_windows,
    window_kinds,
)

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('batch', 'height', 'width', 'window'),
    [(1, 7, 7, 7), (2, 14, 21, 7), (3, 4, 2, 2), (1, 3, 5, 1), (2, 12, 36, 12)],
)
def test_split_gives_each_window_row_by_row(batch: int, height: int, width: int, window: int):
    x = torch.randn(batch, height, width, 3)
    windows = split_windows(x, window)
    expected = [
        x[b, top : top + window, left : left + window].reshape(window * window, 3)
        for b in range(batch)
        for top in range(0, height, window)
        for left in range(0, width, window)
    ]
    assert torch.equal(windows, torch.stack(expected))
    assert torch.equal(join_windows(windows, window, height, width), x)


def test_split_of_a_strided_map():
    x = torch.randn(2, 3, 14, 21).permute(0, 2, 3, 1)
    windows = split_windows(x, 7)
    assert torch.equal(windows, split_windows(x.contiguous(), 7))
    assert torch.equal(join_windows(windows, 7, 14, 21), x)


@pytest.mark.parametrize(
    ('height', 'width', 'padded'),
    [(7, 14, (7, 14)), (8, 14, (14, 14)), (7, 15, (7, 21)), (1, 1, (7, 7)), (13, 20, (14, 21))],
)
def test_pad_is_zero_at_the_bottom_and_right(height: int, width: int, padded: tuple[int, int]):
    x = torch.randn(2, height, width, 3)
    y = pad_to_multiple(x, 7)
    assert tuple(y.shape) == (2, *padded, 3)
    assert torch.equal(y[:, :height, :width], x)
    assert not y[:, height:].any()
    assert not y[:, :, width:].any()


def test_pad_copies_nothing_when_nothing_is_missing():
    x = torch.randn(1, 14, 7, 3)
    assert pad_to_multiple(x, 7) is x


@pytest.mark.parametrize('window', [1, 2, 3, 7, 12])
def test_relative_position_index(window: int):
    index = relative_position_index(window, CPU).view(window**2, window**2)
    tokens = [(y, x) for y in range(window) for x in range(window)]
    expected = [
        [(qy - ky + window - 1) * (2 * window - 1) + (qx - kx + window - 1) for ky, kx in tokens]
        for qy, qx in tokens
    ]
    assert index.tolist() == expected
    assert set(index.flatten().tolist()) == set(range((2 * window - 1) ** 2))


def official_masks(rows: int, columns: int, window: int, shift: int) -> Tensor:
    """(rows * columns, N, N) as Microsoft's code has them: regions of the rolled map, compared pairwise."""
    height, width = rows * window, columns * window
    region = torch.zeros(height, width)
    slices = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for i, vertical in enumerate(slices):
        for j, horizontal in enumerate(slices):
            region[vertical, horizontal] = 3 * i + j
    masks = torch.zeros(rows * columns, window**2, window**2)
    for number in range(rows * columns):
        top, left = window * (number // columns), window * (number % columns)
        labels = region[top : top + window, left : left + window].flatten().tolist()
        for query, a in enumerate(labels):
            for key, b in enumerate(labels):
                masks[number, query, key] = 0 if a == b else -100
    return masks


@pytest.mark.parametrize(('rows', 'columns'), [(1, 1), (1, 3), (4, 1), (2, 2), (3, 4)])
@pytest.mark.parametrize(('window', 'shift'), [(2, 1), (3, 1), (4, 2), (5, 2), (7, 3)])
def test_masks_of_the_shifted_map(rows: int, columns: int, window: int, shift: int):
    masks = shift_masks(window, shift, CPU, torch.float32)[window_kinds(rows, columns, CPU)]
    assert torch.equal(masks, official_masks(rows, columns, window, shift))


def test_masks_separate_what_the_roll_joined():
    """The mask follows from where the tokens of the rolled map come from."""
    rows, columns, window, shift = 3, 2, 4, 2
    y, x = torch.meshgrid(torch.arange(rows * window), torch.arange(columns * window), indexing='ij')
    origin = torch.stack([y, x], dim=-1).roll((-shift, -shift), dims=(0, 1)).unsqueeze(0)
    masks = shift_masks(window, shift, CPU, torch.float32)[window_kinds(rows, columns, CPU)]
    for tokens, mask in zip(split_windows(origin, window).tolist(), masks, strict=True):
        for query, (qy, qx) in enumerate(tokens):
            for key, (ky, kx) in enumerate(tokens):
                near = abs(qy - ky) < window and abs(qx - kx) < window
                assert mask[query, key] == (0 if near else -100)


def test_masks_have_the_dtype_asked_for():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert shift_masks(7, 3, CPU, dtype).dtype == dtype
