"""Boxes, polygons and RLE of a COCO file: what of them training drops, and what it would not survive.

Everything is looked at before pycocotools sees it: a polygon with NaN or 1e9 ends the process, and
garbage in place of RLE keeps it busy for ever.
"""

import struct
from array import array
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.console.findings import Finding, Severity, some
from swin_dense.formats import rle
from swin_dense.formats.coco_json import Columns
from swin_dense.formats.json_entries import CHUNK, LONGEST

TOLERANCE = 1.0  # pixels that a box or polygon may reach outside: COCO's own are rounded
FAR = 1e6  # pixels: pycocotools allocates as many points as a polygon is long
MAX_PIXELS = 2**30  # of a mask, as of an image
NO_POLYGON = 'a polygon is not a list of numbers [x1, y1, x2, y2, ...]'
TOO_FEW = 'a polygon of less than three points, or of half a point'
LEFT_OUT = 'a part of less than three points: left out'


def check_boxes(
    path: Path, annotations: Columns, sizes: np.ndarray, scored: bool
) -> tuple[list[Finding], np.ndarray]:
    """What is wrong with boxes and areas.

    Args:
        path: the annotation file.
        annotations: its N annotations.
        sizes: (N, 2) float, width and height of each one's image, NaN if the image is unknown.
        scored: whether evaluation uses the file too.

    Returns:
        Findings, and (N,) bool: which boxes mmdet trains with.
    """
    whole, boxes = _rows(annotations.bboxes, 4)
    counted, area = _column(annotations.areas)
    findings: list[Finding] = []

    def add(severity: Severity, field: str, message: str, wrong: np.ndarray) -> None:
        if wrong.any():
            ids = some(annotations.ids[i] for i in np.flatnonzero(wrong))
            findings.append(Finding(severity, path, field, message, **ids))

    field = 'annotations.bbox'
    add('error', field, 'not four numbers [x, y, width, height]; annotation ids', ~whole)
    add('error', 'annotations.area', 'no number; annotation ids', ~counted)
    # beyond: so it is as float32, in which mmdet has boxes
    nan, infinite = whole & np.isnan(boxes).any(1), (np.abs(boxes) > np.finfo(np.float32).max).any(1)
    lie = ': dropped in training, and in evaluation every detection would match it'
    add(
        'error' if scored else 'warning',
        field,
        f'NaN{lie if scored else ": dropped"}; annotation ids',
        nan,
    )
    add('error', field, 'infinite, and so would be the loss; annotation ids', infinite)
    with np.errstate(invalid='ignore', over='ignore'):
        first, sides = boxes[:, :2], boxes[:, 2:]
        small = np.asarray((sides < 1).any(1))
        inside = np.minimum(first + sides, sizes) - np.maximum(first, 0)
        beyond = (first < -TOLERANCE).any(1) | (first + sides > sizes + TOLERANCE).any(1)
        away = ~small & ~infinite & (inside <= 0).any(1)
    add('warning', field, f'{_small(boxes[whole])}: dropped; annotation ids', small)
    add('warning', field, 'wholly outside of the image: dropped; annotation ids', away)
    beyond &= ~small & ~away & ~infinite
    hint = _corners(boxes, sizes, whole) if beyond.sum() > 0.5 * max(1, whole.sum()) else ''
    add(
        'warning',
        field,
        f'reaches outside of the image: cut off at its border{hint}; annotation ids',
        beyond,
    )
    add('warning', 'annotations.area', 'zero or negative: dropped; annotation ids', counted & (area <= 0))
    return findings, whole & counted & ~nan & ~infinite & ~small & ~away & ~(area <= 0)


def check_masks(path: Path, annotations: Columns, sizes: np.ndarray, severity: Severity) -> list[Finding]:
    """What is wrong with segmentations; arguments as of ``check_boxes``.

    Args:
        severity: of what would crash a model that trains or is scored with masks.
    """
    problems: dict[tuple[Severity, str], list[int]] = {}

    def add(message: str, index: int, kind: Severity = severity) -> None:
        problems.setdefault((kind, message), []).append(index)

    masks = annotations.masks
    for begin in range(0, len(masks), CHUNK):
        chunk = masks[begin : begin + CHUNK]
        polygons = [index for index, mask in enumerate(chunk, begin) if type(mask) is list and mask]
        runs = [index for index, mask in enumerate(chunk, begin) if type(mask) is dict]
        if len(polygons) + len(runs) < len(chunk):
            for index in sorted(set(range(begin, begin + len(chunk))).difference(polygons, runs)):
                add('neither polygons nor RLE', index)
        _check_polygons(masks, sizes, polygons, add)
        _check_rle(masks, sizes, runs, add)
    return [
        Finding(
            kind,
            path,
            'annotations.segmentation',
            f'{message}; annotation ids',
            **some(annotations.ids[index] for index in dict.fromkeys(indices)),
        )
        for (kind, message), indices in problems.items()
    ]


def _rows(values: Sequence, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of N values are lists of ``width`` numbers, (N,) bool; and they, (N, width), NaN for others."""
    rows = np.full((len(values), width), np.nan)
    good = np.ones(len(values), bool)
    for begin in range(0, len(values), CHUNK):
        chunk, part = values[begin : begin + CHUNK], slice(begin, begin + CHUNK)
        try:  # in one go: most files are good
            if set(map(len, chunk)) == {width}:
                packed = _packer(width * len(chunk))(*chain.from_iterable(chunk))
                numbers = np.frombuffer(packed)
                if not (np.abs(numbers) >= LONGEST).any():  # of which some may be whole numbers
                    rows[part] = numbers.reshape(-1, width)
                    continue
        except (TypeError, struct.error):  # no list, or no number
            pass
        good[part] = [_is_row(value, width) for value in chunk]
        for i in begin + np.flatnonzero(good[part]):
            rows[i] = values[int(i)]
    return good, rows


def _column(values: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Which of N values are numbers, (N,) bool; and they, (N,), NaN for others."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.ones(len(values), bool), np.fromiter(values, float, len(values))
        except OverflowError:  # an int beyond floats
            pass
    good, rows = _rows([[value] for value in values], 1)
    return good, rows[:, 0]


def _is_row(value: Any, width: int) -> bool:  # noqa: ANN401
    if type(value) not in (list, tuple) or len(value) != width:
        return False
    return all(type(x) is float or (type(x) is int and abs(x) < LONGEST) for x in value)


def _small(boxes: np.ndarray) -> str:
    text = 'width or height below one pixel'
    if len(boxes) and np.nanmax(boxes, initial=0) <= 1:
        text += ' (every number is at most 1: are they shares of the image? COCO has pixels)'
    return text


def _corners(boxes: np.ndarray, sizes: np.ndarray, whole: np.ndarray) -> str:
    """A hint where the numbers would fit as x1, y1, x2, y2."""
    known = whole & ~np.isnan(sizes).any(1)
    low, high = boxes[known, :2], boxes[known, 2:]
    if (high >= low).all() and (high <= sizes[known] + TOLERANCE).all():
        return ' (they look like [x1, y1, x2, y2]; COCO has [x, y, width, height])'
    return ''


def _check_polygons(masks: list, sizes: np.ndarray, indices: list[int], add: Callable[..., None]) -> None:
    flat, lengths, owners = _flatten_all(masks, indices, add)
    if not len(lengths):
        return
    points = flat.reshape(-1, 2)
    limits = np.repeat(np.minimum(sizes[owners] + TOLERANCE, FAR), lengths, axis=0)
    if ((points >= -TOLERANCE) & (points <= limits)).all():
        return  # nearly always
    starts = np.cumsum(lengths) - lengths
    # NaN stays NaN in both
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    with np.errstate(invalid='ignore'):
        far = ~((low >= -FAR) & (high <= FAR)).all(1)
        beyond = ~far & ((low < -TOLERANCE) | (high > sizes[owners] + TOLERANCE)).any(1)
    for part in np.flatnonzero(far):
        add(f'a point is NaN, infinite or beyond {FAR:.0e}: pycocotools ends the process', owners[part])
    for part in np.flatnonzero(beyond):
        add('a polygon reaches outside of the image: cut off at its border', owners[part], 'warning')


def _flatten_all(
    masks: list, indices: list[int], add: Callable[..., None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of all polygons, (2P,); the points of each, (K,); the index of its annotation, (K,)."""
    chosen = [masks[index] for index in indices]
    parts = list(chain.from_iterable(chosen))
    if set(map(type, parts)) == {list}:
        lengths = list(map(len, parts))
        pack = {n: _packer(n) for n in set(lengths) if n >= 6 and n % 2 == 0}
        try:  # as below, in one go: most files are good
            numbers = b''.join([pack[n](*part) for n, part in zip(lengths, parts, strict=True)])
            counts = list(map(len, chosen))
            return np.frombuffer(numbers), np.array(lengths) // 2, np.repeat(indices, counts)
        except (KeyError, struct.error):  # too short or odd, or no number
            pass
    flat = array('d')
    points: list[int] = []
    owners: list[int] = []
    for index, mask in zip(indices, chosen, strict=True):
        if problem := _flatten(mask, flat, points):
            add(problem, index, *(('warning',) if problem == LEFT_OUT else ()))
        owners += [index] * (len(points) - len(owners))
    return np.array(flat), np.array(points, int), np.array(owners, int)


@lru_cache(maxsize=1024)
def _packer(count: int) -> Callable[..., bytes]:
    """A function that puts so many numbers one behind the other, 8 bytes each."""
    return struct.Struct(f'{count}d').pack


def _flatten(parts: list, flat: array, lengths: list[int]) -> str:
    """Append the numbers of each part and its number of points; returns what is wrong, or nothing."""
    problem = ''
    for number, part in enumerate(parts):
        if type(part) is not list:
            return NO_POLYGON
        if len(part) < 6 or len(part) % 2:
            # from the length of the first pycocotools guesses what they all are
            problem = TOO_FEW if number == 0 or problem == TOO_FEW else LEFT_OUT
            continue
        try:
            flat.fromlist(part)  # takes no text, as numpy would
        except (TypeError, OverflowError):
            return NO_POLYGON
        lengths.append(len(part) // 2)
    return problem


def _check_rle(masks: list, sizes: np.ndarray, indices: list[int], add: Callable[..., None]) -> None:
    texts: list[str] = []
    owners: list[int] = []
    pixels: list[int] = []
    for index in indices:
        mask = masks[index]
        size, counts = mask.get('size'), mask.get('counts')
        if not (type(size) is list and len(size) == 2 and all(type(x) is int and x > 0 for x in size)):
            add('RLE: size is not [height, width]', index)
        elif size[0] * size[1] > MAX_PIXELS:
            add(f'RLE: size is of more than {MAX_PIXELS} pixels', index)
        elif not np.isnan(sizes[index, 0]) and size[::-1] != sizes[index].tolist():
            add("RLE: size is not the image's [height, width]", index)
        elif type(counts) is list:
            if not all(type(x) is int and x >= 0 for x in counts) or sum(counts) != size[0] * size[1]:
                add('RLE: the counts do not sum up to the size', index)
        elif type(counts) is str and counts.isascii() and counts:
            texts.append(counts)
            owners.append(index)
            pixels.append(size[0] * size[1])
        else:
            add('RLE: counts is neither a list nor compressed text', index)
    if texts:
        for number in np.flatnonzero(~rle.sum_up(texts, np.array(pixels))):
            add('RLE: the compressed text is garbage, which pycocotools may never finish', owners[number])
