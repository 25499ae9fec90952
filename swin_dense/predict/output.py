"""What predictions leave in a folder: pictures, COCO JSON with its ids, PNG label maps, videos."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

from swin_dense.data import coco
from swin_dense.errors import UserError
from swin_dense.predict.results import Instances, LabelMap
from swin_dense.predict.sources import Source

# COCO numbers its 80 classes from 1 to 90
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
QUALITY = 95  # of JPEG: below it thin coloured lines are smeared


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


class Predictions:
    """COCO's list of results, and the images and categories that its ids mean."""

    def __init__(self, numbers: Ids, classes: Sequence[str]) -> None:
        self.ids = numbers
        self.classes = classes
        self.results: list[dict[str, Any]] = []
        self.images: list[dict[str, Any]] = []

    def add(self, found: Instances, source: Source, frame: int | None) -> None:
        """Add the objects of an image or a frame."""
        number = len(self.images) + 1 if self.ids.images is None else self.ids.images[source.file_name]
        image = {'file_name': source.file_name} | ({} if frame is None else {'frame': frame})
        height, width = found.shape
        self.images.append({'id': number, **image, 'width': width, 'height': height})
        for i, (label, score) in enumerate(zip(found.labels, found.scores.tolist(), strict=True)):
            x1, y1, x2, y2 = found.boxes[i].tolist()
            entry = {'image_id': number, **image, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'score': score}
            entry['category_id'] = self.ids.categories[label]
            if found.rles is not None:
                entry['segmentation'] = {**found.rles[i], 'counts': found.rles[i]['counts'].decode()}
            self.results.append(entry)

    def save(self, out: Path) -> None:
        """Write ``predictions.json`` and ``images.json``."""
        names = zip(self.ids.categories, self.classes, strict=True)
        categories = [{'id': number, 'name': name} for number, name in names]
        (out / 'predictions.json').write_text(json.dumps(self.results))
        (out / 'images.json').write_text(json.dumps({'images': self.images, 'categories': categories}))


def save_labels(path: Path, found: LabelMap, reduces_zero_label: bool) -> None:
    """Write a PNG label map in the numbers of the training data's: with 0 unlabelled, classes begin at 1."""
    # what has no label is the highest number, and becomes 0
    save_image(
        path, found.label_map + found.label_map.dtype.type(1) if reduces_zero_label else found.label_map
    )


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a picture (H, W, 3) BGR or a label map (H, W).

    Raises:
        UserError: it cannot be written.
    """
    # OpenCV's own writing fails in silence
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == '.jpg' else []
    encoded = cv2.imencode(path.suffix, image, options)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}') from error


class VideoFile:
    """A video that is written frame by frame; MPEG-4."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) BGR; all have the same size.

        Raises:
            UserError: OpenCV cannot write it.
        """
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self.writer = cv2.VideoWriter(str(self.path), code, self.fps, frame.shape[1::-1])
            if not self.writer.isOpened():
                raise UserError(f'video {self.path} cannot be written')
        self.writer.write(frame)

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.release()
