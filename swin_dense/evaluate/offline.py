"""Saved predictions of either task, scored and gathered in one form, for the terminal and the report."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.config import Config

from swin_dense.data.coco import find_annotations
from swin_dense.data.fields import leaf_datasets
from swin_dense.errors import UserError
from swin_dense.evaluate import ade20k, coco, confusion
from swin_dense.storage import atomic

KINDS = {'bbox': 'boxes', 'segm': 'masks'}


@dataclass
class Evaluated:
    """What is known of a set of predictions, in the form of JSON.

    Attributes:
        metrics: as the host's evaluator names them.
        classes: a row for each class, by the title of the table ('boxes', 'masks' or 'classes').
        names: class names, in the order of ``confusion``.
        confusion: counts, a row for each true class and a column for each predicted one, objects or
            pixels; the last row and column of a detector are background, the last column of a
            segmentor pixels without prediction.
        curves: precision at 101 recalls and IoU 0.5, by class name, for each kind (detection).
        counts: images, objects, detections, images without predictions.
        notes: lines for a person.
    """

    metrics: dict[str, float]
    classes: dict[str, list[dict]]
    names: list[str]
    confusion: list[list[int]]
    counts: dict[str, int]
    curves: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def detection(config: Config, predictions: Path, data: Path | None = None) -> Evaluated:
    """Score COCO results.

    Args:
        config: a detection config; its evaluator says what counts.
        predictions: a result file, or the folder of a run.
        data: root of a COCO folder; without it, the config names the annotations.

    Raises:
        UserError, NotFiniteError: see ``coco.evaluate``.
    """
    return of_detections(detection_scores(config, predictions, data))


def detection_scores(config: Config, predictions: Path, data: Path | None = None) -> list[coco.Scores]:
    """Score COCO results: one ``Scores`` for each kind of prediction; arguments as ``detection``'s."""
    rules = coco.rules(config)
    truth = coco.load_truth(annotation_file(config, data))
    if rules.classes is not None:
        present = {entry['name'] for entry in truth.cats.values()}
        lacking = [name for name in rules.classes if name not in present]
        if lacking:
            raise UserError(
                f'config {config.filename}: metainfo.classes: {lacking[0]!r} is not among the '
                f'{len(present)} categories of the annotations'
            )
    return coco.evaluate(truth, predictions, rules)


def annotation_file(config: Config, data: Path | None) -> Path:
    """The ground truth: below ``data``, or what the config's test loader names."""
    if data is not None:
        return find_annotations(data, 'val')
    leaf = leaf_datasets(config.test_dataloader.dataset)[0]
    return Path(leaf.get('data_root') or '') / leaf['ann_file']


def of_detections(scores: list[coco.Scores]) -> Evaluated:
    """Gather what an evaluation says; masks give the confusion matrix where there are any."""
    last = scores[-1]
    found = Evaluated({}, {}, list(last.names), [], last.counts())
    for kind in scores:
        title = KINDS[kind.kind]
        found.metrics |= kind.metrics()
        found.classes[title] = kind.per_class()
        curves = dict(zip(kind.names, kind.curves().tolist(), strict=True))
        found.curves[title] = {name: curve for name, curve in curves.items() if min(curve) > -1}
    outcomes = confusion.outcomes(last)
    found.confusion = confusion.matrix(outcomes, len(last.names)).tolist()
    found.notes = [_without(found.counts['images_without_predictions'], found.counts['images'])]
    found.notes += [note] if (note := coco.limit_note(scores)) else []
    return found


def segmentation(config: Config, predictions: Path) -> Evaluated:
    """Score a folder of label maps.

    Args:
        config: a segmentation config whose classes are settled.
        predictions: the folder.

    Raises:
        UserError: see ``ade20k.count``.
    """
    return of_label_maps(count(config, predictions))


def count(config: Config, predictions: Path) -> ade20k.Counted:
    """Compare a folder of label maps with what the config's test loader evaluates."""
    samples = ade20k.samples(config)
    return ade20k.count(samples, class_names(config), predictions)


def class_names(config: Config) -> tuple[str, ...]:
    """The classes of a segmentation config, of its own or of its data set's type."""
    return tuple(ade20k.build(leaf_datasets(config.test_dataloader.dataset)[0]).metainfo['classes'])


def of_label_maps(counted: ade20k.Counted) -> Evaluated:
    """Gather what counted pixels say."""
    matrix = counted.matrix
    counts = dict(
        images=len(counted.images),
        labelled_pixels=int(matrix.sum()),
        images_without_predictions=len(counted.without),
    )
    return Evaluated(
        ade20k.metrics(matrix),
        {'classes': ade20k.per_class(counted)},
        list(counted.classes),
        matrix.tolist(),
        counts,
        notes=[_without(len(counted.without), len(counted.images))],
    )


def save(found: Evaluated, folder: Path) -> Path:
    """Write ``evaluation.json``: all of it but the notes; whole or not at all.

    Raises:
        DiskFullError: there is no space; the file of an earlier evaluation is intact.
        UserError: it cannot be written for another reason.
    """
    path = folder / 'evaluation.json'
    content = {key: value for key, value in asdict(found).items() if key != 'notes'}
    content['metrics'] = {k: v if math.isfinite(v) else None for k, v in found.metrics.items()}
    atomic.write_text(path, json.dumps(content, allow_nan=False) + '\n')
    return path


def _without(count: int, images: int) -> str:
    if not count:
        return f'each of the {images} images has a prediction'
    return f'{count} of {images} images have no prediction: they count, as wholly missed'
