"""The files of predicted objects: COCO results with their ids, and the list of images that they belong to."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset

from swin_dense.data import coco
from swin_dense.drawing.overlays import picture
from swin_dense.drawing.pictures import SCORE
from swin_dense.errors import UserError
from swin_dense.formats.predictions import Instances
from swin_dense.storage.atomic import replacing
from swin_dense.tasks.task import Output, Record, Wanted

# COCO numbers its 80 classes from 1 to 90
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@dataclass(frozen=True)
class Ids:
    """The numbers that images and classes have in the predictions.

    Attributes:
        images: by file name; None to count them from 1.
        categories: of each class.
    """

    images: Mapping[str, int] | None
    categories: Sequence[int]


class DetectionOutput(Output[Instances]):
    """``predictions.json`` and ``images.json``.

    Args:
        wanted: what is written.

    Raises:
        UserError: the annotation file with the ids is broken, or lacks an image or a class.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._ids = likely_ids(wanted) if wanted.ids is None else ids_of_file(wanted.ids, wanted)

    def files(self, name: str, is_video: bool) -> list[Path]:
        return []

    def keep(self, prediction: Instances) -> Instances:
        if self._wanted.labels is not None:
            prediction = prediction.only(self._wanted.labels)
        return prediction if self._wanted.score is None else prediction.above(self._wanted.score)

    def write(self, name: str, kept: Instances) -> dict[str, Any]:
        return {'size': list(kept.shape[::-1]), 'objects': _objects(kept)}

    def picture(self, image: np.ndarray, kept: Instances, is_frame: bool) -> np.ndarray:
        drawn = kept.above(SCORE) if self._wanted.score is None else kept
        # objects have their names beside them; a legend would give the frames of a video different sizes
        return picture(image, drawn, [] if is_frame else None)

    def finish(self, records: Iterable[tuple[str, Record]]) -> str:
        """Errors: DiskFullError if there is no space, and the files that were there stay as they are."""
        count = save(self._wanted.out, records, self._ids, self._wanted.classes)
        return f'{count} objects in predictions.json, images.json'


def ids_of_file(annotations: Path, wanted: Wanted) -> Ids:
    """The ids of a COCO annotation file.

    Raises:
        UserError: it is broken, or lacks an image or a class.
    """
    content = coco.read_annotations(annotations)
    categories = {category['name']: category['id'] for category in content['categories']}
    images = {image['file_name']: image['id'] for image in content['images']}
    for name in wanted.classes:
        if name not in categories:
            raise UserError(f'--ids {annotations}: the class {name!r} of the checkpoint is no category in it')
    for name in wanted.file_names:
        if name not in images:
            raise UserError(f'--ids {annotations}: no image has file_name {name!r}')
    return Ids(images, [categories[name] for name in wanted.classes])


def likely_ids(wanted: Wanted) -> Ids:
    """The most likely ids where no file names them.

    An image has the number that its file name is, as in COCO, if all have one. Classes are numbered from 1,
    and those of COCO as COCO numbers them.
    """
    categories: Sequence[int] = range(1, len(wanted.classes) + 1)
    if wanted.classes == tuple(CocoDataset.METAINFO['classes']):
        categories = [number for number in range(1, 91) if number not in COCO_GAPS]
    stems = [Path(name).stem for name in wanted.file_names]
    if wanted.has_video or not all(stem.isascii() and stem.isdigit() for stem in stems):
        return Ids(None, list(categories))
    images = {name: int(stem) for name, stem in zip(wanted.file_names, stems, strict=True)}
    return Ids(images if len({*images.values()}) == len(stems) else None, list(categories))


def save(out: Path, records: Iterable[tuple[str, Record]], ids: Ids, classes: Sequence[str]) -> int:
    """Write ``predictions.json`` and ``images.json``, whole or not at all.

    Args:
        out: folder.
        records: file name and record of each image or frame.
        ids: the numbers.
        classes: names.

    Returns:
        The number of objects.

    Raises:
        DiskFullError: there is no space; the files that were there stay as they are.
        UserError: a file cannot be written for another reason.
    """
    names = zip(ids.categories, classes, strict=True)
    categories = [{'id': number, 'name': name} for number, name in names]
    images, count = 0, 0
    # a line at a time: neither file is ever in memory
    with (
        replacing(out / 'images.json') as images_path,
        replacing(out / 'predictions.json') as results_path,
        images_path.open('w', encoding='ascii') as images_file,
        results_path.open('w', encoding='ascii') as results_file,
    ):
        images_file.write('{"images": [')
        results_file.write('[')
        for file_name, record in records:
            number = images + 1 if ids.images is None else ids.images[file_name]
            image, entries = _entries(file_name, record, number, ids.categories)
            images_file.write((', ' if images else '') + json.dumps(image))
            for entry in entries:
                results_file.write((', ' if count else '') + json.dumps(entry))
                count += 1
            images += 1
        images_file.write('], "categories": ' + json.dumps(categories) + '}')
        results_file.write(']')
    return count


def _entries(
    file_name: str, record: Record, number: int, categories: Sequence[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The image and the COCO results of a record."""
    image = {'file_name': file_name} | ({'frame': record['frame']} if 'frame' in record else {})
    entries = []
    for instance in record['objects']:
        entry = {'image_id': number, **image, 'bbox': instance['bbox'], 'score': instance['score']}
        entry['category_id'] = categories[instance['label']]
        if 'segmentation' in instance:
            entry['segmentation'] = instance['segmentation']
        entries.append(entry)
    width, height = record['size']
    return {'id': number, **image, 'width': width, 'height': height}, entries


def _objects(instances: Instances) -> list[dict[str, Any]]:
    """Each instance in the form of JSON: label, box (x, y, width, height), score, RLE."""
    objects = []
    for i, (label, score) in enumerate(
        zip(instances.labels.tolist(), instances.scores.tolist(), strict=True)
    ):
        x1, y1, x2, y2 = instances.boxes[i].tolist()
        entry: dict[str, Any] = {'label': label, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': score}
        if instances.rles is not None:
            entry['segmentation'] = {**instances.rles[i], 'counts': instances.rles[i]['counts'].decode()}
        objects.append(entry)
    return objects
