"""Pictures of predictions alone: objects with names and scores, label maps, segments, each with a legend."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swin_dense.drawing.colours import colours, ink_is_black
from swin_dense.drawing.painter import (
    BACKGROUND,
    box_thickness,
    new_layer,
    over,
    paint_box,
    paint_labels,
    paint_mask,
    thickness_for,
)
from swin_dense.formats import rle
from swin_dense.formats.predictions import Instances, LabelMap, PanopticMap, Predicted
from swin_dense.printable import printable

SMALLEST, LARGEST = (
    640,
    4000,
)  # pixels of a picture's longer side: smaller images are enlarged, larger reduced
LISTED = 30  # classes in a legend


def picture(image: np.ndarray, result: Predicted, legend: Sequence[int] | None = None) -> np.ndarray:
    """A picture of the prediction for an image.

    Args:
        image: (H, W, 3) uint8 RGB; left as it is.
        result: what is drawn, all of it.
        legend: labels that are listed below; None for those that occur, with their number or area.

    Returns:
        (H', W', 3) uint8 RGB, at a readable size.
    """
    scale = _scale(image.shape)
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    palette, thickness = colours(len(result.classes)), thickness_for(canvas.shape)
    layer = new_layer(*canvas.shape[:2])
    if isinstance(result, Instances):
        _paint_objects(layer, result, scale, palette, thickness)
        canvas = over(canvas, layer)
        _write_labels(canvas, result, scale, palette)
        counts = np.bincount(result.labels, minlength=len(result.classes))
        amounts = {i: str(counts[i]) for i in np.argsort(-counts) if counts[i]}
    else:
        regions, labels = _regions(result)
        names = [result.classes[label] for label in labels]
        reduced = cv2.resize(regions, size, interpolation=cv2.INTER_NEAREST)
        paint_labels(layer, reduced, palette[labels], names, thickness)
        canvas = over(canvas, layer, mutes_all=True)
        amounts = _areas(result) if isinstance(result, LabelMap) else _segments(result)
    if legend is not None:
        amounts = dict.fromkeys(legend, '')
    if not isinstance(result, Instances) and BACKGROUND in result.classes:
        palette[result.classes.index(BACKGROUND)] = 255  # it is not tinted
    entries = [(f'{result.classes[i]}  {amount}'.strip(), palette[i]) for i, amount in amounts.items()]
    return np.concatenate([canvas, _legend(entries, canvas.shape[1])])


def _regions(result: LabelMap | PanopticMap) -> tuple[np.ndarray, list[int]]:
    """(H, W) the number of each pixel's region, as many as there are regions for none; the label of each."""
    if isinstance(result, LabelMap):
        return result.label_map, list(range(len(result.classes)))
    count = len(result.labels)
    return np.where(result.ids > 0, result.ids - 1, count).astype(np.float32), result.labels.tolist()


def _areas(result: LabelMap) -> dict[int, str]:
    """The share of the pixels of each class that has any, the largest first."""
    shares = _shares(result)
    return {i: f'{shares[i]:.1%}' for i in np.argsort(-shares) if shares[i]}


def _segments(result: PanopticMap) -> dict[int, str]:
    """The segments of each thing that has any, the most first, and then the share of the pixels of stuff."""
    counts = np.bincount(result.labels, minlength=len(result.classes))
    pixels = np.bincount(result.ids.ravel(), minlength=len(result.labels) + 1)[1:]
    areas = np.bincount(result.labels, weights=pixels, minlength=len(result.classes)) / result.ids.size
    things = [i for i in np.argsort(-counts, kind='stable') if counts[i] and i < result.things]
    stuff = [i for i in np.argsort(-areas, kind='stable') if counts[i] and i >= result.things]
    return {i: str(counts[i]) for i in things} | {i: f'{areas[i]:.1%}' for i in stuff}


def _shares(result: LabelMap) -> np.ndarray:
    """(classes,) the share of the pixels that each has; by rows, as bincount makes 8 bytes of each pixel."""
    count = len(result.classes)
    pixels = sum(np.bincount(np.minimum(row, count), minlength=count + 1)[:count] for row in result.label_map)
    return np.asarray(pixels) / result.label_map.size


def _scale(shape: Sequence[int]) -> float:
    longest = max(shape[:2])
    if longest > LARGEST:
        return LARGEST / longest
    return max(1, min(8, -(-SMALLEST // longest)))


def _paint_objects(
    layer: np.ndarray, instances: Instances, scale: float, palette: np.ndarray, thickness: int
) -> None:
    """The most certain on top."""
    order = np.argsort(instances.scores, kind='stable')
    for i in order:
        if instances.rles is not None:
            _paint_rle(layer, instances.rles[i], scale, palette[instances.labels[i]], thickness)
    thickness = box_thickness(thickness, instances.rles is not None)
    corners = (instances.boxes * scale).round().astype(int)
    for i in order:
        paint_box(layer, corners[i].tolist(), palette[instances.labels[i]], thickness)


def _paint_rle(layer: np.ndarray, mask: dict, scale: float, colour: np.ndarray, thickness: int) -> None:
    """Paint a mask; of a large image only the part around it is ever decoded."""
    x, y, w, h = rle.extent(mask)
    if not w or not h:
        return
    left, top, right, bottom = (round(side * scale) for side in (x, y, x + w, y + h))
    right, bottom = min(max(right, left + 1), layer.shape[1]), min(max(bottom, top + 1), layer.shape[0])
    inside = rle.crop(mask, x, y, x + w, y + h).astype(np.uint8)
    reduced = cv2.resize(inside, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
    # with a margin, for the outline
    margin = thickness + 1
    above, before = min(top, margin), min(left, margin)
    below, behind = min(layer.shape[0] - bottom, margin), min(layer.shape[1] - right, margin)
    padded = np.pad(reduced, ((above, below), (before, behind)))
    part = layer[top - above : bottom + below, left - before : right + behind]
    # OpenCV draws on whole arrays alone
    painted = np.ascontiguousarray(part)
    paint_mask(painted, padded, colour, thickness)
    part[:] = painted


def _write_labels(canvas: np.ndarray, instances: Instances, scale: float, palette: np.ndarray) -> None:
    """Names and scores, those of the most certain first."""
    corners = (instances.boxes * scale).round().astype(int)
    size = _text_size(canvas.shape)
    taken: list[tuple[int, int, int, int]] = []
    for i in np.argsort(instances.scores, kind='stable')[::-1]:
        score = f'{instances.scores[i]:.2f}'
        names = f'{instances.classes[instances.labels[i]]} {score}', score
        _write_label(canvas, names, corners[i], palette[instances.labels[i]], size, taken)


def _write_label(
    canvas: np.ndarray,
    names: Sequence[str],
    box: np.ndarray,
    colour: np.ndarray,
    size: int,
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Write the first of the names that is not much wider than an object above, in or below its box.

    Where other names stand, or no name is narrow enough, the object is left to the legend.
    """
    widest = min(2 * (box[2] - box[0]), canvas.shape[1])
    text = next((text for name in names if (text := _text(name, size)).shape[1] <= widest), None)
    if text is None or len(text) > len(canvas):
        return
    height, width = text.shape
    x = int(np.clip(box[0], 0, canvas.shape[1] - width))
    for y in (box[1] - height, box[1], box[3]):
        spot = (x, int(y), x + width, int(y) + height)
        outside = spot[1] < 0 or spot[3] > len(canvas)
        if outside or any(_meet(spot, other) for other in taken):
            continue
        taken.append(spot)
        _paste(canvas[spot[1] : spot[3], spot[0] : spot[2]], text, colour)
        return


def _meet(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _paste(part: np.ndarray, text: np.ndarray, colour: np.ndarray) -> None:
    """Text on a ground of the class's colour, black or white, whichever stands out."""
    ink = 0 if ink_is_black(colour) else 255
    opacity = text[..., None] / 255
    part[:] = opacity * ink + (1 - opacity) * colour


def _legend(entries: Sequence[tuple[str, np.ndarray]], width: int) -> np.ndarray:
    """(h, width, 3): the names beside their colours, in as many lines as they need."""
    if len(entries) > LISTED:
        rest = f'and {len(entries) - LISTED} more'
        entries = [*entries[:LISTED], (rest, np.full(3, 255, np.uint8))]
    size = _text_size((width, width))
    line, gap = size + size // 2 + 4, size // 2
    lines: list[list[tuple[int, np.ndarray, np.ndarray]]] = [[]]
    x = gap
    for name, colour in entries:
        text = _text(name, size)[:, : max(1, width - 2 * gap - size)]
        if lines[-1] and x + size + text.shape[1] + gap > width:
            lines.append([])
            x = gap
        lines[-1].append((x, text, colour))
        x += size + text.shape[1] + 2 * gap
    if not entries or width < 4 * size:
        return np.zeros((0, width, 3), np.uint8)
    strip = np.full((line * len(lines) + gap, width, 3), 255, np.uint8)
    for number, row in enumerate(lines):
        for x, text, colour in row:
            y = gap // 2 + number * line
            middle = y + (line - size) // 2
            strip[middle : middle + size, x : x + size] = 190  # a frame
            strip[middle + 1 : middle + size - 1, x + 1 : x + size - 1] = colour
            top = y + max(0, (line - len(text)) // 2)
            spot = strip[top : top + len(text), x + size : x + size + text.shape[1]]
            spot[:] = 255 - text[: len(spot), : spot.shape[1], None]
    return strip


def _text_size(shape: Sequence[int]) -> int:
    return int(np.clip(max(shape[:2]) / 60, 12, 48))


@lru_cache(maxsize=4096)
def _text(text: str, size: int) -> np.ndarray:
    """(h, w) uint8: how much of each pixel is ink. OpenCV's own fonts have no letters beyond ASCII."""
    font, text = _font(size), printable(text)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    pad = size // 4
    image = Image.new('L', (int(max(1, right - left)) + 2 * pad, ascent + descent))
    ImageDraw.Draw(image).text((pad - left, 0), text, fill=255, font=font)
    return np.asarray(image)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts/ttf/DejaVuSans.ttf')), size)
