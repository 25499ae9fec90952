"""Saved predictions of a task, scored and gathered in one form, for the terminal and the report."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from swin_dense.evaluate import ade20k, coco, confusion, panoptic_sets
from swin_dense.storage import atomic

KINDS = {'bbox': 'boxes', 'segm': 'masks'}


@dataclass
class Evaluated:
    """The scores of a set of predictions, in the form of JSON.

    Attributes:
        metrics: as the host's evaluator names them.
        classes: a row for each class, by the title of the table ('boxes', 'masks', 'segments' or 'classes').
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


def of_detections(scores: Sequence[coco.Scores]) -> Evaluated:
    """Gather what an evaluation says; masks give the confusion matrix where there are any."""
    last = scores[-1]
    evaluated = Evaluated({}, {}, list(last.names), [], last.counts())
    for kind in scores:
        title = KINDS[kind.kind]
        evaluated.metrics |= kind.metrics()
        evaluated.classes[title] = kind.per_class()
        curves = dict(zip(kind.names, kind.curves().tolist(), strict=True))
        evaluated.curves[title] = {name: curve for name, curve in curves.items() if min(curve) > -1}
    outcomes = confusion.outcomes(last)
    evaluated.confusion = confusion.matrix(outcomes, len(last.names)).tolist()
    evaluated.notes = [_without(evaluated.counts['images_without_predictions'], evaluated.counts['images'])]
    evaluated.notes += [note] if (note := coco.limit_note(scores)) else []
    return evaluated


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


def of_segments(scores: panoptic_sets.Scores) -> Evaluated:
    """Gather what compared panoptic maps say."""
    present = scores.truth.classes
    count = panoptic_sets.total(scores.images, len(present.names))
    without = [image for image in scores.truth.annotations if image not in scores.predictions]
    counts = dict(
        images=len(scores.images),
        segments=int((count.matched + count.false_negatives).sum()),
        images_without_predictions=len(without),
    )
    return Evaluated(
        panoptic_sets.metrics(count, present),
        {'segments': panoptic_sets.per_class(count, present)},
        list(present.names),
        np.sum([image.pixels for image in scores.images], axis=0).tolist(),
        counts,
        notes=[_without(len(without), len(scores.images))],
    )


def save(evaluated: Evaluated, folder: Path) -> Path:
    """Write ``evaluation.json``: all of it but the notes; whole or not at all.

    Raises:
        DiskFullError: there is no space; the file of an earlier evaluation is intact.
        UserError: it cannot be written for another reason.
    """
    path = folder / 'evaluation.json'
    content = {key: value for key, value in asdict(evaluated).items() if key != 'notes'}
    content['metrics'] = {k: v if math.isfinite(v) else None for k, v in evaluated.metrics.items()}
    atomic.write_text(path, json.dumps(content, allow_nan=False) + '\n')
    return path


def _without(count: int, images: int) -> str:
    if not count:
        return f'each of the {images} images has a prediction'
    return f'{count} of {images} images have no prediction: they count, as wholly missed'
