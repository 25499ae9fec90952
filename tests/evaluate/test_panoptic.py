"""Panoptic quality against a slow computation from its definition, pixel by pixel, with exact fractions."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.detection import PanopticQuality

from swin_dense.evaluate.panoptic import Counts, Quality, Segment, compare

CATEGORIES = 5


def random_map(generator: np.random.Generator, crowds: bool) -> tuple[NDArray[np.int64], dict[int, Segment]]:
    """Rectangles over each other on a small map, so that voids, crowds and IoUs of exactly 1/2 occur."""
    pixels = np.zeros((8, 9), np.int64)
    for number in range(1, 9):
        top, left = generator.integers(0, 7, 2)
        height, width = generator.integers(1, 6, 2)
        pixels[top : top + height, left : left + width] = 100 * number + 7
    segments = {
        int(i): Segment(int(generator.integers(CATEGORIES)), bool(crowds and generator.random() < 0.25))
        for i in np.unique(pixels)
        if i
    }
    return pixels, segments


def slow(
    truth: NDArray, truth_segments: dict[int, Segment], predicted: NDArray, segments: dict[int, Segment]
) -> dict[int, list]:
    """By sets of pixels: [sum of IoU, TP, FP, FN] of each category."""
    counts: dict[int, list] = {c: [Fraction(0), 0, 0, 0] for c in range(CATEGORIES)}
    true_pixels, pixels = pixel_sets(truth, truth_segments), pixel_sets(predicted, segments)
    void = pixel_sets(truth, {0: None})[0]
    matches = set()
    for (a, segment), (b, other) in product(truth_segments.items(), segments.items()):
        if segment.crowd or segment.category != other.category:
            continue
        union = (true_pixels[a] | pixels[b]) - (void & pixels[b])
        iou = Fraction(len(true_pixels[a] & pixels[b]), len(union))
        if iou > Fraction(1, 2):
            counts[segment.category][0] += iou
            counts[segment.category][1] += 1
            matches |= {('truth', a), ('predicted', b)}
    for a, segment in truth_segments.items():
        counts[segment.category][3] += ('truth', a) not in matches and not segment.crowd
    for b, other in segments.items():
        crowds = [true_pixels[a] for a, s in truth_segments.items() if s == (other.category, True)]
        left_out = Fraction(len(pixels[b] & void.union(*crowds)), len(pixels[b])) > Fraction(1, 2)
        counts[other.category][2] += ('predicted', b) not in matches and not left_out
    return counts


def random_case(seed: int) -> tuple[NDArray, dict[int, Segment], NDArray, dict[int, Segment]]:
    """Ground truth and prediction; every second one is a disturbed copy, so that many segments match."""
    generator = np.random.default_rng(seed)
    truth, truth_segments = random_map(generator, crowds=True)
    predicted, segments = random_map(generator, crowds=False)
    if seed % 2:
        predicted = np.where(generator.random(truth.shape) < 0.3, predicted, truth)
        own = {i: Segment(segment.category) for i, segment in truth_segments.items()}
        segments = {int(i): {**segments, **own}[int(i)] for i in np.unique(predicted) if i}
    return truth, truth_segments, predicted, segments


def pixel_sets(pixels: NDArray, ids: Iterable[int]) -> dict[int, set]:
    """The places of each id."""
    return {i: set(zip(*np.nonzero(pixels == i), strict=True)) for i in ids}


def expected_quality(counts: list) -> Quality | None:
    iou, tp, fp, fn = counts
    if tp + fp + fn == 0:
        return None
    whole = tp + Fraction(fp + fn, 2)
    return Quality(float(iou / whole), float(iou / tp) if tp else 0.0, float(tp / whole))


def test_200_random_maps():
    total, sums = Counts.none(CATEGORIES), {c: [Fraction(0), 0, 0, 0] for c in range(CATEGORIES)}
    crowds = 0
    for seed in range(200):
        case = random_case(seed)
        counts, reference = compare(*case, CATEGORIES), slow(*case)
        for category, quality in enumerate(counts.by_category()):
            wanted = expected_quality(reference[category])
            assert (quality is None) == (wanted is None)
            assert quality is None or quality == pytest.approx(wanted, rel=1e-12, abs=1e-12)
        total += counts
        sums = {c: [x + y for x, y in zip(sums[c], reference[c], strict=True)] for c in sums}
        crowds += sum(segment.crowd for segment in case[1].values())
    assert crowds > 50
    qualities = [expected_quality(sums[c]) for c in range(CATEGORIES)]
    assert total.by_category() == [pytest.approx(quality, rel=1e-12) for quality in qualities]
    assert total.mean([0, 1, 2]) == pytest.approx(tuple(np.mean(np.array(qualities[:3]), 0)), rel=1e-12)
    assert (total.matched > 20).all()
    assert (total.false_positives > 20).all()


def test_torchmetrics_where_the_definitions_coincide():
    """It has no crowds, and leaves out unlabelled pixels of the ground truth alone."""
    things, stuff = {0, 1, 2}, {3, 4}
    metric = PanopticQuality(things, stuff, return_per_class=True, return_sq_and_rq=True)
    total = Counts.none(CATEGORIES)
    for seed in range(1, 60, 2):
        truth, truth_segments, predicted, segments = random_case(seed)
        truth_segments = {i: Segment(s.category % 3) for i, s in truth_segments.items()}
        segments = {i: Segment(s.category % 3) for i, s in segments.items()}
        free = next(i for i in range(1, 10**4) if i not in truth_segments and i not in segments)
        truth, predicted = np.where(truth, truth, free), np.where(predicted, predicted, free)
        truth_segments[free], segments[free] = Segment(3), Segment(3)
        case = {i: s for i, s in truth_segments.items() if (truth == i).any()}
        other = {i: s for i, s in segments.items() if (predicted == i).any()}
        total += compare(truth, case, predicted, other, CATEGORIES)
        maps = [
            torch.tensor([[(named[i].category, i) for i in row] for row in pixels.tolist()])[None]
            for pixels, named in ((predicted, other), (truth, case))
        ]
        metric.update(*maps)
    theirs = metric.compute().reshape(-1, 3)
    order = [*metric.things, *metric.stuffs]
    for category in (0, 1, 2, 3):
        quality = total.by_category()[category]
        assert quality == pytest.approx(tuple(theirs[order.index(category)].tolist()), rel=1e-6)


def test_an_iou_of_exactly_one_half_is_no_match():
    truth, found = np.array([[1, 1, 2, 2]]), np.array([[3, 4, 4, 4]])
    counts = compare(truth, {1: Segment(0), 2: Segment(1)}, found, {3: Segment(0), 4: Segment(1)}, 2)
    first, second = counts.by_category()
    assert first == Quality(0.0, 0.0, 0.0)  # 1 of 2 pixels
    assert second == pytest.approx((2 / 3, 2 / 3, 1.0))


def test_categories_that_do_not_occur_have_no_quality():
    counts = compare(np.array([[1]]), {1: Segment(2)}, np.array([[5]]), {5: Segment(2)}, 4)
    assert counts.by_category() == [None, None, Quality(1.0, 1.0, 1.0), None]
    assert counts.mean(range(4)) == Quality(1.0, 1.0, 1.0)
    assert counts.mean([0, 1]) is None


@pytest.mark.parametrize(
    ('truth', 'segments', 'message'),
    [
        (np.array([[1, 2]]), {1: Segment(0)}, 'ground truth: pixels have the id 2, which no segment has'),
        (np.array([[1, 1]]), {1: Segment(0), 9: Segment(0)}, 'ground truth: segment 9 has no pixel'),
        (
            np.array([[1]]),
            {1: Segment(0)},
            r'the prediction has \(1, 2\) pixels and the ground truth \(1, 1\)',
        ),
    ],
)
def test_maps_that_do_not_fit(truth: NDArray, segments: dict[int, Segment], message: str):
    with pytest.raises(ValueError, match=message):
        compare(truth, segments, np.array([[1, 1]]), {1: Segment(0)}, 1)
