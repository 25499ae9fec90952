"""Panoptic quality (Kirillov et al. 2019, https://arxiv.org/abs/1801.00868, section 4) with COCO's rules.

A predicted segment matches a ground-truth segment of its category if their IoU exceeds 0.5; no segment can
match two. Unlabelled pixels and crowds are treated as in COCO's panoptic challenge.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VOID = 0  # id of pixels that belong to no segment
MATCH = 0.5  # IoU above which segments match, and share of a segment above which it is ignored


class Segment(NamedTuple):
    """A segment of a panoptic map.

    Attributes:
        category: its category.
        crowd: whether it is a group that nobody told apart; only ground truth has crowds.
    """

    category: int
    crowd: bool = False


Segments = Mapping[int, Segment]  # by the id in the map


class Quality(NamedTuple):
    """Panoptic, segmentation and recognition quality, each from 0 to 1; PQ = SQ * RQ for one category."""

    pq: float
    sq: float
    rq: float


@dataclass
class Counts:
    """What the qualities of some categories are made of; index c is category c.

    Attributes:
        iou: sum of the IoU of the matches.
        matched: matches.
        false_positives: predicted segments without a match.
        false_negatives: ground-truth segments without a match.
    """

    iou: NDArray[np.float64]
    matched: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]

    @classmethod
    def none(cls, categories: int) -> 'Counts':
        """Nothing counted yet."""
        whole = (np.zeros(categories, np.int64) for _ in range(3))
        return cls(np.zeros(categories), *whole)

    def __add__(self, other: 'Counts') -> 'Counts':
        return Counts(
            self.iou + other.iou,
            self.matched + other.matched,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    def by_category(self) -> list[Quality | None]:
        """The qualities of each category; None for one that neither ground truth nor predictions have."""
        return [self._of(category) for category in range(len(self.iou))]

    def mean(self, categories: Iterable[int]) -> Quality | None:
        """The mean over those of the categories that occur; None if none does."""
        qualities = [self._of(category) for category in categories]
        occurring = [quality for quality in qualities if quality is not None]
        if not occurring:
            return None
        return Quality(*(float(value) for value in np.mean(np.array(occurring), axis=0)))

    def _of(self, category: int) -> Quality | None:
        matched = int(self.matched[category])
        unmatched = int(self.false_positives[category] + self.false_negatives[category])
        if matched + unmatched == 0:
            return None
        iou = float(self.iou[category])
        whole = matched + unmatched / 2
        return Quality(iou / whole, iou / matched if matched else 0.0, matched / whole)


def compare(
    truth: NDArray[np.integer],
    truth_segments: Segments,
    predicted: NDArray[np.integer],
    predicted_segments: Segments,
    categories: int,
) -> Counts:
    """Count the matches of one image.

    Pixels without ground truth belong to no union. A predicted segment without a match is ignored if more
    than half of it lies on such pixels and on crowds of its category.

    Args:
        truth: (H, W) ids of the segments; ``VOID`` for unlabelled pixels.
        truth_segments: of each id in ``truth``.
        predicted: (H, W) ids of the predicted segments; ``VOID`` for none.
        predicted_segments: of each id in ``predicted``.
        categories: how many there are; those of segments lie below it.

    Raises:
        ValueError: the maps differ in size, or an id has no segment, or a segment no pixel.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f'the prediction has {predicted.shape} pixels and the ground truth {truth.shape}')
    true_ids, true_index, true_areas = _ids(truth, truth_segments, 'ground truth')
    predicted_ids, predicted_index, areas = _ids(predicted, predicted_segments, 'prediction')
    pairs = np.bincount(
        true_index * len(predicted_ids) + predicted_index, minlength=len(true_ids) * len(predicted_ids)
    ).reshape(len(true_ids), len(predicted_ids))
    counts = Counts.none(categories)
    matched_truth, matched = {VOID}, {VOID}
    void = pairs[0]  # of each predicted segment, the pixels without ground truth
    for i, j in zip(*np.nonzero(pairs), strict=True):
        a, b = int(true_ids[i]), int(predicted_ids[j])
        if VOID in (a, b) or truth_segments[a].crowd:
            continue
        category = truth_segments[a].category
        union = true_areas[i] + areas[j] - pairs[i, j] - void[j]
        if predicted_segments[b].category == category and pairs[i, j] > MATCH * union:
            counts.matched[category] += 1
            counts.iou[category] += pairs[i, j] / union
            matched_truth.add(a)
            matched.add(b)
    for a, segment in truth_segments.items():
        if a not in matched_truth and not segment.crowd:
            counts.false_negatives[segment.category] += 1
    for j, b in enumerate(predicted_ids.tolist()):
        if b in matched:
            continue
        category = predicted_segments[b].category
        crowds = [
            i for i, a in enumerate(true_ids.tolist()) if a != VOID and truth_segments[a] == (category, True)
        ]
        if void[j] + pairs[crowds, j].sum() <= MATCH * areas[j]:
            counts.false_positives[category] += 1
    return counts


def _ids(
    pixels: NDArray[np.integer], segments: Segments, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The ids of a map, ``VOID`` first, the index of each pixel's id, and the area of each id."""
    present = np.unique(pixels)
    ids = np.concatenate([[VOID], present[present != VOID]]).astype(np.int64)
    known = {VOID, *segments}
    if unknown := sorted(set(ids.tolist()) - known):
        raise ValueError(f'{name}: pixels have the id {unknown[0]}, which no segment has')
    if empty := sorted(set(segments) - set(ids.tolist())):
        raise ValueError(f'{name}: segment {empty[0]} has no pixel')
    order = np.argsort(ids)
    index = order[np.searchsorted(ids[order], pixels.ravel())]
    return ids, index, np.bincount(index, minlength=len(ids))
