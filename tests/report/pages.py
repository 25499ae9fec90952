"""Small made-up data for reports: a COCO folder and an ADE20K folder, each with predictions."""

import json
from pathlib import Path

import cv2
import numpy as np

from tests.evaluate import scenes

HOSTILE = '<script>alert(1)</script>'
QUOTED = '"><img src=x onerror=alert(2)>'


def detection(root: Path, names: tuple[str, ...] = scenes.NAMES) -> tuple[Path, Path]:
    """A COCO folder with images, and its result file."""
    (root / 'val').mkdir(parents=True)
    truth, predictions = scenes.write(root)
    content = json.loads(truth.read_text())
    for category, name in zip(content['categories'], names, strict=True):
        category['name'] = name
    rng = np.random.default_rng(0)
    for image in content['images']:
        pixels = rng.integers(0, 255, (scenes.SIDE, scenes.SIDE, 3), np.uint8)
        cv2.imwrite(str(root / 'val' / image['file_name']), cv2.blur(pixels, (31, 31)))
    truth.write_text(json.dumps(content))
    return root, predictions


def segmentation(root: Path, names: tuple[str, ...] = ('land', 'road', 'sea')) -> tuple[Path, Path]:
    """An ADE20K folder with five images, and the folder of label maps."""
    rng = np.random.default_rng(0)
    for folder in ('images/training', 'images/validation', 'annotations/training', 'annotations/validation'):
        (root / folder).mkdir(parents=True)
    (root / 'maps').mkdir()
    (root / 'classes.txt').write_text('\n'.join(names))
    truth = np.kron([[0, 1, 2, 3], [1, 1, 2, 2], [3, 3, 2, 1]], np.ones((40, 40), int)).astype(np.uint8)
    for number in range(5):  # the higher its number, the more of an image's road is taken for land
        taken = (truth == 2) & (rng.random(truth.shape) < 0.2 * number)
        predicted = np.where(taken, 1, np.maximum(truth, 1)).astype(np.uint8)
        pixels = rng.integers(0, 255, (*truth.shape, 3), np.uint8)
        for split in ('training', 'validation'):
            cv2.imwrite(str(root / 'images' / split / f'{number}.png'), cv2.blur(pixels, (21, 21)))
            cv2.imwrite(str(root / 'annotations' / split / f'{number}.png'), truth)
        cv2.imwrite(str(root / 'maps' / f'{number}.png'), predicted)
    return root, root / 'maps'
