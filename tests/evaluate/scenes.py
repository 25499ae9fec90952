"""A small COCO set with everything that scores depend on, and predictions of it: some right, some wrong."""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

NAMES = ('cat', 'dog', 'zebra')
IDS = (3, 1, 7)  # of the categories, in the file's order
SIDE = 320


def encode(x: int, y: int, width: int, height: int) -> dict:
    """RLE of a rectangle."""
    mask = np.zeros((SIDE, SIDE), np.uint8, order='F')
    mask[y : y + height, x : x + width] = 1
    encoded = rle.encode(mask)
    return {'size': encoded['size'], 'counts': encoded['counts'].decode()}


def rectangle(rng: np.random.Generator) -> tuple[int, int, int, int]:
    size = int(np.exp(rng.uniform(np.log(8), np.log(150))))
    x, y = rng.integers(0, SIDE - size, 2).tolist()
    return x, y, size, max(4, int(size * rng.uniform(0.6, 1)))


def write(folder: Path, images: int = 8, objects: int = 9) -> tuple[Path, Path]:
    """The annotation file and the result file. The last image is empty, the one before has no predictions.

    Image 1 has 130 detections of one class, more than pycocotools' standard counts.
    """
    rng = np.random.default_rng(0)
    annotations, results = [], []
    for image in range(1, images):
        for _ in range(objects):
            category, box = 1 if image == 1 else int(rng.choice(IDS)), rectangle(rng)
            crowd = int(image > 1 and rng.random() < 0.1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=category,
                    bbox=list(box),
                    area=box[2] * box[3],
                    segmentation=encode(*box),
                    iscrowd=crowd,
                )
            )
            if image == images - 1 or (image > 1 and rng.random() < 0.2):
                continue
            for _ in range(130 // objects + 1 if image == 1 else 1):
                results.append(near(rng, image, category, box))
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', height=SIDE, width=SIDE) for i in range(1, images + 1)],
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in zip(IDS, NAMES, strict=True)],
    )
    truth, predictions = folder / 'instances_val.json', folder / 'results.json'
    truth.write_text(json.dumps(content))
    predictions.write_text(json.dumps(results))
    return truth, predictions


def near(rng: np.random.Generator, image: int, category: int, box: tuple[int, int, int, int]) -> dict:
    """A detection a little off, of another class now and then."""
    shift = (rng.normal(0, 0.08, 4) * box[2]).astype(int)
    x, y, width, height = (
        (np.array(box) + shift).clip([0, 0, 3, 3], [SIDE - 9, SIDE - 9, SIDE, SIDE]).tolist()
    )
    width, height = min(width, SIDE - x), min(height, SIDE - y)
    label = category if image == 1 or rng.random() < 0.75 else int(rng.choice(IDS))
    return dict(
        image_id=image,
        category_id=label,
        bbox=[x, y, width, height],
        score=float(rng.random()),
        segmentation=encode(x, y, width, height),
    )
