"""The label map of a large image: logits averaged where tiles overlap.

Only what the next tiles see again is kept: a strip as wide as the image, and a strip of the tile to the left.
With C classes these are C x overlap x (W + tile) floats, whatever the height of the image.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, pairwise, product

import numpy as np

from swin_dense.formats.predictions import LabelMap, label_type
from swin_dense.tiling.tiles import Tile, Track, batches, grid, untracked


def predict_labels(
    predict: Callable[[Sequence[np.ndarray]], Sequence[LabelMap]],
    image: np.ndarray,
    tile: int,
    overlap: float,
    batch: int = 1,
    threshold: float = 0.5,
    track: Track = untracked,
) -> LabelMap:
    """The label map of an image from those of its tiles.

    Args:
        predict: gives a ``LabelMap`` with logits for each of several images.
        image: (H, W, C).
        tile: side in pixels.
        overlap: fraction of the tile that neighbours share, or a little more.
        batch: tiles predicted together.
        threshold: probability above which a pixel is of class 1, where a model has a single logit.
        track: shows the progress.
    """
    rows = grid(image.shape, tile, overlap)
    predictions = _predicted(predict, image, rows, batch, track)
    places = product(range(len(rows)), range(len(rows[0])))
    first = next(predictions)
    canvas = _Canvas(rows, image.shape[:2], first, threshold)
    for prediction, (row, column) in zip(chain([first], predictions), places, strict=True):
        canvas.add(row, column, _logits(prediction))
    return LabelMap(canvas.labels, first.classes)


def _logits(prediction: LabelMap) -> np.ndarray:
    if prediction.logits is None:
        raise ValueError('label maps of tiles are joined by their logits: predict with logits=True')
    return prediction.logits


def _predicted(
    predict: Callable[[Sequence[np.ndarray]], Sequence[LabelMap]],
    image: np.ndarray,
    rows: list[list[Tile]],
    batch: int,
    track: Track,
) -> Iterator[LabelMap]:
    parts = [part for row in rows for part in batches(row, batch)]
    for part in track(parts, len(parts)):
        yield from predict([spot.of(image) for spot in part])


class _Canvas:
    """A label map that fills from the top left, as tiles are added in reading order."""

    def __init__(
        self, rows: list[list[Tile]], shape: tuple[int, int], first: LabelMap, threshold: float
    ) -> None:
        self.rows, self.threshold = rows, threshold
        self.labels = np.zeros(shape, label_type(len(first.classes)))
        depth = max((a[0].y2 - b[0].y1 for a, b in pairwise(rows)), default=0)
        channels = len(_logits(first))
        # sums of the logits of the rows above, from the top of this row
        self.strip = np.zeros((channels, max(depth, 0), shape[1]), np.float32)
        self.left = np.zeros((channels, 0, 0), np.float32)
        self.seen_y = _times_seen([(row[0].y1, row[0].y2) for row in rows], shape[0])
        self.seen_x = _times_seen([(spot.x1, spot.x2) for spot in rows[0]], shape[1])

    def add(self, row: int, column: int, logits: np.ndarray) -> None:
        """Add a tile's logits (C, h, w); label the pixels that no later tile sees."""
        spot = self.rows[row][column]
        sums = np.array(logits, np.float32)  # a copy, to be added to
        if column:
            sums[:, :, : self.left.shape[2]] += self.left
        end_x = self.rows[row][column + 1].x1 if column + 1 < len(self.rows[row]) else spot.x2
        end_y = self.rows[row + 1][0].y1 if row + 1 < len(self.rows) else spot.y2
        self.left = sums[:, :, end_x - spot.x1 :].copy()
        sums = sums[:, :, : end_x - spot.x1]
        if row:
            known = self.rows[row - 1][0].y2 - spot.y1
            sums[:, :known] += self.strip[:, :known, spot.x1 : end_x]
        rest = sums[:, end_y - spot.y1 :]
        self.strip[:, : rest.shape[1], spot.x1 : end_x] = rest
        counts = self.seen_y[spot.y1 : end_y, None] * self.seen_x[None, spot.x1 : end_x]
        sums = sums[:, : end_y - spot.y1]
        self.labels[spot.y1 : end_y, spot.x1 : end_x] = _decide(sums, counts, self.threshold)


def _times_seen(spans: list[tuple[int, int]], length: int) -> np.ndarray:
    """(length,) float32: how many of the spans contain each pixel."""
    changes = np.zeros(length + 1, np.float32)
    for begin, end in spans:
        changes[begin] += 1
        changes[end] -= 1
    return changes[:-1].cumsum()


def _decide(sums: np.ndarray, counts: np.ndarray, threshold: float) -> np.ndarray:
    if len(sums) > 1:
        return sums.argmax(0)  # the largest mean is the largest sum
    return 1 / (1 + np.exp(-sums[0] / counts)) > threshold
