"""The files of predicted panoptic maps: COCO's panoptic results."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.drawing.overlays import LISTED, picture
from swin_dense.errors import UserError
from swin_dense.evaluate.panoptic_metric import segments_info
from swin_dense.formats.panoptic_json import read_panoptic
from swin_dense.formats.panoptic_pngs import colours_of
from swin_dense.formats.predictions import PanopticMap
from swin_dense.formats.saving import save_image
from swin_dense.storage import atomic
from swin_dense.tasks.task import Output, Record, Wanted


class PanopticOutput(Output[PanopticMap]):
    """``panoptic.json`` beside ``panoptic/NAME.png``, one for each image; a folder of them for each video.

    Args:
        wanted: what is written.

    Raises:
        UserError: the annotation file with the ids is broken, or lacks an image or a class.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted, self._folder = wanted, wanted.out / 'panoptic'
        self._categories = dict(enumerate(range(1, len(wanted.classes) + 1)))
        self._images: dict[str, int | str] | None = None
        if wanted.ids is not None:
            self._read_ids(wanted.ids)

    def _read_ids(self, path: Path) -> None:
        content = read_panoptic(path)
        categories = {category['name']: category['id'] for category in content['categories']}
        self._images = {image['file_name']: image['id'] for image in content['images']}
        for name in self._wanted.classes:
            if name not in categories:
                raise UserError(f'--ids {path}: the class {name!r} of the checkpoint is no category in it')
        for name in self._wanted.file_names:
            if name not in self._images:
                raise UserError(f'--ids {path}: no image has file_name {name!r}')
        self._categories = {label: categories[name] for label, name in enumerate(self._wanted.classes)}

    def files(self, name: str, is_video: bool) -> list[Path]:
        return [self._folder / (name if is_video else f'{name}.png')]

    def keep(self, prediction: PanopticMap) -> PanopticMap:
        return prediction if self._wanted.labels is None else prediction.only(self._wanted.labels)

    def write(self, name: str, kept: PanopticMap) -> dict[str, Any]:
        """Write the PNG.

        Raises:
            DiskFullError: there is no space.
            UserError: it cannot be written for another reason.
        """
        save_image(self._folder / f'{name}.png', colours_of(kept.ids)[..., ::-1])
        return {'png': f'{name}.png', 'segments': segments_info(kept, self._categories)}

    def picture(self, image: np.ndarray, kept: PanopticMap, is_frame: bool) -> np.ndarray:
        # all frames of a video have one size, and so a legend that does not change
        labels = self._wanted.labels or range(len(kept.classes))
        return picture(image, kept, list(labels)[:LISTED] if is_frame else None)

    def finish(self, records: Iterable[tuple[str, Record]]) -> str:
        """Write ``panoptic.json``; errors as ``write``."""
        annotations = []
        for number, (file_name, record) in enumerate(records, 1):
            image = number if self._images is None else self._images[file_name]
            annotations.append(
                {
                    'image_id': image,
                    'file_name': record['png'],
                    'segments_info': record['segments'],
                    'image': file_name,
                }
            )
        categories = [
            {'id': self._categories[label], 'name': name} for label, name in enumerate(self._wanted.classes)
        ]
        content = {'annotations': annotations, 'categories': categories}
        atomic.write_text(self._wanted.out / 'panoptic.json', json.dumps(content))
        return f'{len(annotations)} maps in panoptic, panoptic.json'
