"""The images of scored label maps."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from swin_dense.drawing.pictures import colours
from swin_dense.evaluate import ade20k
from swin_dense.tasks.examples import Example, photograph


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
        draw = _label_drawer(sample, predictions, len(names))
        examples.append(Example(sample.image.name, mean, share, present, said, draw))
    return examples


def _label_drawer(sample: ade20k.Sample, predictions: Path, classes: int) -> Callable:
    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, _ = photograph(sample.image)
        palette = np.zeros((classes + 1, 4), np.uint8)
        palette[:classes] = np.column_stack([colours(classes), np.full(classes, 150, np.uint8)])
        palette[classes] = (0, 0, 0, 190)  # unlabelled, or no prediction
        path = predictions / f'{sample.name}.png'
        truth = ade20k.read_classes(sample.truth, classes, sample.reduced)
        known = path.is_file()
        predicted = (
            ade20k.read_classes(path, classes, sample.reduced) if known else np.full_like(truth, classes)
        )
        size = photo.shape[1::-1]
        maps = (
            cv2.resize(m.astype(np.int16), size, interpolation=cv2.INTER_NEAREST) for m in (truth, predicted)
        )
        return photo, *(palette[m] for m in maps)

    return draw
