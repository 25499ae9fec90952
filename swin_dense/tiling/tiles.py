"""Large images as overlapping tiles: where they lie, and which rows and columns several of them see."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from swin_dense.errors import UserError

Track = Callable[[Iterable, int], Iterable]  # an iterable and its length; shows how far it is


def untracked(items: Iterable, total: int) -> Iterable:
    """Show nothing."""
    return items


@dataclass(frozen=True)
class Tile:
    """The pixels with x1 <= x < x2 and y1 <= y < y2."""

    x1: int
    y1: int
    x2: int
    y2: int

    def zone(self, other: 'Tile') -> 'Tile | None':
        """The pixels that both tiles see; None if they do not overlap."""
        x1, y1 = max(self.x1, other.x1), max(self.y1, other.y1)
        x2, y2 = min(self.x2, other.x2), min(self.y2, other.y2)
        return Tile(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def of(self, image: np.ndarray) -> np.ndarray:
        """A view of the tile's pixels."""
        return image[self.y1 : self.y2, self.x1 : self.x2]


def starts(length: int, size: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: as few as overlap by the fraction or more, evenly spread.

    Raises:
        UserError: a size below 1 or an overlap that is no fraction below 1.
    """
    if size < 1:
        raise UserError(f'--tile {size}: a tile has at least one pixel')
    if not 0 <= overlap < 1:
        raise UserError(f'--overlap {overlap}: choose a fraction of the tile, from 0 to below 1')
    step = max(1, size - round(size * overlap))
    steps = -(-max(0, length - size) // step)
    return [round(i * (length - size) / steps) for i in range(steps + 1)] if steps else [0]


def grid(shape: Sequence[int], size: int, overlap: float) -> list[list[Tile]]:
    """The rows of tiles of an image of ``shape`` (H, W, ...)."""
    height, width = shape[:2]
    return [
        [Tile(x, y, min(x + size, width), min(y + size, height)) for x in starts(width, size, overlap)]
        for y in starts(height, size, overlap)
    ]


def neighbours(tiles: list[list[Tile]]) -> Iterator[tuple[int, int, Tile]]:
    """Each pair of overlapping tiles, as numbers in reading order, and what both see."""
    columns = len(tiles[0])
    flat = [tile for row in tiles for tile in row]
    for first, tile in enumerate(flat):
        row, column = divmod(first, columns)
        # in rows and columns overlaps only end
        right = next((c for c in range(column, columns) if tiles[row][c].x1 >= tile.x2), columns)
        left = next((c for c in range(column, -1, -1) if tiles[row][c].x2 <= tile.x1), -1)
        below = next((r for r in range(row, len(tiles)) if tiles[r][0].y1 >= tile.y2), len(tiles))
        for r, c in product(range(row, below), range(left + 1, right)):
            second = r * columns + c
            zone = tile.zone(flat[second])
            if second > first and zone is not None:
                yield first, second, zone


def batches(tiles: Sequence[Tile], size: int) -> list[Sequence[Tile]]:
    return [tiles[i : i + size] for i in range(0, len(tiles), size)]
