"""Runs of a mask in a large image, without ever making the mask of the whole image.

pycocotools' RLE lists alternating runs of background and object, column by column. Its own encoder and
decoder go through dense masks; union, overlap, area and box are pycocotools' own everywhere.
"""

import numpy as np
from pycocotools import mask as mask_api


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
    runs = np.diff(np.r_[0, np.stack([starts, ends], 1).ravel(), height * shape[1]])
    # pycocotools writes no empty run at the end
    counts = runs[: len(runs) - (runs[-1] == 0)].tolist()
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
    bounds = np.r_[0, np.cumsum(_counts(rle))].clip(x1 * height, x2 * height)
    runs = np.diff(bounds)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(x2 - x1, height)[:, y1:y2].T


def _counts(rle: dict) -> np.ndarray:
    """The lengths of the runs, out of pycocotools' text: numbers of 5 bits a character, least first."""
    characters = np.frombuffer(rle['counts'], np.uint8).astype(np.int64) - 48
    last = (characters & 0x20) == 0
    number = np.r_[0, np.cumsum(last)[:-1]] if len(last) else np.zeros(0, np.int64)
    begin = np.r_[0, np.flatnonzero(last)[:-1] + 1] if len(last) else np.zeros(0, np.int64)
    place = np.arange(len(characters)) - begin[number]
    values = np.zeros(int(last.sum()), np.int64)
    np.add.at(values, number, (characters & 0x1F) << (5 * place))
    negative = characters[last] & 0x10 != 0
    values[negative] -= 1 << (5 * (place[last][negative] + 1))
    # from the fourth on, each is the difference to the one before the last
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
