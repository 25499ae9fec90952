"""A model without weights, which finds the same in the same images at once: for tests of all around it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_api

from swin_dense.errors import UserError
from swin_dense.formats.predictions import Instances, LabelMap

CLASSES = ('cat', 'dog', 'zebra')


class StubPredictor:
    """Stands in for ``Predictor``.

    Args:
        task: ``'detection'`` or ``'segmentation'``.
        objects: found in each image.

    Attributes:
        calls: how many images each call was given.
    """

    channels = 3
    reduces_zero_label = False

    def __init__(self, task: str = 'detection', objects: int = 2) -> None:
        self.task, self.classes, self.objects = task, CLASSES, objects
        self.calls: list[int] = []

    def read(self, path: Path) -> np.ndarray:
        image = cv2.imread(str(path))
        if image is None:
            raise UserError(f'image {path} cannot be read: it is damaged, or no image')
        return image

    def predict(self, images: Sequence[np.ndarray]) -> list[Instances | LabelMap]:
        self.calls.append(len(images))
        # what is found depends on what is predicted together, as a little does in a real model
        seed = [len(images), *(int(image.astype(np.int64).sum()) for image in images)]
        generators = (np.random.default_rng([number, *seed]) for number in range(len(images)))
        return [self._result(image, random) for image, random in zip(images, generators, strict=True)]

    def _result(self, image: np.ndarray, random: np.random.Generator) -> Instances | LabelMap:
        height, width = image.shape[:2]
        if self.task == 'segmentation':
            return LabelMap(random.integers(0, 3, (height, width), np.uint8), CLASSES)
        corners = np.sort(random.random((self.objects, 2, 2)) * (width, height), axis=1)
        masks = [random.random((height, width)) < 0.1 for _ in range(self.objects)]
        return Instances(
            corners.reshape(-1, 4).astype(np.float32),
            random.integers(0, 3, self.objects),
            random.random(self.objects).astype(np.float32),
            [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in masks],
            CLASSES,
            (height, width),
        )
