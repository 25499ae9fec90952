"""Which class a detector takes for which: one-to-one matches of confident detections and objects."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask

from swin_dense.evaluate.coco import Scores

SCORE = 0.5  # detections below it are left out
IOU = 0.5


@dataclass
class Outcome:
    """The objects and confident detections of one image, sorted by their fate; indices of classes.

    Attributes:
        hits: class of each object that was found as what it is.
        confused: (class of the object, class of the detection) of each that was taken for another.
        missed: class of each object without a detection.
        invented: class of each detection without an object.
        wrong_objects: ids of the annotations that were missed or taken for another class.
        wrong_detections: ids of the detections (in ``cocoDt``) that are no hit.
    """

    hits: list[int] = field(default_factory=list)
    confused: list[tuple[int, int]] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    invented: list[int] = field(default_factory=list)
    wrong_objects: set[int] = field(default_factory=set)
    wrong_detections: set[int] = field(default_factory=set)

    def f1(self) -> float:
        """2 hits / (objects + detections); 1 for an empty image that stays empty."""
        right = len(self.hits)
        wrong = 2 * len(self.confused) + len(self.missed) + len(self.invented)
        return 2 * right / (2 * right + wrong) if right + wrong else 1.0


def outcomes(scores: Scores, score: float = SCORE) -> dict[int | str, Outcome]:
    """Match the detections of each image at IoU 0.5.

    First within each class: these are pycocotools' own matches. What is left on both sides is matched
    across classes, the highest score first, each with the free object that it overlaps most. A detection
    that pycocotools leaves aside for a crowd of its class is left aside here, and crowds are no objects.

    Args:
        scores: an evaluation.
        score: detections below it are left out.

    Returns:
        For every image of the ground truth, by its id.
    """
    evaluation = scores.evaluation
    by_image = {image: Outcome() for image in evaluation.params.imgIds}
    objects: dict[int | str, list[tuple[int, dict]]] = defaultdict(list)
    detections: dict[int | str, list[tuple[int, dict]]] = defaultdict(list)
    threshold = int(np.flatnonzero(evaluation.params.iouThrs == IOU)[0])
    classes = {category: i for i, category in enumerate(evaluation.params.catIds)}
    everything = evaluation.params.areaRng[0]
    for entry in evaluation.evalImgs:
        if entry is None or entry['aRng'] != everything:
            continue
        label, image = classes[entry['category_id']], entry['image_id']
        matched = set()
        per_detection = (entry['dtIds'], entry['dtMatches'][threshold], entry['dtIgnore'][threshold])
        for key, partner, ignored in zip(*per_detection, strict=True):
            detection = evaluation.cocoDt.anns[key]
            if detection['score'] < score or ignored:
                continue
            if partner:
                matched.add(int(partner))
                by_image[image].hits.append(label)
            else:
                detections[image].append((label, detection))
        for key, ignored in zip(entry['gtIds'], entry['gtIgnore'], strict=True):
            if not ignored and key not in matched:
                objects[image].append((label, evaluation.cocoGt.anns[key]))
    for image, outcome in by_image.items():
        _across_classes(outcome, objects[image], detections[image], scores.kind)
    return by_image


def matrix(by_image: dict[int | str, Outcome], classes: int) -> np.ndarray:
    """(classes + 1, classes + 1) int64 counts: a row for each true class, a column for each predicted one.

    The last row is background taken for an object, the last column objects that were not found.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for outcome in by_image.values():
        for label in outcome.hits:
            counts[label, label] += 1
        for pair in outcome.confused:
            counts[pair] += 1
        for label in outcome.missed:
            counts[label, -1] += 1
        for label in outcome.invented:
            counts[-1, label] += 1
    return counts


def _across_classes(
    outcome: Outcome, objects: list[tuple[int, dict]], detections: list[tuple[int, dict]], kind: str
) -> None:
    key = 'bbox' if kind == 'bbox' else 'segmentation'
    detections = sorted(detections, key=lambda pair: -pair[1]['score'])
    outcome.wrong_objects = {annotation['id'] for _, annotation in objects}
    outcome.wrong_detections = {detection['id'] for _, detection in detections}
    free = set(range(len(objects)))
    overlaps = np.zeros((len(detections), len(objects)))
    if detections and objects:
        regions = ([entry[key] for _, entry in side] for side in (detections, objects))
        overlaps = np.asarray(mask.iou(*regions, [0] * len(objects)))
    for i, (label, _) in enumerate(detections):
        # none of its own class: pycocotools would have matched them
        reached = [j for j in free if overlaps[i, j] >= IOU]
        if reached:
            best = max(reached, key=lambda j: overlaps[i, j])
            free.remove(best)
            outcome.confused.append((objects[best][0], label))
        else:
            outcome.invented.append(label)
    outcome.missed += [objects[j][0] for j in sorted(free)]
