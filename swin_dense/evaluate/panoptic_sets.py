"""Panoptic predictions of a data set, saved as COCO's panoptic results, against its ground truth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from swin_dense.errors import UserError
from swin_dense.evaluate.panoptic import VOID, Counts, Quality, Segment, Segments, compare
from swin_dense.formats.images import BadImageError
from swin_dense.formats.json_entries import leaves_folder
from swin_dense.formats.panoptic_json import Classes, classes, labels, read_panoptic
from swin_dense.formats.panoptic_pngs import read_ids

GROUPS = ('', '_th', '_st')  # all classes, things, stuff: the endings of mmdet's names for the figures


@dataclass(frozen=True)
class Map:
    """A panoptic map: (H, W) ids, and the segment of each."""

    ids: np.ndarray
    segments: Segments


@dataclass(frozen=True)
class Truth:
    """The ground truth of a data set.

    Attributes:
        path: the JSON file.
        pngs: the folder of the PNGs.
        images: the folder of the images.
        classes: of the file.
        entries: of the list ``images``, by id.
        annotations: by image id.
        labels: of each category id.
    """

    path: Path
    pngs: Path
    images: Path
    classes: Classes
    entries: Mapping[int | str, dict]
    annotations: Mapping[int | str, dict]
    labels: Mapping[int | str, int]

    def read(self, image: int | str) -> Map:
        """The ground truth of an image.

        Raises:
            UserError: its PNG is missing or broken, or does not fit its segments.
        """
        annotation, entry = self.annotations[image], self.entries[image]
        path = self.pngs / annotation['file_name']
        size = entry['height'], entry['width']
        return read_map(path, annotation['segments_info'], self.labels, size, self.path)


@dataclass(frozen=True)
class Compared:
    """The prediction for an image, compared with its ground truth.

    Attributes:
        image: its id.
        counts: of each class.
        pixels: (C, C + 1) pixels of each class by the class that is predicted, the last column for none.
    """

    image: int | str
    counts: Counts
    pixels: np.ndarray


@dataclass(frozen=True)
class Scores:
    """All images of a data set, compared.

    Attributes:
        truth: the ground truth.
        predictions: the annotation of each image that has a prediction.
        folder: of the predicted PNGs.
        images: each image, compared.
    """

    truth: Truth
    predictions: Mapping[int | str, dict]
    folder: Path
    images: list[Compared]

    def predicted(self, image: int | str) -> Map:
        """The prediction for an image; nothing but void where there is none. Errors as ``Truth.read``."""
        return _predicted(self.truth, self.predictions, self.folder, image)


def load_truth(path: Path, pngs: Path, images: Path) -> Truth:
    """The ground truth in an annotation file.

    Raises:
        UserError: it is missing or broken.
    """
    content = read_panoptic(path)
    return Truth(
        path,
        pngs,
        images,
        classes(content),
        {entry['id']: entry for entry in content['images']},
        {entry['image_id']: entry for entry in content['annotations']},
        labels(content),
    )


def read_map(
    path: Path,
    segments: Sequence[Mapping],
    known: Mapping[int | str, int],
    size: tuple[int, int],
    source: Path,
) -> Map:
    """Read a PNG with its segments.

    Args:
        path: the PNG.
        segments: its ``segments_info``.
        known: the label of each category id.
        size: (H, W) of the image.
        source: the JSON file of the segments, for messages.

    Raises:
        UserError: the PNG is missing, broken or of another size, or has colours of no segment.
    """
    try:
        ids = read_ids(path)
    except BadImageError as error:
        raise UserError(f'panoptic PNG {path}: {error}') from error
    if ids.shape != size:
        raise UserError(
            f'panoptic PNG {path}: size: {ids.shape[1]} x {ids.shape[0]}, the image is {size[1]} x {size[0]}'
        )
    named = {s['id']: Segment(known[s['category_id']], bool(s.get('iscrowd', 0))) for s in segments}
    present = set(np.unique(ids).tolist()) - {VOID}
    if unknown := sorted(present - set(named)):
        raise UserError(
            f'panoptic PNG {path}: pixels have the id {unknown[0]}, which no segment of {source} has'
        )
    return Map(ids, {number: segment for number, segment in named.items() if number in present})


def compare_maps(image: int | str, truth: Map, predicted: Map, count: int) -> Compared:
    """Compare the maps of an image, of ``count`` classes."""
    counts = compare(truth.ids, truth.segments, predicted.ids, predicted.segments, count)
    real, guessed = (label_map(side, count) for side in (truth, predicted))
    labelled = real < count
    pairs = real[labelled] * (count + 1) + guessed[labelled]
    pixels = np.bincount(pairs, minlength=count * (count + 1)).reshape(count, count + 1)
    return Compared(image, counts, pixels)


def label_map(side: Map, count: int) -> np.ndarray:
    """(H, W) int64 the class of each pixel; ``count`` for none, and for crowds, which are ignored."""
    present, index = np.unique(side.ids, return_inverse=True)
    table = np.full(len(present), count, np.int64)
    for place, number in enumerate(present.tolist()):
        segment = side.segments.get(number)
        if segment is not None and not segment.crowd:
            table[place] = segment.category
    return table[index].reshape(side.ids.shape)


def evaluate(truth: Truth, path: Path) -> Scores:
    """Score saved predictions: ``NAME.json``, beside the folder ``NAME`` of their PNGs.

    An image without a prediction counts as wholly missed.

    Raises:
        UserError: a file is missing or broken, or does not belong to the ground truth.
    """
    predictions = read_predictions(path, truth)
    folder, count = path.with_suffix(''), len(truth.classes.names)
    images = []
    for image in track(truth.annotations, 'comparing segments', transient=True):
        predicted = _predicted(truth, predictions, folder, image)
        images.append(compare_maps(image, truth.read(image), predicted, count))
    return Scores(truth, predictions, folder, images)


def _predicted(truth: Truth, predictions: Mapping[int | str, dict], folder: Path, image: int | str) -> Map:
    entry = truth.entries[image]
    size = entry['height'], entry['width']
    if image not in predictions:
        return Map(np.zeros(size, np.int32), {})
    prediction = predictions[image]
    path = folder / prediction['file_name']
    return read_map(path, prediction['segments_info'], truth.labels, size, folder.with_suffix('.json'))


def is_predictions(path: Path) -> bool:
    """Whether a file holds panoptic results: an object with annotations that have segments."""
    if not path.is_file():
        return False
    try:
        with path.open('rb') as file:
            start = file.read(1)
        return start == b'{' and 'annotations' in json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False


def read_predictions(path: Path, truth: Truth) -> dict[int | str, dict]:
    """The annotation of each image in a file of results.

    Raises:
        UserError: it is missing or broken, or names images or categories that the ground truth lacks.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'predictions {path} cannot be read as JSON: {error}') from error
    entries = content.get('annotations') if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"predictions {path}: no list 'annotations': these are no panoptic results")
    predictions: dict[int | str, dict] = {}
    for position, entry in enumerate(entries):
        if problem := _problem(entry, truth, predictions):
            raise UserError(f'predictions {path}: annotations[{position}]: {problem}')
        predictions[entry['image_id']] = entry
    return predictions


def _problem(entry: Any, truth: Truth, earlier: Mapping) -> str:  # noqa: ANN401  whatever JSON holds
    if not isinstance(entry, dict):
        return 'no object'
    image, name, segments = (entry.get(key) for key in ('image_id', 'file_name', 'segments_info'))
    if type(image) not in (int, str) or image not in truth.annotations:
        return f'image_id: {image!r} is no image of {truth.path}'
    if image in earlier:
        return f'image_id: {image!r} has a prediction already'
    if not isinstance(name, str) or leaves_folder(name):
        return f'file_name: {name!r} is no path below the folder of PNGs'
    if not isinstance(segments, list):
        return 'segments_info: no list'
    for segment in segments:
        if not isinstance(segment, dict) or type(segment.get('id')) is not int:
            return 'segments_info: a segment without a whole number as its id'
        category = segment.get('category_id')
        if type(category) not in (int, str) or category not in truth.labels:
            return f'segments_info: category_id: {category!r} is no category of {truth.path}'
    return ''


def metrics(total: Counts, present: Classes) -> dict[str, float]:
    """PQ, SQ and RQ of all classes, things (``PQ_th``) and stuff (``PQ_st``); NaN where there is nothing."""
    things, count = len(present.things), len(present.names)
    figures: dict[str, float] = {}
    for ending, group in zip(GROUPS, (range(count), range(things), range(things, count)), strict=True):
        quality = total.mean(group) or Quality(np.nan, np.nan, np.nan)
        figures |= {f'{name.upper()}{ending}': value for name, value in quality._asdict().items()}
    return figures


def per_class(total: Counts, present: Classes) -> list[dict[str, Any]]:
    """A row for each class."""
    rows = []
    for label, (name, quality) in enumerate(zip(present.names, total.by_category(), strict=True)):
        pq, sq, rq = quality or (None, None, None)
        rows.append(
            {
                'name': name,
                'kind': 'thing' if label < len(present.things) else 'stuff',
                **{'PQ': pq, 'SQ': sq, 'RQ': rq},
                'matched': int(total.matched[label]),
                'missed': int(total.false_negatives[label]),
                'invented': int(total.false_positives[label]),
            }
        )
    return rows


def total(compared: Sequence[Compared], count: int) -> Counts:
    """The counts of all images, of ``count`` classes."""
    return reduce(Counts.__add__, (image.counts for image in compared), Counts.none(count))
