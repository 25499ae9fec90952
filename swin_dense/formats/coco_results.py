"""COCO result files: read, and held against what pycocotools survives."""

import json
import math
import reprlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from swin_dense.errors import NotFiniteError, UserError
from swin_dense.formats import rle

FIELDS = {'bbox': 'bbox', 'segm': 'segmentation'}  # of an entry, by kind; a mask is RLE
LARGEST = 1e9  # of a box's values, in pixels: above, pycocotools' products lose what they compare
NO_RLE = "'segmentation' is no RLE of the image's size"
TYPES: dict[str, type | tuple[type, ...]] = {
    'category_id': int,
    'score': (int, float),
    'bbox': list,
    'segmentation': dict,
}


def files(path: Path) -> dict[str, Path]:
    """The result file of each kind: ``predictions.bbox.json``, ... in a folder; of one file, ``''``.

    Raises:
        UserError: the folder has none.
    """
    if not path.is_dir():
        return {'': path}
    named = {kind: path / f'predictions.{kind}.json' for kind in FIELDS}
    of_kinds = {kind: file for kind, file in named.items() if file.is_file()}
    if not of_kinds:
        raise UserError(
            f'predictions {path}: the folder has neither {" nor ".join(map(str, named.values()))}'
        )
    return of_kinds


def read_results(path: Path, truth: COCO, kinds: Iterable[str] = ('bbox',)) -> dict[str, list[dict]]:
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
    of_kinds: dict[str, list[dict]] = {}
    for kind, file in files(path).items():
        entries = _entries(file)
        of_file = [kind] if kind else [kind for kind, key in FIELDS.items() if entries and key in entries[0]]
        if entries and not of_file:
            raise UserError(f"predictions {file}: entry 0 has neither 'bbox' nor 'segmentation'")
        for present in of_file or kinds:
            _check(entries, present, file, truth)
            of_kinds[present] = [_of_kind(entry, present) for entry in entries]
    return of_kinds


def as_coco(truth: COCO, entries: list[dict]) -> COCO:
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
        elif not rle.states_size(entry['segmentation'], image):
            raise UserError(f'{where}: {NO_RLE}')
    if kind == 'segm':
        _check_runs([entry['segmentation'] for entry in entries], path)


def _check_runs(masks: list[dict], path: Path) -> None:
    pixels = np.array([mask['size'][0] * mask['size'][1] for mask in masks], np.int64)
    wrong = np.flatnonzero(~rle.sum_up([mask['counts'] for mask in masks], pixels))
    if len(wrong):
        raise UserError(f'predictions {path}: entry {wrong[0]}: {NO_RLE}')


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
