"""The images of scored detections, with the objects that were missed, invented or confused."""

from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle

from swin_dense.drawing.colours import colours
from swin_dense.drawing.painter import new_layer, paint_box, paint_mask, thickness_for
from swin_dense.evaluate.coco import Scores
from swin_dense.evaluate.confusion import SCORE, Outcome
from swin_dense.tasks.examples import Draw, Example, photograph


def of_detections(scores: Scores, outcomes: dict[int | str, Outcome], images: Path) -> list[Example]:
    """An example for each image of a scored detection data set."""
    truth, names = scores.evaluation.cocoGt, scores.names
    examples = []
    for key, outcome in outcomes.items():
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


def _detection_drawer(scores: Scores, key: int | str, outcome: Outcome, path: Path) -> Draw:
    evaluation = scores.evaluation
    classes = {category: i for i, category in enumerate(evaluation.params.catIds)}
    palette = colours(len(classes))

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, scale = photograph(path)
        objects = [a for a in evaluation.cocoGt.imgToAnns[key] if a['category_id'] in classes]
        detections = [
            a
            for a in sorted(evaluation.cocoDt.imgToAnns[key], key=lambda a: a['score'])
            if a['category_id'] in classes and a['score'] >= SCORE
        ]

        def layer_of(annotations: list[dict], wrong: set[int]) -> np.ndarray:
            layer = new_layer(*photo.shape[:2])
            for annotation in annotations:
                colour = palette[classes[annotation['category_id']]]
                _paint(layer, annotation, scores.kind, scale, colour, annotation['id'] in wrong)
            return layer

        truth, prediction = outcome.wrong_objects, outcome.wrong_detections
        return photo, layer_of(objects, truth), layer_of(detections, prediction)

    return draw


def _paint(
    layer: np.ndarray, annotation: dict, kind: str, scale: float, colour: np.ndarray, is_wrong: bool
) -> None:
    thickness = thickness_for(layer.shape)
    if kind == 'segm':
        size, reduces = layer.shape[1::-1], scale < 1
        mask = rle.decode(annotation['segmentation'])
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA if reduces else cv2.INTER_NEAREST)
        paint_mask(layer, mask, colour, thickness, is_wrong)
        return
    x, y, width, height = (side * scale for side in annotation['bbox'])
    corners = [round(x), round(y), round(x + width), round(y + height)]
    paint_box(layer, corners, colour, thickness, is_wrong)
