"""The images of a scored data set: how good the prediction of each is, and what can be drawn of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from swin_dense.formats.pixels import read_picture

# makes a photograph (H, W, 3) uint8 RGB, and layers (H, W, 4) of ground truth and prediction
Draw = Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]
SIDE = 640  # pixels of the longer side of a picture


@dataclass
class Example:
    """An image that may be shown.

    Attributes:
        name: file name.
        value: how good its prediction is, from 0 to 1.
        confused: how much was taken for another class, in the unit of ``said``.
        classes: indices of the classes in its ground truth or prediction.
        said: a line about it.
        draw: makes its pictures.
    """

    name: str
    value: float
    confused: float
    classes: list[int]
    said: str
    draw: Draw


def photograph(path: Path) -> tuple[np.ndarray, float]:
    """An image reduced to ``SIDE``, (H, W, 3) uint8 RGB, and by how much.

    Raises:
        UserError: it cannot be read.
    """
    image = read_picture(path)
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale
