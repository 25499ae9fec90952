"""Label maps against ground truth: exact counts of pixels, and the IoU and accuracy that follow."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from swin_dense.errors import UserError
from swin_dense.evaluate.label_folder import map_names
from swin_dense.formats.images import BadImageError
from swin_dense.formats.label_maps import IGNORED, stored_labels


@dataclass(frozen=True)
class Sample:
    """An image with its ground truth.

    Attributes:
        image, truth: files.
        reduced: label 0 means unlabelled, and class 0 is label 1.
        name: of its label map in a folder of predictions, without suffix.
    """

    image: Path
    truth: Path
    reduced: bool
    name: str


@dataclass
class Counted:
    """Pixels of a data set, counted.

    Attributes:
        classes: C names.
        images: for each sample (C, C + 1) int64 pixels: a row for each true class, a column for each
            predicted one, the last for no prediction.
        samples: the images, in the order of ``images``.
        without: names of the images that have no prediction; all their pixels are in the last column.
    """

    classes: tuple[str, ...]
    images: list[np.ndarray]
    samples: list[Sample]
    without: list[str]

    @property
    def matrix(self) -> np.ndarray:
        """(C, C + 1) int64 pixels of all images."""
        return sum(self.images, np.zeros((len(self.classes), len(self.classes) + 1), np.int64))


def build(config: dict) -> BaseSegDataset:
    """The data set of a config, without its pipeline: what it lists, not what it loads."""
    # unserialised: packing the list begins with a garbage collection, which takes longer than the list
    return DATASETS.build({**config, 'pipeline': [], 'serialize_data': False, 'test_mode': True})


def samples(datasets: Iterable[BaseSegDataset]) -> list[Sample]:
    """The images of data sets, with the names of their label maps."""
    entries = [dataset.get_data_info(i) for dataset in datasets for i in range(len(dataset))]
    names = map_names(Path(entry['img_path']) for entry in entries)
    listed = []
    for entry in entries:
        image, truth = Path(entry['img_path']), Path(entry['seg_map_path'])
        listed.append(Sample(image, truth, bool(entry['reduce_zero_label']), names[image]))
    return listed


def count(images: list[Sample], classes: tuple[str, ...], predictions: Path) -> Counted:
    """Compare a folder of PNG label maps, as ``--out`` writes them, with the ground truth.

    Args:
        images: the images to score, each with a map ``name.png`` in the folder.
        classes: their names.
        predictions: the folder; with ``reduced`` samples, class 0 is written as 1.

    Raises:
        UserError: the folder is missing, or a label map is broken, of another size, or has a label that
            is no class.
    """
    if not predictions.is_dir():
        raise UserError(f'predictions {predictions}: no folder of PNG label maps')
    result = Counted(classes, [], images, [])
    for sample in images:
        truth = read_classes(sample.truth, len(classes), sample.reduced)
        path = predictions / f'{sample.name}.png'
        if path.is_file():
            predicted = read_classes(path, len(classes), sample.reduced)
        else:
            result.without.append(sample.image.name)
            predicted = np.full_like(truth, len(classes))
        if predicted.shape != truth.shape:
            sizes = (f'{shape[1]}x{shape[0]}' for shape in (predicted.shape, truth.shape))
            raise UserError(f'predictions {path}: {next(sizes)} pixels, the ground truth has {next(sizes)}')
        result.images.append(confusion(truth, predicted, len(classes)))
    return result


def read_classes(path: Path, classes: int, reduced: bool) -> np.ndarray:
    """A label map as (H, W) int64 classes; ``classes`` where there is no label.

    Raises:
        UserError: it cannot be read, is a colour image, or has a label that is no class.
    """
    try:
        labels = stored_labels(path).astype(np.int64)
    except BadImageError as error:
        raise UserError(f'label map {path}: {error}') from error
    unlabelled = labels == IGNORED
    if reduced:
        unlabelled |= labels == 0
        labels = labels - 1
    strange = (labels >= classes) & ~unlabelled
    if strange.any():
        value = int(labels[strange].max()) + reduced
        raise UserError(f'label map {path}: label {value}, but there are {classes} classes')
    labels[unlabelled] = classes
    return labels


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C + 1) int64 pixels of a pair of (H, W) maps in which ``classes`` means no label."""
    known = truth < classes
    pairs = truth[known] * (classes + 1) + predicted[known]
    return np.bincount(pairs, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def metrics(matrix: np.ndarray) -> dict[str, float]:
    """aAcc, mIoU and mAcc in percent, NaN where nothing is labelled; as mmseg defines them."""
    values = ratios(matrix)
    hits, labelled = np.diag(matrix).sum(), matrix.sum()
    means = {f'm{name}': _mean(values[name]) for name in ('IoU', 'Acc')}
    return {'aAcc': 100.0 * hits / labelled if labelled else float('nan'), **means}


def ratios(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """(C,) IoU and Acc of each class, from 0 to 1; NaN where it is neither there nor predicted."""
    hits, labelled = np.diag(matrix).astype(float), matrix.sum(axis=1)
    union = labelled + matrix[:, :-1].sum(axis=0) - hits
    with np.errstate(invalid='ignore'):
        return {'IoU': hits / union, 'Acc': hits / labelled}


def per_class(counted: Counted) -> list[dict]:
    """For each class its name, share of the labelled pixels, pixels, IoU and Acc; None where undefined."""
    matrix = counted.matrix
    values = ratios(matrix)
    rows = []
    for i, name in enumerate(counted.classes):
        pixels = int(matrix[i].sum())
        row = dict(name=name, pixels=pixels, share=pixels / max(1, int(matrix.sum())))
        row |= {key: None if np.isnan(v[i]) else float(v[i]) for key, v in values.items()}
        rows.append(row)
    return rows


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return 100.0 * float(defined.mean()) if len(defined) else float('nan')
