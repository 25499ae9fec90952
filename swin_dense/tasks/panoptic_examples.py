"""The images of scored panoptic maps."""

import cv2
import numpy as np

from swin_dense.drawing.colours import colours
from swin_dense.drawing.painter import muted, new_layer, paint_labels, thickness_for
from swin_dense.evaluate.panoptic_sets import Compared, Map, Scores
from swin_dense.tasks.examples import Draw, Example, photograph


def of_segments(scores: Scores) -> list[Example]:
    """An example for each image of a scored panoptic data set."""
    return [_example(scores, compared) for compared in scores.images]


def _example(scores: Scores, compared: Compared) -> Example:
    counts, names = compared.counts, scores.truth.classes.names
    matched, missed, invented = (
        int(values.sum()) for values in (counts.matched, counts.false_negatives, counts.false_positives)
    )
    value = float(counts.iou.sum()) / max(1.0, matched + (missed + invented) / 2)
    wrong = compared.pixels[:, : len(names)].copy()
    np.fill_diagonal(wrong, 0)
    a, b = np.unravel_index(wrong.argmax(), wrong.shape)
    share = float(wrong[a, b]) / max(1, int(compared.pixels.sum()))
    said = f'PQ {value:.3f}, {matched} segments matched, {missed} missed, {invented} where none is'
    if share > 0:
        said += f', {share:.0%} of the pixels {names[a]} taken for {names[b]}'
    present = np.flatnonzero(counts.matched + counts.false_negatives + counts.false_positives)
    name = scores.truth.entries[compared.image]['file_name']
    return Example(name, value, share, present.tolist(), said, _drawer(scores, compared.image))


def _drawer(scores: Scores, image: int | str) -> Draw:
    truth, names = scores.truth, scores.truth.classes.names

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, _ = photograph(truth.images / truth.entries[image]['file_name'])

        def layer_of(side: Map) -> np.ndarray:
            layer = new_layer(*photo.shape[:2])
            numbers = [number for number, segment in side.segments.items() if not segment.crowd]
            labels = [side.segments[number].category for number in numbers]
            order = np.argsort(numbers)
            places = np.searchsorted(np.sort(numbers), side.ids).clip(max=max(0, len(numbers) - 1))
            known = np.isin(side.ids, numbers)
            regions = np.where(known, order[places] if len(numbers) else 0, len(numbers)).astype(np.float32)
            reduced = cv2.resize(regions, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            palette = colours(len(names))[labels]
            paint_labels(layer, reduced, palette, [names[i] for i in labels], thickness_for(photo.shape))
            return layer

        return muted(photo), layer_of(truth.read(image)), layer_of(scores.predicted(image))

    return draw
