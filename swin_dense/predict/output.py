"""What predictions leave in a folder: pictures, COCO JSON with its ids, PNG label maps, videos."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

from swin_dense.data import coco
from swin_dense.errors import DiskFullError, UserError
from swin_dense.formats.predictions import LabelMap
from swin_dense.predict.journal import Journal
from swin_dense.predict.sources import Source, takes_name
from swin_dense.storage.atomic import PARTIAL, replacing, write_bytes

# COCO numbers its 80 classes from 1 to 90
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
QUALITY = 95  # of JPEG: below it thin coloured lines are smeared
ENOUGH = 2**20  # bytes free below which a video that is not whole is put down to the disk


@dataclass(frozen=True)
class Ids:
    """The numbers that images and classes have in the predictions.

    Attributes:
        images: by file name; None to count them from 1.
        categories: of each class.
    """

    images: dict[str, int] | None
    categories: Sequence[int]


def ids(sources: Sequence[Source], classes: Sequence[str], annotations: Path | None) -> Ids:
    """The ids of a COCO annotation file, or the most likely ones without it.

    Those are for images the number that is the file's name, as in COCO, if all have one, and for classes
    1, 2, ..., or those of COCO for COCO's classes.

    Raises:
        UserError: the annotation file is broken, or lacks an image or a class.
    """
    if annotations is not None:
        content = coco.read(annotations)
        numbers = {category['name']: category['id'] for category in content['categories']}
        known = {image['file_name']: image['id'] for image in content['images']}
        for name in classes:
            if name not in numbers:
                raise UserError(
                    f'--ids {annotations}: the class {name!r} of the checkpoint is no category in it'
                )
        for source in sources:
            if source.file_name not in known:
                raise UserError(f'--ids {annotations}: no image has file_name {source.file_name!r}')
        return Ids(known, [numbers[name] for name in classes])
    numbers = range(1, len(classes) + 1)
    if tuple(classes) == tuple(CocoDataset.METAINFO['classes']):
        numbers = [number for number in range(1, 91) if number not in COCO_GAPS]
    stems = [Path(source.file_name).stem for source in sources]
    numbered = all(stem.isascii() and stem.isdigit() for stem in stems) and len({*map(int, stems)}) == len(
        stems
    )
    if numbered and not any(source.is_video for source in sources):
        return Ids({x.file_name: int(stem) for x, stem in zip(sources, stems, strict=True)}, list(numbers))
    return Ids(None, list(numbers))


def save(out: Path, sources: Sequence[Source], done: Journal, numbers: Ids, classes: Sequence[str]) -> int:
    """Write ``predictions.json`` and ``images.json`` from the journal, whole or not at all.

    Args:
        out: folder.
        sources: images and videos in the order of the output; those that the journal lacks are left out.
        done: the journal.
        numbers: ids.
        classes: names.

    Returns:
        The number of objects.

    Raises:
        DiskFullError: there is no space; the journal and the files that were there stay as they are.
        UserError: a file cannot be written for another reason.
    """
    names = zip(numbers.categories, classes, strict=True)
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
        for source in sources:
            for line in done.read(source):
                image, entries = _entries(line, source, numbers, images + 1)
                images_file.write((', ' if images else '') + json.dumps(image))
                for entry in entries:
                    results_file.write((', ' if count else '') + json.dumps(entry))
                    count += 1
                images += 1
        images_file.write('], "categories": ' + json.dumps(categories) + '}')
        results_file.write(']')
    return count


def _entries(
    line: Mapping[str, Any], source: Source, numbers: Ids, count: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The image and the COCO results of a line of the journal; ``count`` is the id where files give none."""
    number = count if numbers.images is None else numbers.images[source.file_name]
    image = {'file_name': source.file_name} | ({'frame': line['frame']} if 'frame' in line else {})
    entries = []
    for found in line['objects']:
        entry = {'image_id': number, **image, 'bbox': found['bbox'], 'score': found['score']}
        entry['category_id'] = numbers.categories[found['label']]
        if 'segmentation' in found:
            entry['segmentation'] = found['segmentation']
        entries.append(entry)
    width, height = line['size']
    return {'id': number, **image, 'width': width, 'height': height}, entries


def save_labels(path: Path, found: LabelMap, reduces_zero_label: bool) -> None:
    """Write a PNG label map in the numbers of the training data's: with 0 unlabelled, classes begin at 1."""
    # what has no label is the highest number, and becomes 0
    save_image(
        path, found.label_map + found.label_map.dtype.type(1) if reduces_zero_label else found.label_map
    )


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a picture (H, W, 3) BGR or a label map (H, W), whole or not at all.

    Raises:
        DiskFullError: there is no space.
        UserError: it cannot be written for another reason.
    """
    # OpenCV's own writing fails in silence
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == '.jpg' else []
    write_bytes(path, cv2.imencode(path.suffix, image, options)[1].tobytes())


class VideoFile:
    """A video that is written frame by frame, MPEG-4; it appears under its name when it is whole.

    A context manager: if its block ends with an error, nothing is left.

    Args:
        path: ends in ``.mp4``.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.frames = 0
        # OpenCV tells the format by the name; so a folder has the suffix of what is being written
        self._folder = path.with_name(f'{path.name}.frames{PARTIAL}')
        self._part = self._folder / 'video.mp4'
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> 'VideoFile':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None and self._writer is not None:
                self._close()
        finally:
            if self._writer is not None:
                self._writer.release()
                shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) BGR; all have the same size.

        Raises:
            DiskFullError: there is no space.
            UserError: OpenCV cannot write it.
        """
        if self._writer is None:
            self._begin(frame.shape[1::-1])
        self._writer.write(frame)
        self.frames += 1
        if not shutil.disk_usage(self._folder).free:  # OpenCV does not say so
            raise DiskFullError(self.path, self._part.stat().st_size, 0)

    def _begin(self, size: tuple[int, int]) -> None:
        try:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'video {self.path} cannot be written: {error.strerror}') from error
        if takes_name(self._part):
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*'mp4v'), self.fps, size)
        if self._writer is None or not self._writer.isOpened():
            shutil.rmtree(self._folder, ignore_errors=True)
            raise UserError(f'video {self.path} cannot be written')

    def _close(self) -> None:
        self._writer.release()
        written = cv2.VideoCapture(str(self._part))
        whole = written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) >= self.frames
        written.release()
        free = shutil.disk_usage(self._folder).free
        if not whole and free < ENOUGH:
            raise DiskFullError(self.path, self._part.stat().st_size, free)
        if not whole:
            raise UserError(f'video {self.path} cannot be written: OpenCV has not written all its frames')
        with replacing(self.path) as partial:
            self._part.replace(partial)
