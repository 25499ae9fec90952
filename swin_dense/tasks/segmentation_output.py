"""The files of predicted label maps: PNGs in the numbers of the training data."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from swin_dense.drawing.overlays import LISTED, picture
from swin_dense.errors import UserError
from swin_dense.formats.predictions import LabelMap
from swin_dense.formats.saving import save_image
from swin_dense.tasks.task import Output, Record, Wanted


class SegmentationOutput(Output[LabelMap]):
    """``label_maps/NAME.png``, one for each image; a folder of them for each video.

    Args:
        wanted: what is written.

    Raises:
        UserError: ids are wanted, which label maps do not have.
    """

    def __init__(self, wanted: Wanted) -> None:
        if wanted.ids is not None:
            raise UserError('--ids is for detection: label maps are named after their images')
        self._wanted, self._folder = wanted, wanted.out / 'label_maps'

    def files(self, name: str, is_video: bool) -> list[Path]:
        return [self._folder / (name if is_video else f'{name}.png')]

    def keep(self, prediction: LabelMap) -> LabelMap:
        return prediction if self._wanted.labels is None else prediction.only(self._wanted.labels)

    def write(self, name: str, kept: LabelMap) -> None:
        """Write the label map; where 0 is unlabelled, classes begin at 1.

        Raises:
            DiskFullError: there is no space.
            UserError: it cannot be written for another reason.
        """
        labels = kept.label_map
        if self._wanted.zero_is_unlabelled:
            labels = labels + labels.dtype.type(1)  # the highest number means unlabelled, and becomes 0
        save_image(self._folder / f'{name}.png', labels)

    def picture(self, image: np.ndarray, kept: LabelMap, is_frame: bool) -> np.ndarray:
        # all frames of a video have one size, and so a legend that does not change
        labels = self._wanted.labels or range(len(kept.classes))
        return picture(image, kept, list(labels)[:LISTED] if is_frame else None)

    def finish(self, records: Iterable[tuple[str, Record]]) -> str:
        return 'label_maps'
