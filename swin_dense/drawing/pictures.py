"""Pictures of results: ground truth beside predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mmengine.structures import BaseDataElement

from swin_dense.formats.pixels import read_picture
from swin_dense.printable import printable
from swin_dense.storage import atomic

SCORE = 0.5  # instances below it are not drawn
OPACITY = 0.55
BATCH = 8  # images of a batch that are drawn
NAMED = 30  # objects of an image: names on more would cover it


@dataclass
class Drawing:
    """What is drawn on an image: instances, a label map, or nothing but a caption above it.

    Attributes:
        labels: (N,) class of each instance.
        boxes: (N, 4) x1, y1, x2, y2 in pixels of the original image.
        masks: (N, H, W) bool, None for boxes alone.
        scores: (N,), None for ground truth.
        label_map: (H, W) class of each pixel, None for instances.
        caption: a few words about the whole image.
    """

    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None
    scores: np.ndarray | None = None
    label_map: np.ndarray | None = None
    caption: str = ''


@dataclass
class Pair:
    """An image file with its ground truth and a prediction."""

    image: Path
    truth: Drawing
    prediction: Drawing


def pair(sample: BaseDataElement) -> Pair:
    """What a host's data sample, with predictions, says of one image."""
    image = Path(sample.img_path)
    if 'pred_sem_seg' in sample:
        found = sample.pred_sem_seg.data.squeeze(0).cpu().numpy()
        return Pair(image, truth(sample), Drawing(label_map=found))
    found = sample.pred_instances.cpu()
    kept = found.scores >= SCORE
    masks = found.masks[kept].numpy() if 'masks' in found else None
    labels, boxes, scores = (x[kept].numpy() for x in (found.labels, found.bboxes, found.scores))
    prediction = Drawing(labels, boxes, masks, scores)
    return Pair(image, truth(sample), prediction)


def truth(sample: BaseDataElement) -> Drawing:
    """The ground truth of a host's data sample."""
    if 'gt_sem_seg' in sample and 'gt_instances' not in sample:
        return Drawing(label_map=sample.gt_sem_seg.data.squeeze(0).cpu().numpy())
    real = sample.gt_instances.cpu()
    boxes = getattr(real.bboxes, 'tensor', real.bboxes).numpy()
    masks = real.masks.to_ndarray().astype(bool) if 'masks' in real else None
    return Drawing(real.labels.numpy(), boxes, masks)


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB, one distinct colour a class."""
    table = matplotlib.colormaps['tab10' if count <= 10 else 'gist_ncar']
    steps = np.arange(count) if count <= 10 else np.linspace(0.05, 0.95, count)
    return (np.array([table(step)[:3] for step in steps]) * 255).astype(np.uint8)


def draw(image: np.ndarray, drawing: Drawing, classes: Sequence[str]) -> np.ndarray:
    """Overlay a drawing on an RGB image (H, W, 3) uint8; returns a new image."""
    if drawing.label_map is not None:
        return _draw_labels(image, drawing.label_map, classes)
    return image if drawing.labels is None else _draw_instances(image, drawing, colours(len(classes)))


def _draw_labels(image: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Tint each class but one named background; darken what has no label."""
    known = labels < len(classes)
    indices = np.where(known, labels, 0)
    tinted = (np.array(classes) != 'background')[indices] & known
    canvas = (1 - OPACITY) * image + OPACITY * colours(len(classes))[indices]
    canvas = np.where(tinted[..., None], canvas, image)
    return np.where(known[..., None], canvas, 0.3 * image).astype(np.uint8)


def _draw_instances(image: np.ndarray, drawing: Drawing, palette: np.ndarray) -> np.ndarray:
    canvas = image.copy()
    thickness = max(1, round(max(image.shape[:2]) / 300))
    for label, mask in zip(drawing.labels, drawing.masks if drawing.masks is not None else (), strict=False):
        canvas[mask] = (1 - OPACITY) * canvas[mask] + OPACITY * palette[label]
        edges = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        cv2.drawContours(canvas, edges, -1, (255, 255, 255), thickness)
    for label, box in zip(drawing.labels, drawing.boxes, strict=True):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), palette[label].tolist(), thickness)
    return canvas


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
                axis.set_title(f'{len(drawing.labels)} objects', loc='right', fontsize=8, color='gray')
    palette = colours(len(classes)) / 255
    shown = list(zip(classes, palette, strict=True))[:20]
    handles = [Patch(color=colour, label=_plain(name)) for name, colour in shown]
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
    palette = colours(len(classes)) / 255
    present: set[int] = set()
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, drawing) in zip(axes, shown, strict=False):
        axis.imshow(draw(np.ascontiguousarray(image), drawing, classes))
        labels = drawing.label_map if drawing.labels is None else drawing.labels
        present.update(int(label) for label in np.unique(labels) if label < len(classes))
        title = f'{height} x {width}' + (f', {len(labels)} objects' if drawing.boxes is not None else '')
        axis.set_title(title, loc='left', fontsize=9, color='gray')
        if drawing.boxes is not None and len(labels) <= NAMED:
            _write_names(axis, drawing, classes, palette)
    tinted = [label for label in sorted(present) if classes[label] != 'background']
    handles = [Patch(color=palette[label], label=_plain(classes[label])) for label in tinted][:20]
    if handles:
        ncols = min(len(handles), 3 * columns)
        figure.legend(handles=handles, loc='outside lower center', ncols=ncols, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with atomic.replacing(path) as partial:
        figure.savefig(partial, dpi=110, format='png')


def _plain(name: str) -> str:
    """A class name for matplotlib, which takes what is between two dollars for a formula."""
    return printable(name).replace('$', r'\$')


def _write_names(axis: Axes, drawing: Drawing, classes: Sequence[str], palette: np.ndarray) -> None:
    for label, box in zip(drawing.labels, drawing.boxes, strict=True):
        back = dict(facecolor=palette[label], linewidth=0, pad=0.8, alpha=0.8)
        style = dict(fontsize=7, color='white', va='top', clip_on=True, parse_math=False)
        axis.text(max(box[0], 0), max(box[1], 0), printable(classes[label]), bbox=back, **style)
