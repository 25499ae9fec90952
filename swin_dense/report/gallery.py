"""The images of a report: which ones, and their photographs and overlays as small data URIs."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle
from rich.progress import track

from swin_dense.drawing.pictures import colours
from swin_dense.errors import UserError
from swin_dense.evaluate import ade20k
from swin_dense.evaluate.coco import Scores
from swin_dense.evaluate.confusion import SCORE, Outcome
from swin_dense.formats.pixels import read_picture

SIDE = 640  # pixels of the longer side in the page
EACH = 12  # best, worst and most confused images
MORE = 24  # others, evenly from the rest, so that the page stays small
FILL, EDGE = 90, 255  # opacity of a region and of its outline


@dataclass
class Entry:
    """An image that may be shown.

    Attributes:
        name: file name.
        value: how good its prediction is, from 0 to 1.
        confused: how much was taken for another class, in the unit of ``said``.
        classes: indices of the classes in its ground truth or prediction.
        said: a line about it.
        draw: makes its photograph (H, W, 3) uint8 RGB, and (H, W, 4) overlays of ground truth and prediction.
    """

    name: str
    value: float
    confused: float
    classes: list[int]
    said: str
    draw: Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]


def of_detections(scores: Scores, found: dict[int | str, Outcome], images: Path) -> list[Entry]:
    """An entry for each image of a scored detection data set."""
    truth, names = scores.evaluation.cocoGt, scores.names
    entries = []
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
        entry = Entry(file, outcome.f1(), len(outcome.confused), sorted(present), said, draw)
        entries.append(entry)
    return entries


def of_label_maps(counted: ade20k.Counted, predictions: Path) -> list[Entry]:
    """An entry for each image of a scored segmentation data set."""
    entries = []
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
        entries.append(Entry(sample.image.name, mean, share, present, said, draw))
    return entries


def choose(entries: Sequence[Entry]) -> list[tuple[Entry, list[str]]]:
    """The best, worst and most confused images and some of the rest, each with what it is, best first."""
    order = sorted(entries, key=lambda entry: -entry.value)
    half = (len(order) + 1) // 2  # of a few images, none is both best and worst
    best, worst = order[: min(EACH, half)], order[::-1][: min(EACH, len(order) - half)]
    confused = sorted((e for e in entries if e.confused > 0), key=lambda e: -e.confused)[:EACH]
    chosen = {id(entry) for entry in (*best, *worst, *confused)}
    rest = [entry for entry in order if id(entry) not in chosen]
    steps = np.linspace(0, len(rest) - 1, min(MORE, len(rest))).astype(int)
    chosen |= {id(rest[i]) for i in steps}
    ranks = {'best': best, 'worst': worst, 'confused': confused}
    tags = {name: {id(entry) for entry in group} for name, group in ranks.items()}
    return [
        (entry, [name for name, group in tags.items() if id(entry) in group])
        for entry in order
        if id(entry) in chosen
    ]


def embed(entries: Sequence[Entry]) -> list[dict]:
    """The chosen images in the form of JSON; one whose file cannot be read has no pictures."""
    items = []
    chosen = choose(entries)
    ranks = {id(e): i for i, e in enumerate(sorted(entries, key=lambda e: -e.confused))}
    for entry, tags in track(chosen, 'drawing images', transient=True):
        item = dict(name=entry.name, value=entry.value, tags=tags, classes=entry.classes, said=entry.said)
        item['confused'] = ranks[id(entry)]
        try:
            photo, truth, prediction = entry.draw()
        except UserError:
            item['missing'] = True
        else:
            item |= dict(width=photo.shape[1], height=photo.shape[0], photo=_uri(photo))
            item |= dict(truth=_uri(truth), prediction=_uri(prediction))
        items.append(item)
    return items


def _detection_drawer(scores: Scores, key: int | str, outcome: Outcome, path: Path) -> Callable:
    evaluation = scores.evaluation
    classes = {category: i for i, category in enumerate(evaluation.params.catIds)}

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, scale = _photo(path)
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
        return photo, *layers

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


def _label_drawer(sample: ade20k.Sample, predictions: Path, classes: int) -> Callable:
    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo, _ = _photo(sample.image)
        palette = np.zeros((classes + 1, 4), np.uint8)
        palette[:classes] = np.column_stack([colours(classes), np.full(classes, 150, np.uint8)])
        palette[classes] = (0, 0, 0, 190)  # unlabelled, or no prediction
        path = predictions / f'{sample.name}.png'
        truth = ade20k.read_labels(sample.truth, classes, sample.reduced)
        known = path.is_file()
        predicted = (
            ade20k.read_labels(path, classes, sample.reduced) if known else np.full_like(truth, classes)
        )
        size = photo.shape[1::-1]
        maps = (
            cv2.resize(m.astype(np.int16), size, interpolation=cv2.INTER_NEAREST) for m in (truth, predicted)
        )
        return photo, *(palette[m] for m in maps)

    return draw


def _photo(path: Path) -> tuple[np.ndarray, float]:
    """An image reduced to ``SIDE``, (H, W, 3) uint8 RGB, and by how much.

    Raises:
        UserError: it cannot be read.
    """
    image = read_picture(path)
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _uri(pixels: np.ndarray) -> str:
    """A WebP data URI: photographs with loss, overlays (with alpha) without."""
    buffer = io.BytesIO()
    overlay = pixels.shape[-1] == 4
    Image.fromarray(pixels).save(buffer, 'WEBP', quality=60 if overlay else 78, lossless=overlay, method=4)
    return 'data:image/webp;base64,' + base64.b64encode(buffer.getvalue()).decode()
