"""COCO result files: read, and held against what pycocotools survives."""

import json
import math
import reprlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from swin_dense.errors import NotFiniteError, UserError

FIELDS = {'bbox': 'bbox', 'segm': 'segmentation'}  # of an entry, by kind
# a mask is RLE
LARGEST = 1e9  # of a box's values, in pixels: above, pycocotools' products lose what they compare
MOST_PIXELS = 2**32 - 1  # pycocotools counts them in 32 bits
TYPES = {'category_id': int, 'score': (int, float), 'bbox': list, 'segmentation': dict}


def files(path: Path) -> dict[str, Path]:
    """The result file of each kind: ``predictions.bbox.json``, ... in a folder; of one file, ``''``.

    Raises:
        UserError: the folder has none.
    """
    if not path.is_dir():
        return {'': path}
    named = {kind: path / f'predictions.{kind}.json' for kind in FIELDS}
    found = {kind: file for kind, file in named.items() if file.is_file()}
    if not found:
        raise UserError(
            f'predictions {path}: the folder has neither {" nor ".join(map(str, named.values()))}'
        )
    return found


def read(path: Path, truth: COCO, kinds: Iterable[str] = ('bbox',)) -> dict[str, list[dict]]:
    """The entries of a result file or folder for each kind of prediction.

    Args:
        path: a list of ``{image_id, category_id, score, bbox and / or segmentation}``, or a folder that
            a run has left, with ``predictions.bbox.json`` and perhaps ``predictions.segm.json``.
        truth: the ground truth, whose images and categories the entries name.
        kinds: what an empty file is taken for.

    Raises:
        UserError: a file that is missing, no regular file, not JSON, no results, or of other images or
            categories; the message names the entry.
        NotFiniteError: a box or score is NaN or infinite; pycocotools would give it an AP of 1.
    """
    found: dict[str, list[dict]] = {}
    for kind, file in files(path).items():
        entries = _entries(file)
        of_file = [kind] if kind else [kind for kind, key in FIELDS.items() if entries and key in entries[0]]
        if entries and not of_file:
            raise UserError(f"predictions {file}: entry 0 has neither 'bbox' nor 'segmentation'")
        for present in of_file or kinds:
            _check(entries, present, file, truth)
            found[present] = [_of_kind(entry, present) for entry in entries]
    return found


def load(truth: COCO, entries: list[dict]) -> COCO:
    """The entries as pycocotools takes them: its own ``loadRes``, which fails on an empty list."""
    if entries:
        return truth.loadRes([dict(entry) for entry in entries])
    empty = COCO()
    empty.dataset = {**{key: truth.dataset[key] for key in ('images', 'categories')}, 'annotations': []}
    empty.createIndex()
    return empty


def _entries(path: Path) -> list[dict]:
    if path.exists() and not path.is_file():
        raise UserError(f'predictions {path}: no regular file')  # a pipe would be waited for
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f'predictions {path} cannot be read: {error}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'predictions {path} cannot be read as JSON: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f'predictions {path}: not a list of COCO results')
    return entries


def _of_kind(entry: dict, kind: str) -> dict:
    """The fields of one kind alone.

    Beside a box, a mask would be given the box's area; of a caption, pycocotools would take all for captions.
    """
    return {name: entry[name] for name in ('image_id', 'category_id', 'score', FIELDS[kind])}


def _check(entries: list[dict], kind: str, path: Path, truth: COCO) -> None:
    field = FIELDS[kind]
    for number, entry in enumerate(entries):
        where = f'predictions {path}: entry {number}'
        for name in ('category_id', 'score', field):
            value = entry.get(name)
            if not isinstance(value, TYPES[name]) or isinstance(value, bool):
                raise UserError(f'{where}: no {name!r}, or no valid one')
        image = truth.imgs.get(entry.get('image_id')) if _is_id(entry.get('image_id')) else None
        if image is None:
            raise UserError(
                f'{where}: image_id {reprlib.repr(entry.get("image_id"))} is not in the annotations'
            )
        if entry['category_id'] not in truth.cats:
            raise UserError(
                f'{where}: category_id {reprlib.repr(entry["category_id"])} is not in the annotations'
            )
        if not _finite(entry['score'], where, 'score'):
            raise NotFiniteError(f'{where} (image_id {entry["image_id"]}): score is {entry["score"]}: no AP')
        if kind == 'bbox':
            _check_box(entry, where)
        elif not sound_rle(entry['segmentation'], image):
            raise UserError(f"{where}: 'segmentation' is no RLE of the image's size")


def _is_id(value: object) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _finite(value: float, where: str, field: str) -> bool:
    """Whether a number is finite.

    Raises:
        UserError: an integer that no float holds, as of 400 digits.
    """
    try:
        return math.isfinite(value)
    except OverflowError as error:
        raise UserError(f'{where}: {field!r} is an integer of {len(str(value))} digits') from error


def _check_box(entry: dict, where: str) -> None:
    box = entry['bbox']
    if len(box) != 4 or not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in box):
        raise UserError(f"{where}: no 'bbox', or no valid one: x, y, width, height are needed")
    if not all(_finite(x, where, 'bbox') for x in box):
        raise NotFiniteError(f'{where} (image_id {entry["image_id"]}): bbox is {box}: no AP')
    if max(map(abs, box)) > LARGEST:
        raise UserError(f"{where}: 'bbox' is {box}: no image is that large")


def sound_rle(rle: dict, image: dict) -> bool:
    """Whether compressed RLE covers exactly its image: pycocotools reads past the end of any other.

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
    pixels = size[0] * size[1]
    if pixels > MOST_PIXELS:
        return False
    try:
        codes = np.frombuffer(counts.encode('ascii'), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return False
    # six bits a character: 32 says that the number goes on, 16 in its last character that it is negative
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return False
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 10:
        return False
    numbers = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = codes[ends] & 16 != 0
    numbers -= np.where(negative, 1 << (5 * (ends - starts + 1)), 0)
    # from the third on, each is the difference to the one before the last
    numbers[2::2] = np.cumsum(numbers[2::2])
    numbers[1::2] = np.cumsum(numbers[1::2])
    # none above the sum, so that the sum itself does not overflow
    return bool(((numbers >= 0) & (numbers <= pixels)).all()) and int(numbers.sum()) == pixels
