"""A built-in set of four-band images: the shapes in red, green and blue, and plants in near infrared.

    python -m swin_dense.demo.bands data/bands

writes 16-bit TIFFs and label maps in ADE20K's layout. Plants are round patches that reflect near infrared
and have the colours of whatever they lie on: only the fourth band shows them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import tifffile
from rich.progress import track

from swin_dense.demo import shapes

LABELS = (*shapes.LABELS, 'plant')  # of the label maps, from 1; 0 is unlabelled
PLANT = len(LABELS)
RANGE = (600, 12000)  # of the 16-bit values: sensors seldom use all 65536
SIZE = 256  # pixels of the longer side
PLANTS = (3, 9)  # in an image, the second excluded


def draw_bands(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ``number`` of the data set with ``seed``.

    Returns:
        (H, W, 4) uint16 red, green, blue, near infrared; (H, W) uint8 labels.
    """
    scene = shapes.draw_scene(seed, number)
    rng = np.random.default_rng((seed, number, 1))
    labels = scene.labels()
    infrared = np.full(labels.shape, rng.uniform(40, 80))
    for instance in scene.instances:
        infrared[instance.mask] += rng.uniform(-20, 20)
    for _ in range(rng.integers(*PLANTS)):
        patch = _patch(rng, labels.shape) & (labels == 1)  # on bare background, behind the shapes
        infrared[patch] = rng.uniform(150, 210)
        labels[patch] = PLANT
    infrared += rng.normal(0, 10, labels.shape)
    image = np.dstack([scene.image.astype(np.float32), infrared.astype(np.float32)])
    height, width = (side * SIZE // max(labels.shape) for side in labels.shape)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    low, high = RANGE
    values = low + (high - low) / 255 * image.clip(0, 255)
    return values.astype(np.uint16), cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)


def _patch(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, a round patch with a wavy edge."""
    y, x = np.mgrid[: size[0], : size[1]]
    center, radius = rng.uniform((0, 0), size), rng.uniform(20, 50)
    dy, dx = y - center[0], x - center[1]
    waves = 1 + 0.2 * np.sin(rng.integers(3, 7) * np.arctan2(dy, dx) + rng.uniform(0, 2 * np.pi))
    return np.hypot(dy, dx) < radius * waves


def write(root: Path, train: int = 90, val: int = 30, seed: int = 0) -> None:
    """Write the data set below ``root``.

    Args:
        root: folder to make.
        train, val: number of images.
        seed: another seed gives other images.
    """
    first = 0
    for split, count in (('training', train), ('validation', val)):
        images, maps = (root / kind / split for kind in ('images', 'annotations'))
        for folder in (images, maps):
            folder.mkdir(parents=True, exist_ok=True)
        for number in track(range(first, first + count), f'drawing {count} images for {split}'):
            image, labels = draw_bands(seed, number)
            name = f'{number + 1:06d}'
            tifffile.imwrite(images / f'{name}.tif', image, photometric='minisblack', planarconfig='contig')
            cv2.imwrite(str(maps / f'{name}.png'), labels)
        first += count
    (root / 'classes.txt').write_text('\n'.join(LABELS) + '\n')


def main() -> None:
    """Write the data set to the folder named on the command line."""
    parser = argparse.ArgumentParser(description='Write the built-in set of four-band images.')
    parser.add_argument('root', type=Path, help='folder to write images/ and annotations/ into')
    parser.add_argument('--train', type=int, default=90, help='training images (default: 90)')
    parser.add_argument('--val', type=int, default=30, help='validation images (default: 30)')
    parser.add_argument('--seed', type=int, default=0, help='another seed draws other images (default: 0)')
    args = parser.parse_args()
    write(args.root, args.train, args.val, args.seed)


if __name__ == '__main__':
    main()
