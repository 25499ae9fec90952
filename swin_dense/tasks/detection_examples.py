"""The images of scored detections, with the objects that were missed, invented or confused."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from swin_dense.drawing.pictures import colours
from swin_dense.evaluate.coco import Scores
from swin_dense.evaluate.confusion import SCORE, Outcome
from swin_dense.tasks.examples import Example, photograph

FILL, EDGE = 90, 255  # opacity of a region and of its outline


def of_detections(scores: Scores, found: dict[int | str, Outcome], images: Path) -> list[Example]:
    """An example for each image of a scored detection data set."""
    truth, names = scores.evaluation.cocoGt, scores.names
    examples = []
    for key, outcome in found.items():
        file = truth.imgs[key]['file_name']
        pairs = sorted({names[a] + ' taken for ' + names[b] for a, b in outcome.confused})
        right, wrong = len(outcome.hits), len(outcome.missed)
        said = f'{right} found, {wrong} missed, {len(outcome.invented)} where nothing is'
        if outcome.confused:
            more = ', ...' if len(pairs) > 1 else ''
            said += f', {len(outcome.confused)} confused ({pairs[0]}{more})'
        present = {*outcome.hits, *outcome.missed, *outcome.invented}
        present |= {label for pair in outcome.confused for label in pair}
        draw = _detection_drawer(scores, key, outcome, images / file)
        example = Example(file, outcome.f1(), len(outcome.confused), sorted(present), said, draw)
        examples.append(example)
    return examples


def _detection_drawer(scores: Scores, key: int | str, outcome: Outcome, path: Path) -> Callable:
    evaluation = scores.evaluation
    classes = {category: i for i, category in enumerate(evaluation.params.catIds)}

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, scale = photograph(path)
        objects = [a for a in evaluation.cocoGt.imgToAnns[key] if a['category_id'] in classes]
        detections = [
            a
            for a in sorted(evaluation.cocoDt.imgToAnns[key], key=lambda a: a['score'])
            if a['category_id'] in classes and a['score'] >= SCORE
        ]
        sides = (objects, outcome.wrong_objects), (detections, outcome.wrong_detections)
        layers = []
        for annotations, wrong in sides:
            layer = np.zeros((*photo.shape[:2], 4), np.uint8)
            palette = colours(len(classes))
            for annotation in annotations:
                colour = palette[classes[annotation['category_id']]]
                region = _region(annotation, scores.kind, photo.shape[:2], scale)
                _paint(layer, region, colour, scores.kind == 'segm', annotation['id'] in wrong)
            layers.append(layer)
        return photo, layers[0], layers[1]

    return draw


def _region(annotation: dict, kind: str, shape: tuple[int, int], scale: float) -> np.ndarray:
    """(H, W) uint8 of what is drawn, 1 inside."""
    region = np.zeros(shape, np.uint8)
    if kind == 'segm':
        full = rle.decode(annotation['segmentation'])
        return cv2.resize(full, shape[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    x, y, width, height = annotation['bbox']
    low = (round(x * scale), round(y * scale))
    high = (round((x + width) * scale), round((y + height) * scale))
    cv2.rectangle(region, low, high, 1, -1)
    return region


def _paint(layer: np.ndarray, region: np.ndarray, colour: np.ndarray, fill: bool, wrong: bool) -> None:
    """Colour a region; what is wrong has a white outline."""
    if fill:
        layer[region > 0] = (*colour, FILL)
    edges = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    if wrong:
        cv2.drawContours(layer, edges, -1, (0, 0, 0, EDGE), 4)
        cv2.drawContours(layer, edges, -1, (255, 255, 255, EDGE), 2)
    else:
        cv2.drawContours(layer, edges, -1, (*colour.tolist(), EDGE), 1 if fill else 2)
