"""Pictures of results: ground truth beside predictions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

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
from swin_dense.formats.pixels import read_picture
from swin_dense.printable import printable
from swin_dense.storage import atomic

SCORE = 0.5  # instances below it are not drawn
LISTED = 20  # classes in a legend
BATCH = 8  # images of a batch that are drawn
NAMED = 30  # objects of an image: names on more would cover it


@dataclass
class Drawing:
    """A drawing on an image: instances, a label map, segments, or only a caption above it.

    Attributes:
        labels: (N,) class of each instance.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the original image.
        masks: (N, H, W) bool, None for boxes alone.
        scores: (N,), None for ground truth.
        label_map: (H, W) class of each pixel, None for instances.
        segments: (H, W) the place of each pixel's segment in ``labels``, N where none is; None for others.
        caption: a few words about the whole image.
    """

    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None
    label_map: np.ndarray | None = None
    segments: np.ndarray | None = None
    caption: str = ''


@dataclass
class Pair:
    """An image file with its ground truth and a prediction."""

    image: Path
    truth: Drawing
    prediction: Drawing


def draw(image: np.ndarray, drawing: Drawing, classes: Sequence[str]) -> np.ndarray:
    """Lay a drawing over an RGB image (H, W, 3) uint8; returns a new image."""
    palette, thickness = colours(len(classes)), thickness_for(image.shape)
    layer = new_layer(*image.shape[:2])
    if drawing.label_map is not None:
        paint_labels(layer, drawing.label_map, palette, classes, thickness)
        return over(image, layer, mutes_all=True)
    if drawing.segments is not None and drawing.labels is not None:
        known = drawing.labels < len(classes)
        # the pixels of other segments have no label
        places = np.append(np.where(known, known.cumsum() - 1, known.sum()), known.sum())
        labels = drawing.labels[known]
        names = [classes[label] for label in labels]
        paint_labels(layer, places[drawing.segments], palette[labels], names, thickness)
        return over(image, layer, mutes_all=True)
    for label, mask in _of_each(drawing, drawing.masks):
        paint_mask(layer, mask, palette[label], thickness)
    thickness = box_thickness(thickness, drawing.masks is not None)
    for label, box in _of_each(drawing, drawing.boxes):
        paint_box(layer, box.round().astype(int).tolist(), palette[label], thickness)
    return over(image, layer)


def _of_each(drawing: Drawing, values: np.ndarray | None) -> Iterable[tuple[int, np.ndarray]]:
    """The label of each instance with one of its values; none if a drawing lacks them."""
    if drawing.labels is None or values is None:
        return ()
    return zip(drawing.labels.tolist(), values, strict=True)


def _amount(drawing: Drawing, classes: Sequence[str]) -> str:
    """How much is drawn."""
    unit = 'objects' if drawing.segments is None else 'segments'
    labels = () if drawing.labels is None else drawing.labels
    return f'{np.count_nonzero(np.less(labels, len(classes)))} {unit}'


def _present(drawings: Iterable[Drawing], classes: Sequence[str]) -> list[int]:
    """The labels that the drawings show, each once."""
    labels: set[int] = set()
    for drawing in drawings:
        shown = drawing.labels if drawing.label_map is None else drawing.label_map
        labels.update(np.unique(shown).tolist() if shown is not None else ())
    return [label for label in sorted(labels) if label < len(classes) and classes[label] != BACKGROUND]


def _legend(labels: Sequence[int], classes: Sequence[str]) -> list[Patch]:
    palette = colours(len(classes)) / 255
    return [Patch(color=palette[label], label=_plain(classes[label])) for label in labels[:LISTED]]


def save_grid(pairs: Sequence[Pair], classes: Sequence[str], path: Path) -> None:
    """Save a grid: a column for each image, ground truth above, prediction below, and a legend.

    Raises:
        DiskFullError: there is no space; the picture of an earlier evaluation is intact.
        UserError: it cannot be written for another reason.
    """
    figure = Figure(figsize=(2.6 * len(pairs), 6.4), layout='constrained')
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for column, item in enumerate(pairs):
        image = read_picture(item.image)
        for row, drawing in enumerate((item.truth, item.prediction)):
            axis = axes[row, column]
            axis.imshow(draw(image, drawing, classes))
            axis.set_axis_off()
            if column == 0:
                title = ('ground truth', 'prediction')[row]
                axis.set_title(title, loc='left', fontsize=11)
            if drawing.caption:
                axis.set_title(_plain(drawing.caption), loc='right', fontsize=8, color='gray')
            elif column and drawing.labels is not None:
                axis.set_title(_amount(drawing, classes), loc='right', fontsize=8, color='gray')
    present = _present([side for item in pairs for side in (item.truth, item.prediction)], classes)
    if handles := _legend(present, classes):
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), 8), frameon=False)
    _save(figure, path)


def save_batch(
    images: Sequence[np.ndarray], drawings: Sequence[Drawing], classes: Sequence[str], path: Path
) -> None:
    """Save a batch with its ground truth, class names at the boxes, and a legend of the classes in it.

    Args:
        images: (H, W, 3) uint8 RGB, all of one size; the first ``BATCH`` are drawn.
        drawings: one for each image.
        classes: name of each label.
        path: a PNG file.

    Raises:
        DiskFullError, UserError: as ``save_grid``.
    """
    shown = list(zip(images, drawings, strict=True))[:BATCH]
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(4 * columns, 4 * rows * height / width + 0.6), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, drawing) in zip(axes, shown, strict=False):
        axis.imshow(draw(np.ascontiguousarray(image), drawing, classes))
        amount = '' if drawing.labels is None else f', {_amount(drawing, classes)}'
        axis.set_title(f'{height} x {width}{amount}', loc='left', fontsize=9, color='gray')
        if drawing.labels is not None and len(drawing.labels) <= NAMED:
            _write_names(axis, drawing, classes)
    if handles := _legend(_present([drawing for _, drawing in shown], classes), classes):
        ncols = min(len(handles), 3 * columns)
        figure.legend(handles=handles, loc='outside lower center', ncols=ncols, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic.replacing(path) as partial:
        figure.savefig(partial, dpi=110, format='png')


def _plain(name: str) -> str:
    """A class name for matplotlib, which takes what is between two dollars for a formula."""
    return printable(name).replace('$', r'\$')


def _write_names(axis: Axes, drawing: Drawing, classes: Sequence[str]) -> None:
    palette = colours(len(classes))
    for label, box in _of_each(drawing, drawing.boxes):
        back = dict(facecolor=palette[label] / 255, linewidth=0, pad=0.8)
        name, ink = printable(classes[label]), 'black' if ink_is_black(palette[label]) else 'white'
        spot = max(box[0], 0), max(box[1], 0)
        axis.text(*spot, name, bbox=back, fontsize=7, color=ink, va='top', clip_on=True, parse_math=False)
