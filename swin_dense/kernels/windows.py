"""The geometry of shifted windows: pure functions, cached where the result depends on sizes alone.

A map is (B, H, W, C). Windows are numbered row by row, tokens in a window too. M is the window's
side, N = M * M its tokens, nW the number of windows of one padded map.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.kernels.eager import eager_cache, is_captured

# Swin adds -100 to the logits of pairs that may not attend to each other. As in the official code it is not
# -inf: such a pair keeps exp(-100) of its weight.
MASKED = -100.0


def missing(size: int, multiple: int) -> int:
    """The number to add to ``size`` for a multiple, by division: torch.compile cannot reason about ``%``."""
    return (size + multiple - 1) // multiple * multiple - size


def pad_to_multiple(x: Tensor, multiple: int, rows: int = 1) -> Tensor:
    """Zero-pad at the bottom and right until ``multiple`` divides height and width.

    Args:
        x: (B, H, W, C), or (B, C, H, W) with ``rows=2``.
        multiple: of tokens or pixels.
        rows: the dimension of the height; the width is the next one.
    """
    bottom, right = missing(x.size(rows), multiple), missing(x.size(rows + 1), multiple)
    # one graph serves sizes with pads and without
    if is_captured() or bottom or right:
        return F.pad(x, (0, 0) * (2 - rows) + (0, right, 0, bottom))
    return x


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """(B, >= height, >= width, C) -> (B, height, width, C), the top left: undoes ``pad_to_multiple``."""
    x = x[:, :height, :width]
    # one graph serves sizes with pads and without, whose layouts in memory would differ
    return x.clone(memory_format=torch.contiguous_format) if torch.compiler.is_compiling() else x


def split_windows(x: Tensor, window: int) -> Tensor:
    """(B, H, W, C) -> (B * nW, N, C); ``window`` divides H and W."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.transpose(2, 3).reshape(-1, window * window, channels)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """(B * nW, N, C) -> (B, height, width, C): the inverse of ``split_windows``."""
    channels = windows.size(-1)
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


@eager_cache(maxsize=16)
def relative_position_index(window: int, device: torch.device) -> Tensor:
    """(N * N,) row of the bias table for each (query, key) pair of a window.

    The table has (2M - 1)^2 rows, one for each (dy, dx) = query - key, dy and dx in [-(M - 1), M - 1]:
    row = (dy + M - 1) * (2M - 1) + (dx + M - 1).
    """
    steps = torch.arange(window, device=device)
    y, x = torch.meshgrid(steps, steps, indexing='ij')
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return (dy * (2 * window - 1) + dx).flatten()


@eager_cache(maxsize=16)
def log_coordinates(window: int, pretrained: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """((2M - 1)^2, 2) log-spaced (dy, dx) of each row of v1's bias table (Swin V2, section 3.3, eq. 4).

    An offset of ``pretrained`` - 1, the largest in the windows of the pretraining, becomes
    log2(1 + 8) / log2(8), as in Microsoft's code; the paper leaves the 8s out.
    """
    offsets = torch.arange(1 - window, window, dtype=torch.float64, device='cpu')
    scaled = 8 * offsets / max(1, pretrained - 1)  # a window of one token has the offset 0 only
    spaced = scaled.sign() * torch.log2(1 + scaled.abs()) / 3
    return torch.cartesian_prod(spaced, spaced).to(device, dtype)


@eager_cache(maxsize=16)
def shift_masks(window: int, shift: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, N, N) additive masks of the four kinds of window in a cyclically shifted map.

    The roll by ``shift`` brings the first rows behind the last ones, so only the last row of windows
    holds tokens from two places: M - shift rows of its own and shift rows from the top. Likewise the
    last column. Hence four kinds: 0 interior, 1 right, 2 bottom, 3 corner.
    """
    wrapped = torch.arange(window, device=device) >= window - shift
    row, column = wrapped.repeat_interleave(window), wrapped.repeat(window)
    across_rows = row[:, None] != row[None, :]
    across_columns = column[:, None] != column[None, :]
    nowhere = torch.zeros_like(across_rows)
    forbidden = torch.stack([nowhere, across_columns, across_rows, across_rows | across_columns])
    return torch.zeros(forbidden.shape, device=device, dtype=dtype).masked_fill_(forbidden, MASKED)


@eager_cache(maxsize=256)
def window_kinds(rows: int, columns: int, device: torch.device) -> Tensor:
    """(rows * columns,) the kind of each window, as ``shift_masks`` numbers them."""
    bottom = torch.zeros(rows, dtype=torch.long, device=device)
    right = torch.zeros(columns, dtype=torch.long, device=device)
    bottom[-1], right[-1] = 2, 1
    return (bottom[:, None] + right[None, :]).flatten()


def masked_by_kind(bias: Tensor, window: int, shift: int) -> Tensor:
    """(1, nH, N, N) biases of the logits -> (4, nH, N, N), with the mask of each kind of window added."""
    return bias + shift_masks(window, shift, bias.device, bias.dtype).unsqueeze(1)


def biases_by_window(biases: Tensor, batch: int, rows: int, columns: int) -> Tensor:
    """(4, nH, N, N) by kind -> (batch * rows * columns, nH, N, N) by window."""
    return biases[window_kinds(rows, columns, biases.device)].repeat(batch, 1, 1, 1)


@dataclass(frozen=True)
class WindowGroup:
    """Some rows of windows of a batch of maps. Their tokens are rows of the (B * H * W, C) view of the maps.

    A window has N places, each with a token or a pad. Windows of one kind (see ``shift_masks``) stand
    together, so that they can attend in one call.

    Attributes:
        pieces: (start, stop) of the ranges of tokens that the windows cover, n tokens in all.
        sources: (nW * N,) index of the token at each place, in the n tokens; any for a pad.
        pads: the places of the pads.
        places: (n,) the place of each token.
        kinds: (kind, first, last + 1) of the windows, the most frequent kind first.
    """

    pieces: tuple[tuple[int, int], ...]
    sources: Tensor
    pads: Tensor
    places: Tensor
    kinds: tuple[tuple[int, int, int], ...]

    def take(self, tokens: Tensor) -> Tensor:
        """(B * H * W, C) -> (n, C); a view of ``tokens`` if there is one piece."""
        parts = [tokens[start:stop] for start, stop in self.pieces]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def put(self, tokens: Tensor, values: Tensor) -> None:
        """Write (n, C) to the rows of ``tokens`` from which ``take`` takes them."""
        sizes = [stop - start for start, stop in self.pieces]
        for (start, stop), part in zip(self.pieces, values.split(sizes), strict=True):
            tokens[start:stop] = part

    def to_windows(self, values: Tensor) -> Tensor:
        """(n, C) -> (nW * N, C), zeros for pads."""
        windows = values.index_select(0, self.sources)
        return windows.index_fill_(0, self.pads, 0) if len(self.pads) else windows

    def from_windows(self, windows: Tensor) -> Tensor:
        """(nW * N, C) -> (n, C), without the pads."""
        return windows.index_select(0, self.places)


@eager_cache(maxsize=128)
def window_groups(
    batch: int, height: int, width: int, window: int, shift: int, tokens: int
) -> tuple[WindowGroup, ...]:
    """Cut the windows of a batch into groups of whole rows, of about ``tokens`` tokens each."""
    numbers = torch.arange(1, batch * height * width + 1, device='cpu').view(batch, height, width, 1)
    numbers = pad_to_multiple(numbers, window)
    rows, columns = numbers.size(1) // window, numbers.size(2) // window
    windows = split_windows(numbers.roll((-shift, -shift), dims=(1, 2)), window)
    kinds = window_kinds(rows, columns, numbers.device).repeat(batch) * (shift > 0)
    count = min(batch * rows, max(1, round(batch * height * width / tokens)))
    groups = zip(
        windows.view(batch * rows, columns, -1).tensor_split(count),
        kinds.view(batch * rows, columns).tensor_split(count),
        strict=True,
    )
    return tuple(_window_group(windows.flatten(0, 1), kinds.flatten()) for windows, kinds in groups)


def _window_group(windows: Tensor, kinds: Tensor) -> WindowGroup:
    """The group of windows (nW, N), given the numbers of their tokens from 1, 0 for pads, and their kinds."""
    frequency = kinds.bincount(minlength=4)
    order = torch.sort(4 * frequency[kinds] + kinds, descending=True, stable=True).indices
    numbers, places = windows[order].flatten().sort(stable=True)
    pads, places = places.tensor_split([int((numbers == 0).sum())])
    tokens, ranks = numbers[len(pads) :] - 1, torch.arange(len(places), device=places.device)
    sources = torch.zeros_like(numbers)
    sources[places] = ranks
    pieces = tuple((int(tokens[i]), int(tokens[j - 1]) + 1) for i, j in _runs(tokens - ranks))
    spans = tuple((int(kinds[order[i]]), i, j) for i, j in _runs(kinds[order]))
    return WindowGroup(pieces, sources, pads, places, spans)


def _runs(values: Tensor) -> list[tuple[int, int]]:
    """(start, stop) of each run of equal values."""
    _, lengths = values.unique_consecutive(return_counts=True)
    stops = lengths.cumsum(0)
    return list(zip((stops - lengths).tolist(), stops.tolist(), strict=True))
