"""The images of scored label maps."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from swin_dense.drawing.colours import colours
from swin_dense.drawing.painter import muted, new_layer, paint_labels, thickness_for
from swin_dense.evaluate import ade20k
from swin_dense.tasks.examples import Draw, Example, photograph


def of_label_maps(counted: ade20k.Counted, predictions: Path) -> list[Example]:
    """An entry for each image of a scored segmentation data set."""
    examples = []
    names = counted.classes
    for sample, matrix in zip(counted.samples, counted.images, strict=True):
        values = ade20k.ratios(matrix)['IoU']
        labelled = max(1, int(matrix.sum()))
        wrong = matrix[:, : len(names)].copy()
        np.fill_diagonal(wrong, 0)
        a, b = np.unravel_index(wrong.argmax(), wrong.shape)
        share = float(wrong[a, b]) / labelled
        mean = float(np.nanmean(values)) if not np.isnan(values).all() else 0.0
        said = f'mIoU {mean:.3f}, {np.diag(matrix).sum() / labelled:.0%} of the pixels right'
        if share > 0:
            said += f', {share:.0%} {names[a]} taken for {names[b]}'
        present = [i for i, value in enumerate(values) if not np.isnan(value)]
        draw = _label_drawer(sample, predictions, names)
        examples.append(Example(sample.image.name, mean, share, present, said, draw))
    return examples


def _label_drawer(sample: ade20k.Sample, predictions: Path, classes: Sequence[str]) -> Draw:
    count = len(classes)

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, _ = photograph(sample.image)
        path = predictions / f'{sample.name}.png'
        truth = ade20k.read_classes(sample.truth, count, sample.reduced)
        prediction = np.full_like(truth, count)
        if path.is_file():
            prediction = ade20k.read_classes(path, count, sample.reduced)

        def layer_of(labels: np.ndarray) -> np.ndarray:
            layer = new_layer(*photo.shape[:2])
            size = photo.shape[1::-1]
            reduced = cv2.resize(labels.astype(np.int16), size, interpolation=cv2.INTER_NEAREST)
            paint_labels(layer, reduced, colours(count), classes, thickness_for(photo.shape))
            return layer

        return muted(photo), layer_of(truth), layer_of(prediction)

    return draw
