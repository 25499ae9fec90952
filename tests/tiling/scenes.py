"""Random scenes, and stand-ins for models whose output at a pixel depends on that pixel alone."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as mask_api
from scipy import ndimage

from swin_dense.formats.predictions import Instances, LabelMap

CLASSES = ('a', 'b', 'c')


def objects(images: Sequence[np.ndarray]) -> list[Instances]:
    """The connected regions of equal value: value v is of class v % 3; values below 3 are background."""
    return [_objects(image[..., 0]) for image in images]


def _objects(image: np.ndarray) -> Instances:
    masks, labels = [], []
    for value in np.unique(image[image >= 3]):
        regions, count = ndimage.label(image == value, np.ones((3, 3)))
        masks += [regions == number for number in range(1, count + 1)]
        labels += [int(value) % 3] * count
    rles = [mask_api.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    corners = [(x.min(), y.min(), x.max() + 1, y.max() + 1) for y, x in map(np.nonzero, masks)]
    boxes = np.array(corners, np.float32).reshape(-1, 4)
    # the score says how large the part is that is seen
    scores = np.array([mask.mean() for mask in masks], np.float32)
    return Instances(boxes, np.array(labels, int), scores, rles, CLASSES, image.shape)


def boxes(images: Sequence[np.ndarray]) -> list[Instances]:
    """The same of a model without masks."""
    return [Instances(x.boxes, x.labels, x.scores, None, x.classes, x.shape) for x in objects(images)]


def pixels(images: Sequence[np.ndarray]) -> list[LabelMap]:
    """Logits of five classes from the three values of a pixel."""
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    found = []
    for image in images:
        logits = np.einsum('ck,hwk->chw', weights, image.astype(np.float32))
        found.append(LabelMap(logits.argmax(0).astype(np.uint8), tuple('abcde'), logits))
    return found


def scene(seed: int, side: int = 160, count: int = 12) -> np.ndarray:
    """(side, side, 3) uint8: shapes of several classes; none touches another of its own value."""
    random = np.random.default_rng(seed)
    canvas = np.zeros((side, side), np.uint8)
    taken = np.zeros((side, side), bool)
    rows, columns = np.mgrid[:side, :side]
    for number in range(count):
        shape = _shape(random, rows, columns, side)
        if not (shape & taken).any() and shape.any():
            canvas[shape] = 3 + number  # neighbours may touch, but have other values
            taken |= shape
    return np.repeat(canvas[..., None], 3, 2)


def _shape(random: np.random.Generator, rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    y, x = random.integers(0, side, 2)
    h, w = random.integers(2, side // 2, 2)
    kind = random.integers(4)
    if kind == 0:
        return ((rows - y) / h) ** 2 + ((columns - x) / w) ** 2 <= 0.25
    inside = (abs(rows - y) * 2 <= h) & (abs(columns - x) * 2 <= w)
    if kind == 1:
        return inside
    thick = random.integers(2, 12)
    across = abs(columns - x) * 2 > w - thick
    if kind == 2:  # a U on its side or upright
        return inside & (across | (rows > y + h / 2 - thick))
    return inside & ((columns < x - w / 2 + thick) | (rows > y + h / 2 - thick))  # an L
