"""The one painter of masks, boxes and label maps.

It paints on a layer (H, W, 4) uint8 RGBA, transparent where nothing is. Outlines are opaque, in the very
colour of the class; the regions inside let the photograph through. ``over`` lays the layer over a photograph.
"""

from collections.abc import Sequence

import cv2
import numpy as np

MASK_FILL, LABEL_FILL = 110, 120  # opacity inside of a mask, of a region of a label map
DARK = 190  # opacity of black where a label map has no label
OPAQUE = 255
BAND = 256  # rows that are composed at once: the numbers in between are floats
BACKGROUND = 'background'  # a class of this name is not painted


def new_layer(height: int, width: int) -> np.ndarray:
    """(height, width, 4): nothing."""
    return np.zeros((height, width, 4), np.uint8)


def paint_mask(
    layer: np.ndarray, mask: np.ndarray, colour: np.ndarray, thickness: int, is_wrong: bool = False
) -> None:
    """Paint a region.

    Args:
        layer: (H, W, 4), or a part of one; changed in place.
        mask: (H, W) uint8 or bool.
        colour: (3,) of its class.
        thickness: of the outline, in pixels.
        is_wrong: mark the region by a white outline.
    """
    layer[mask.astype(bool)] = (*colour.tolist(), MASK_FILL)
    edges = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    for line, width in _lines(colour, thickness, is_wrong):
        cv2.drawContours(layer, edges, -1, line, width)


def paint_box(
    layer: np.ndarray, box: Sequence[int], colour: np.ndarray, thickness: int, is_wrong: bool = False
) -> None:
    """Paint the outline of a box x1, y1, x2, y2; other arguments as those of ``paint_mask``."""
    x1, y1, x2, y2 = map(int, box)
    for line, width in _lines(colour, thickness, is_wrong):
        cv2.rectangle(layer, (x1, y1), (x2, y2), line, width)


def paint_labels(
    layer: np.ndarray, labels: np.ndarray, palette: np.ndarray, classes: Sequence[str], thickness: int
) -> None:
    """Paint a label map: every region but the background's, and black where there is no label.

    Args:
        layer: (H, W, 4); changed in place.
        labels: (H, W) integers; those from ``len(classes)`` on mean that there is no label.
        palette: (classes, 3).
        classes: names.
        thickness: of the outlines, in pixels.
    """
    table = np.zeros((len(classes) + 1, 4), np.uint8)
    table[:-1, :3] = palette
    table[:-1, 3] = [0 if name == BACKGROUND else LABEL_FILL for name in classes]
    table[-1] = (0, 0, 0, DARK)
    height = len(labels)
    for top in range(0, height, BAND):
        # with the rows around it, whose labels decide about its outlines
        first, last = max(0, top - thickness), min(height, top + BAND + thickness)
        part = np.minimum(labels[first:last], len(classes)).astype(np.int32)
        outline = _borders(part, thickness) & (table[part, 3] == LABEL_FILL)
        painted = table[part]
        painted[outline, 3] = OPAQUE
        layer[top : top + BAND] = painted[top - first : top - first + BAND]


def over(photograph: np.ndarray, layer: np.ndarray, mutes_all: bool = False) -> np.ndarray:
    """(H, W, 3) uint8: a photograph (H, W, 3) uint8 under a layer.

    The photograph is muted where something is painted on it, so that its own colours do not mix with those of
    the classes; or everywhere, for label maps.
    """
    canvas = np.empty_like(photograph)
    for top in range(0, len(photograph), BAND):
        part = layer[top : top + BAND].astype(np.float32)
        opacity, plain = part[..., 3:] / 255, photograph[top : top + BAND]
        below = np.where((opacity > 0) | mutes_all, muted(plain), plain)
        canvas[top : top + BAND] = ((1 - opacity) * below + opacity * part[..., :3]).round().astype(np.uint8)
    return canvas


def muted(photograph: np.ndarray) -> np.ndarray:
    """A photograph (H, W, 3) uint8 with little colour, and lighter."""
    gray = photograph @ np.array((0.299, 0.587, 0.114), np.float32)
    # a fifth of the colour, and a third of the way to white
    lighter = 85 + 2 / 3 * (0.8 * gray[..., None] + 0.2 * photograph)
    return lighter.astype(np.uint8)


def thickness_for(shape: Sequence[int]) -> int:
    """Of outlines in a picture of this height and width: 2 pixels at 640, 3 at 1000."""
    return max(1, round(max(shape[:2]) / 350))


def box_thickness(thickness: int, with_masks: bool) -> int:
    """Of boxes: thin where masks have an outline of their own."""
    return max(1, thickness // 2) if with_masks else thickness


def _lines(colour: np.ndarray, thickness: int, is_wrong: bool) -> list[tuple[tuple[int, int, int, int], int]]:
    """The lines of an outline, the lowest first, each with its width."""
    if is_wrong:
        return [((0, 0, 0, OPAQUE), thickness + 2), ((255, 255, 255, OPAQUE), thickness)]
    red, green, blue = colour.tolist()
    return [((red, green, blue, OPAQUE), thickness)]


def _borders(labels: np.ndarray, thickness: int) -> np.ndarray:
    """(H, W) bool: pixels nearer than ``thickness`` to one of another label, beside or above it."""
    borders = np.zeros(labels.shape, bool)
    for step in range(1, thickness + 1):
        rows = labels[step:] != labels[:-step]
        columns = labels[:, step:] != labels[:, :-step]
        borders[step:] |= rows
        borders[:-step] |= rows
        borders[:, step:] |= columns
        borders[:, :-step] |= columns
    return borders
