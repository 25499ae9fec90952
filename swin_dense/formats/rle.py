"""Run lengths of masks: the one decoder, and operations that never make the mask of a whole image.

pycocotools' RLE lists alternating runs of background and object, column by column. Its own encoder and
decoder go through dense masks; union, overlap, area and box are pycocotools' own everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_api

MOST_GROUPS = 7  # of five bits in a number: 2**35 is beyond any mask
MOST_PIXELS = 2**32 - 1  # pycocotools counts them in 32 bits


def encode(mask: np.ndarray, x: int, y: int, shape: tuple[int, int]) -> dict:
    """The RLE in an image of ``shape`` (H, W) of a mask (h, w) bool whose corner lies at (x, y)."""
    height = shape[0]
    columns = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))
    steps = np.diff(columns, axis=1)  # (w, h + 1): 1 where a run begins, -1 behind its end
    column, row = np.nonzero(steps == 1)
    starts = (column + x) * height + row + y
    column, row = np.nonzero(steps == -1)
    ends = (column + x) * height + row + y
    # a run that reaches the bottom goes on at the top of the next column
    joined = starts[1:] == ends[:-1]
    starts, ends = starts[np.r_[True, ~joined][: len(starts)]], ends[np.r_[~joined, True][: len(ends)]]
    lengths = np.diff(np.r_[0, np.stack([starts, ends], 1).ravel(), height * shape[1]])
    # pycocotools writes no empty run at the end
    counts = lengths[: len(lengths) - (lengths[-1] == 0)].tolist()
    return mask_api.frPyObjects({'counts': counts, 'size': [int(side) for side in shape]}, *shape)


def box(shape: tuple[int, int], x1: int, y1: int, x2: int, y2: int) -> dict:
    """The RLE of all pixels with x1 <= x < x2 and y1 <= y < y2."""
    return encode(np.ones((y2 - y1, x2 - x1), bool), x1, y1, shape)


def extent(rle: dict) -> tuple[int, int, int, int]:
    """x, y, w, h around a mask; zeros if it is empty."""
    x, y, w, h = mask_api.toBbox(rle).astype(int).tolist()
    return x, y, w, h


def crop(rle: dict, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    """(y2 - y1, x2 - x1) bool: the pixels of a mask within a box."""
    height = rle['size'][0]
    bounds = np.r_[0, np.cumsum(runs([rle['counts']]).lengths)].clip(x1 * height, x2 * height)
    lengths = np.diff(bounds)
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels.reshape(x2 - x1, height)[:, y1:y2].T


class Runs(NamedTuple):
    """The run lengths of N masks.

    Attributes:
        lengths: (R,) int64, those of one mask after those of another.
        first: (N,) where each mask's begin.
        whole: (N,) bool: the text of the mask holds whole numbers of at most ``MOST_GROUPS`` groups.
    """

    lengths: np.ndarray
    first: np.ndarray
    whole: np.ndarray


def runs(texts: Sequence[bytes]) -> Runs:
    """Decode pycocotools' compressed text, of many masks at once.

    The text holds numbers as groups of five bits, the lowest first, each in a character from ``'0'``; bit 5
    says that another follows, bit 4 of the last is the sign. From the fourth number on, it is the difference
    to the run before the last.

    Args:
        texts: N non-empty ones, as of ``pycocotools.mask.encode``.
    """
    # a character below '0' wraps to more than 63
    groups = np.frombuffer(b''.join(texts), np.uint8) - np.uint8(ord('0'))
    ends = np.cumsum([len(text) for text in texts])
    starts = np.r_[0, ends[:-1]]
    last = (groups & 32) == 0  # of a number
    whole = np.logical_and.reduceat(groups < 64, starts) & last[ends - 1]
    last[ends - 1] = True  # a number that goes on is ended: its text is known to be bad
    number_ends = np.flatnonzero(last)
    number_starts = np.r_[0, number_ends[:-1] + 1]
    sizes = number_ends - number_starts + 1
    values = (groups[number_starts] & 31).astype(np.int64)
    for place in range(1, MOST_GROUPS):
        longer = np.flatnonzero(sizes > place)  # fewer and fewer: most numbers have one group or two
        values[longer] += (groups[number_starts[longer] + place] & 31).astype(np.int64) << (5 * place)
    negative = np.flatnonzero(groups[number_ends] & 16)
    values[negative] -= 1 << (5 * np.minimum(sizes[negative], MOST_GROUPS))

    first = np.asarray(np.searchsorted(number_starts, starts))  # number of each text
    counts = np.diff(np.r_[first, len(values)])
    rank = np.arange(len(values)) - np.repeat(first, counts)
    lengths = values.copy()
    for parity in (0, 1):  # runs 2, 4, 6, ... and 1, 3, 5, ... add up
        chosen = (rank % 2 == parity) & (rank > 0)
        total = np.cumsum(np.where(chosen, values, 0))
        before = np.repeat(np.r_[0, total][first], counts)
        lengths[chosen] = (total - before)[chosen]
    whole &= np.logical_and.reduceat(sizes <= MOST_GROUPS, first)
    return Runs(lengths, first, whole)


def sum_up(texts: Sequence[str], pixels: np.ndarray) -> np.ndarray:
    """Which masks have runs that sum up to their size: pycocotools reads past the end of the others.

    Args:
        texts: compressed run lengths of N masks.
        pixels: (N,) height x width.

    Returns:
        (N,) bool.
    """
    known = np.array([bool(text) and text.isascii() for text in texts], bool)
    fine = known.copy()
    if not known.any():
        return fine
    chosen = pixels[known]
    lengths, first, whole = runs([text.encode() for text, ok in zip(texts, known, strict=True) if ok])
    limits = np.repeat(chosen, np.diff(np.r_[first, len(lengths)]))
    # none above the sum, so that the sum itself does not overflow
    bounded = np.logical_and.reduceat((lengths >= 0) & (lengths <= limits), first)
    fine[known] = whole & bounded & (np.add.reduceat(lengths, first) == chosen)
    return fine


def states_size(rle: dict, image: dict) -> bool:
    """Whether compressed RLE states a size, and it is that of its image.

    Args:
        rle: ``{'size': [height, width], 'counts': str}``.
        image: entry of the annotation file; ``height`` and ``width`` are compared if it has them.
    """
    size, counts = rle.get('size'), rle.get('counts')
    if not isinstance(counts, str) or not isinstance(size, list) or len(size) != 2:
        return False
    if not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size):
        return False
    if any(image.get(key, side) != side for key, side in zip(('height', 'width'), size, strict=True)):
        return False
    return size[0] * size[1] <= MOST_PIXELS
