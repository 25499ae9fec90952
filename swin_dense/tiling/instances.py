"""The objects of a large image: those that tile borders cut are joined, those seen twice are kept once.

Two neighbouring tiles both see the zone in which they overlap. Objects of one class, one of each tile, are
the same object if their masks (boxes, of a model without masks) agree within that zone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as mask_api

from swin_dense.formats import rle
from swin_dense.formats.predictions import Instances
from swin_dense.tiling.tiles import Tile, Track, batches, grid, neighbours, untracked

AGREE = 0.5  # IoU within the zone, from which on two are the same object
INSIDE = 0.9  # share within the zone, from which on one is a part of the other: a U is two arms to one tile
DUPLICATE = 0.5  # IoU, from which on the lower score is dropped
FRAGMENT = 0.8  # share of a cut object that lies inside another, from which on it is dropped
TOUCHES = 0.01  # of the tile: an object this near to its border (and 2 pixels) is cut, as edges are not exact


@dataclass
class Pieces:
    """The predictions of all tiles in the image's pixels: one row for each piece.

    Attributes:
        instances: the objects.
        tile: (N,) number of the tile.
        cut: (N,) bool: it reaches a border of its tile inside the image.
    """

    instances: Instances
    tile: np.ndarray
    cut: np.ndarray


def predict_instances(
    predict: Callable[[Sequence[np.ndarray]], Sequence[Instances]],
    image: np.ndarray,
    tile: int,
    overlap: float,
    batch: int = 1,
    track: Track = untracked,
) -> Instances:
    """The objects of an image from those of its tiles, no mask of the whole image is ever made.

    An object that some tile sees whole is taken from there. Of one that every tile cuts, masks and boxes are
    united, and the score is the highest of its parts. Without overlap nothing can be joined.

    Args:
        predict: gives ``Instances`` for each of several images.
        image: (H, W, C).
        tile: side in pixels.
        overlap: fraction of the tile that neighbours share, or a little more.
        batch: tiles predicted together.
        track: shows the progress.
    """
    tiles = grid(image.shape, tile, overlap)
    flat = [spot for row in tiles for spot in row]
    if len(flat) == 1:
        return predict([image])[0]
    results: list[Instances] = []
    parts = batches(flat, batch)
    for part in track(parts, len(parts)):
        instances = predict([spot.of(image) for spot in part])
        results += [_moved(x, spot, image.shape[:2]) for x, spot in zip(instances, part, strict=True)]
    pieces = _together(results, flat, tile)
    links = [link for a, b, zone in neighbours(tiles) for link in _same(pieces, a, b, zone)]
    return _without_duplicates(*_joined(pieces, links), flat)


def _moved(instances: Instances, spot: Tile, shape: tuple[int, int]) -> Instances:
    """From a tile's pixels to the image's."""
    rles = None
    if instances.rles is not None:
        rles = []
        for mask in instances.rles:
            x, y, w, h = rle.extent(mask)
            rles.append(rle.encode(rle.crop(mask, x, y, x + w, y + h), spot.x1 + x, spot.y1 + y, shape))
    boxes = instances.boxes + np.array([spot.x1, spot.y1] * 2, instances.boxes.dtype)
    return Instances(boxes, instances.labels, instances.scores, rles, instances.classes, shape)


def _together(results: list[Instances], flat: list[Tile], size: int) -> Pieces:
    first = results[0]
    rles = None if first.rles is None else [mask for of_tile in results for mask in of_tile.rles or ()]
    boxes = np.concatenate([of_tile.boxes for of_tile in results])
    labels = np.concatenate([of_tile.labels for of_tile in results])
    scores = np.concatenate([of_tile.scores for of_tile in results])
    everything = Instances(boxes, labels, scores, rles, first.classes, first.shape)
    tile = np.repeat(np.arange(len(flat)), [len(of_tile) for of_tile in results])
    extent = boxes if rles is None else _extents(rles)
    spots = np.array([(t.x1, t.y1, t.x2, t.y2) for t in flat])[tile]
    height, width = first.shape
    near = max(2.0, TOUCHES * size)
    inner = (spots[:, :2] > 0, spots[:, 2:] < (width, height))  # the image's own border cuts nothing
    low = (extent[:, :2] <= spots[:, :2] + near) & inner[0]
    high = (extent[:, 2:] >= spots[:, 2:] - near) & inner[1]
    return Pieces(everything, tile, np.asarray((low | high).any(1)))


def _extents(rles: Sequence[dict]) -> np.ndarray:
    """(N, 4) x1, y1, x2, y2 around masks."""
    if not rles:
        return np.zeros((0, 4))
    boxes = mask_api.toBbox(list(rles))
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _same(pieces: Pieces, a: int, b: int, zone: Tile) -> list[tuple[int, int]]:
    """The pairs, one of tile ``a`` and one of tile ``b``, that are parts of one object."""
    within = np.array([zone.x1, zone.y1, zone.x2, zone.y2])
    boxes = pieces.instances.boxes
    reach = (boxes[:, :2] < within[2:]).all(1) & (boxes[:, 2:] > within[:2]).all(1)
    of_a, of_b = (np.flatnonzero(reach & (pieces.tile == tile)) for tile in (a, b))
    labels = pieces.instances.labels
    links: list[tuple[int, int]] = []
    for label in np.intersect1d(labels[of_a], labels[of_b]):
        ours, theirs = (which[labels[which] == label] for which in (of_a, of_b))
        shared = _Shared(pieces.instances, ours, theirs, zone)
        links += [(ours[i], theirs[j]) for i, j in _agreeing(shared.overlap, shared.ours, shared.theirs)]
        links += [(ours[i], theirs[j]) for j, i in _agreeing(shared.overlap.T, shared.theirs, shared.ours)]
    return links


class _Shared:
    """Areas within a zone: of the objects of one tile, of those of the other, and of what they share."""

    def __init__(self, instances: Instances, ours: np.ndarray, theirs: np.ndarray, zone: Tile) -> None:
        parts, areas = zip(*(self._clipped(instances, which, zone) for which in (ours, theirs)), strict=True)
        self.ours, self.theirs = areas
        iou = mask_api.iou(parts[0], parts[1], [0] * len(theirs))
        self.overlap = iou / (1 + iou) * (self.ours[:, None] + self.theirs[None])

    def _clipped(
        self, instances: Instances, which: np.ndarray, zone: Tile
    ) -> tuple[list[dict] | np.ndarray, np.ndarray]:
        if instances.rles is None:
            corners = np.array([zone.x1, zone.y1] * 2), np.array([zone.x2, zone.y2] * 2)
            boxes = instances.boxes[which].astype(float).clip(*corners)
            boxes[:, 2:] -= boxes[:, :2]
            return boxes, boxes[:, 2] * boxes[:, 3]
        window = rle.box(instances.shape, zone.x1, zone.y1, zone.x2, zone.y2)
        masks = [mask_api.merge([instances.rles[i], window], intersect=True) for i in which]
        return masks, mask_api.area(masks).astype(float)


def _agreeing(overlap: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> list[tuple[int, int]]:
    """The (i, j) of which i, within the zone, is j, or is made of several j.

    Args:
        overlap: (N, M) areas that object i and object j share.
        ours: (N,) areas of the i.
        theirs: (M,) areas of the j.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        iou = overlap / (ours[:, None] + theirs[None] - overlap)
        parts = (iou >= AGREE) | (overlap / theirs[None] >= INSIDE)
        covered = (overlap * parts).sum(1)
        agree = covered / (ours + (theirs[None] * parts).sum(1) - covered) >= AGREE
    return list(zip(*np.nonzero(parts & agree[:, None]), strict=True))


def _joined(pieces: Pieces, links: list[tuple[int, int]]) -> tuple[Instances, list[set[int]], np.ndarray]:
    """One object of each group of linked pieces, the tiles that saw it, and whether it is still cut."""
    root = np.arange(len(pieces.instances))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, j in links:
        root[find(i)] = find(j)
    groups: dict[int, list[int]] = {}
    for i in range(len(root)):
        groups.setdefault(find(i), []).append(i)
    instances, rows, tiles, cut = pieces.instances, [], [], []
    for group in groups.values():
        whole = [[i] for i in group if not pieces.cut[i]]
        for members in whole or [group]:
            rows.append(members)
            tiles.append(set(pieces.tile[members].tolist()))
            cut.append(not whole and len(members) == 1)
    first = instances.take(np.array([members[0] for members in rows], int))
    for row, members in enumerate(rows):
        if len(members) > 1:
            first.boxes[row, :2] = instances.boxes[members, :2].min(0)
            first.boxes[row, 2:] = instances.boxes[members, 2:].max(0)
            first.scores[row] = instances.scores[members].max()
    if instances.rles is not None:
        groups_of_masks = [[instances.rles[i] for i in members] for members in rows]
        merged = [masks[0] if len(masks) == 1 else mask_api.merge(masks) for masks in groups_of_masks]
        first = replace(first, rles=merged)
    return first, tiles, np.array(cut, bool)


def _without_duplicates(
    instances: Instances, tiles: list[set[int]], cut: np.ndarray, flat: list[Tile]
) -> Instances:
    """Drop the lower score of two of a class, from different tiles, that cover each other, and fragments."""
    rivals: dict[int, set[int]] = {}
    dropped: set[int] = set()
    extent = instances.boxes if instances.rles is None else _extents(instances.rles)
    for spot in flat:  # two that overlap meet in some tile
        here = (extent[:, :2] < (spot.x2, spot.y2)).all(1) & (extent[:, 2:] > (spot.x1, spot.y1)).all(1)
        for label in np.unique(instances.labels[here]):
            which = np.flatnonzero(here & (instances.labels == label))
            _compare(instances.take(which), which, tiles, cut, rivals, dropped)
    kept: set[int] = set()
    for i in np.argsort(-instances.scores, kind='stable').tolist():
        if i not in dropped and not rivals.get(i, set()) & kept:
            kept.add(i)
    order = sorted(kept, key=lambda i: -instances.scores[i])
    return instances.take(np.array(order, int))


def _compare(
    some: Instances,
    which: np.ndarray,
    tiles: list[set[int]],
    cut: np.ndarray,
    rivals: dict[int, set[int]],
    dropped: set[int],
) -> None:
    """Note the duplicates and the fragments among objects of one class in one tile."""
    shapes: np.ndarray | Sequence[dict]
    if some.rles is None:
        shapes = np.concatenate([some.boxes[:, :2], some.boxes[:, 2:] - some.boxes[:, :2]], 1).astype(float)
        areas = shapes[:, 2] * shapes[:, 3]
    else:
        shapes, areas = some.rles, mask_api.area(some.rles)
    iou = mask_api.iou(shapes, shapes, [0] * len(which))
    np.fill_diagonal(iou, 0)
    for i, j in zip(*np.nonzero(iou), strict=True):
        one, other = int(which[i]), int(which[j])
        if tiles[one] & tiles[other]:
            continue
        if iou[i, j] >= DUPLICATE:
            rivals.setdefault(one, set()).add(other)
        overlap = iou[i, j] / (1 + iou[i, j]) * (areas[i] + areas[j])
        if cut[one] and areas[j] > areas[i] and overlap >= FRAGMENT * areas[i]:
            dropped.add(one)
