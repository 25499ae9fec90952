"""The built-in data set: textured shapes, some behind others, on cluttered backgrounds.

    python -m swin_dense.demo.shapes data/shapes

writes the same scenes three times: as ``coco/`` (instances), as ``ade/`` (label maps) and as ``panoptic/``
(shapes told apart, on a background that is stuff). A scene depends on the seed and its number alone. A
shape's class is its outline; its texture varies, and its colour around a hue of the class. One scene in ten
has no objects, one in ten has a crowd.
"""

import argparse
import colorsys
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as rle
from rich.progress import track

from swin_dense.formats.panoptic_pngs import colours_of

CLASSES = ('circle', 'triangle', 'rectangle', 'star', 'ring')
LABELS = ('background', *CLASSES)  # of the label maps, from 1; 0 is unlabelled, as in ADE20K
BACKGROUND = {'id': len(CLASSES) + 1, 'name': 'background', 'isthing': 0}
SIZES = ((512, 512), (512, 448), (448, 512))  # height, width
MIN_VISIBLE = 0.5  # a shape may hide at most half of another one


@dataclass
class Instance:
    """One annotated object, or one crowd.

    Attributes:
        category: index into ``CLASSES``.
        mask: (H, W) bool, the visible pixels.
        outline: (P, 2) x, y of the whole outline, None for a shape with a hole and for crowds.
        area: pixels of the whole shape, in front of everything.
        crowd: many small shapes, annotated as one region.
    """

    category: int
    mask: np.ndarray
    outline: np.ndarray | None
    area: int
    crowd: bool = False


@dataclass
class Scene:
    """An image (H, W, 3) uint8 RGB and its objects, from back to front."""

    image: np.ndarray
    instances: list[Instance]

    def labels(self) -> np.ndarray:
        """(H, W) uint8 label map: 0 unlabelled (crowds), 1 background, 2.. the classes."""
        labels = np.ones(self.image.shape[:2], np.uint8)
        for instance in self.instances:
            labels[instance.mask] = 0 if instance.crowd else 2 + instance.category
        return labels


def draw_scene(seed: int, number: int) -> Scene:
    """Scene ``number`` of the data set with ``seed``."""
    rng = np.random.default_rng((seed, number))
    height, width = SIZES[rng.integers(len(SIZES))]
    scene = Scene(_background(rng, height, width), [])
    kind = number % 10
    if kind == 7:  # no objects
        return scene
    if kind == 3:
        _add_crowd(rng, scene)
    for _ in range(rng.integers(18, 45)):
        category = int(rng.integers(len(CLASSES)))
        radius = float(np.exp(rng.uniform(np.log(12), np.log(32))))
        center = rng.uniform((0.0, 0.0), (width, height))
        _add(scene, category, *_silhouette(rng, category, center, radius, (height, width)), rng)
    return scene


def _add(
    scene: Scene, category: int, mask: np.ndarray, outline: np.ndarray | None, rng: np.random.Generator
) -> None:
    """Paint a shape in front of the scene, unless it would hide too much or be too small."""
    area = int(mask.sum())
    if area < 100:
        return
    for other in scene.instances:
        if (other.mask & ~mask).sum() < (1.0 if other.crowd else MIN_VISIBLE) * other.area:
            return
    for other in scene.instances:
        other.mask &= ~mask
    _paint(rng, scene.image, mask, category)
    scene.instances.append(Instance(category, mask, outline, area))


def _add_crowd(rng: np.random.Generator, scene: Scene) -> None:
    """Eight to fifteen small shapes of one class, close together, annotated as one region."""
    height, width = scene.image.shape[:2]
    category = int(rng.integers(len(CLASSES)))
    middle = rng.uniform((40, 40), (width - 40, height - 40))
    region = np.zeros((height, width), bool)
    for _ in range(rng.integers(8, 16)):
        center = middle + rng.normal(0, 18, 2)
        mask, _ = _silhouette(rng, category, center, float(rng.uniform(6, 9)), (height, width))
        _paint(rng, scene.image, mask, category)
        region |= mask
    scene.instances.append(Instance(category, region, None, int(region.sum()), crowd=True))


def _silhouette(
    rng: np.random.Generator, category: int, center: np.ndarray, radius: float, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The (H, W) bool mask of a shape at a random angle, and its outline (P, 2) if it has no hole."""
    turn = rng.uniform(0, 2 * np.pi)
    name = CLASSES[category]
    if name in ('circle', 'ring'):
        points = _polar(np.full(40, radius), turn)
    elif name == 'triangle':
        points = _polar(radius * rng.uniform(0.85, 1.15, 3), turn)
    elif name == 'star':
        points = _polar(radius * np.tile([1.15, 0.5], 5), turn)
    else:
        half = radius * np.array([1.0, rng.uniform(0.45, 0.9)])
        corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        cos, sin = np.cos(turn), np.sin(turn)
        points = corners @ np.array([[cos, sin], [-sin, cos]])
    outline = points + center
    mask = _fill(outline, size)
    if name == 'ring':
        return mask & ~_fill(0.5 * points + center, size), None
    return mask, outline


def _polar(radii: np.ndarray, turn: float) -> np.ndarray:
    angles = turn + np.linspace(0, 2 * np.pi, len(radii), endpoint=False)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _fill(outline: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Rasterise as pycocotools does, so that pixels and annotation agree."""
    polygon = np.clip(outline, 0, (size[1], size[0])).ravel().tolist()
    return rle.decode(rle.merge(rle.frPyObjects([polygon], *size))).astype(bool)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Dull noise at several scales, with lines and specks for clutter."""
    base = rng.uniform(60, 170) + rng.normal(0, 12, 3)
    image = np.tile(base, (height, width, 1))
    for cells, strength in ((8, 35), (32, 20), (128, 12)):
        noise = rng.normal(0, strength, (cells, cells, 1)) + rng.normal(0, strength / 3, (cells, cells, 3))
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 6, image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(3, 12)):
        begin, end = rng.integers(0, (width, height), (2, 2)).tolist()
        colour = np.clip(base + rng.normal(0, 45, 3), 0, 255).tolist()
        cv2.line(image, begin, end, colour, int(rng.integers(1, 4)), cv2.LINE_AA)
    for _ in range(rng.integers(40, 140)):
        spot = rng.integers(0, (width, height)).tolist()
        colour = np.clip(base + rng.normal(0, 60, 3), 0, 255).tolist()
        cv2.circle(image, spot, int(rng.integers(1, 4)), colour, -1, cv2.LINE_AA)
    return image


def _paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, category: int) -> None:
    """Fill ``mask`` with a texture of two shades near the hue of the class."""
    hue = category / len(CLASSES) + rng.normal(0, 0.04)
    light, dark = (
        np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 0.95), value)) * 255
        for value in (rng.uniform(0.75, 1.0), rng.uniform(0.4, 0.65))
    )
    y, x = np.nonzero(mask)
    turn, period = rng.uniform(0, np.pi), rng.uniform(5, 14)
    along = (x * np.cos(turn) + y * np.sin(turn)) / period
    across = (y * np.cos(turn) - x * np.sin(turn)) / period
    texture = rng.integers(4)
    if texture == 0:  # plain
        share = np.full(len(x), 0.8)
    elif texture == 1:  # stripes
        share = (along % 1 < 0.5).astype(float)
    elif texture == 2:  # checks
        share = ((along % 1 < 0.5) ^ (across % 1 < 0.5)).astype(float)
    else:  # dots
        share = (np.hypot(along % 1 - 0.5, across % 1 - 0.5) > 0.3).astype(float)
    colour = share[:, None] * light + (1 - share[:, None]) * dark
    image[y, x] = np.clip(colour + rng.normal(0, 8, colour.shape), 0, 255)


def _annotation(instance: Instance, number: int, image_id: int) -> dict:
    """One entry of a COCO file: the polygon if the whole outline is visible, RLE otherwise."""
    height, width = instance.mask.shape
    encoded = rle.encode(np.asfortranarray(instance.mask.astype(np.uint8)))
    if instance.outline is not None and int(instance.mask.sum()) == instance.area:
        polygon = np.clip(instance.outline, 0, (width, height)).round(2)
        segmentation: list | dict = [polygon.ravel().tolist()]
    else:
        segmentation = {'size': [height, width], 'counts': encoded['counts'].decode()}
    return {
        'id': number,
        'image_id': image_id,
        'category_id': instance.category + 1,
        'segmentation': segmentation,
        'bbox': rle.toBbox(encoded).tolist(),
        'area': int(instance.mask.sum()),
        'iscrowd': int(instance.crowd),
    }


def _panoptic(scene: Scene, image_id: int) -> tuple[np.ndarray, dict]:
    """The ids (H, W) of a scene's segments, those of shapes first, and its entry of a panoptic file."""
    ids = np.zeros(scene.image.shape[:2], np.int32)
    for number, shape in enumerate(scene.instances, 1):
        ids[shape.mask] = number
    ids[ids == 0] = len(scene.instances) + 1
    segments = []
    for number in np.unique(ids).tolist():
        mask = np.asfortranarray(ids == number, np.uint8)
        instance = scene.instances[number - 1] if number <= len(scene.instances) else None
        segments.append(
            {
                'id': number,
                'category_id': len(CLASSES) + 1 if instance is None else instance.category + 1,
                'iscrowd': int(instance is not None and instance.crowd),
                'bbox': rle.toBbox(rle.encode(mask)).tolist(),
                'area': int(mask.sum()),
            }
        )
    return ids, {'image_id': image_id, 'file_name': f'{image_id:06d}.png', 'segments_info': segments}


def write(root: Path, train: int = 90, val: int = 30, seed: int = 0) -> None:
    """Write the data set below ``root``: ``coco/``, ``ade/`` and ``panoptic/``, each with its own images.

    Args:
        root: folder to make.
        train, val: number of scenes.
        seed: another seed gives other scenes.
    """
    first = 0
    for split, ade_split, count in (('train', 'training', train), ('val', 'validation', val)):
        photos, labels = (root / 'ade' / kind / ade_split for kind in ('images', 'annotations'))
        coco, whole = (root / kind / f'{split}2017' for kind in ('coco', 'panoptic'))
        pngs = root / 'panoptic' / 'annotations' / f'panoptic_{split}2017'
        for folder in (photos, labels, coco, whole, pngs, root / 'coco' / 'annotations'):
            folder.mkdir(parents=True, exist_ok=True)
        images: list[dict] = []
        annotations: list[dict] = []
        panoptic: list[dict] = []
        for number in track(range(first, first + count), f'drawing {count} {split} scenes'):
            scene = draw_scene(seed, number)
            image_id = number + 1
            height, width = scene.image.shape[:2]
            name = f'{image_id:06d}'
            images.append({'id': image_id, 'file_name': f'{name}.jpg', 'height': height, 'width': width})
            for instance in scene.instances:
                annotations.append(_annotation(instance, len(annotations) + 1, image_id))
            jpeg = cv2.imencode('.jpg', scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            for folder in (coco, photos, whole):
                (folder / f'{name}.jpg').write_bytes(jpeg)
            ids, entry = _panoptic(scene, image_id)
            panoptic.append(entry)
            cv2.imwrite(str(pngs / f'{name}.png'), colours_of(ids)[..., ::-1])
            cv2.imwrite(str(labels / f'{name}.png'), scene.labels())
        categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, 1)]
        content = {'images': images, 'annotations': annotations, 'categories': categories}
        (root / 'coco' / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
        kinds = [*({**category, 'isthing': 1} for category in categories), BACKGROUND]
        content = {'images': images, 'annotations': panoptic, 'categories': kinds}
        pngs.with_suffix('.json').write_text(json.dumps(content))
        first += count
    (root / 'ade' / 'classes.txt').write_text('\n'.join(LABELS) + '\n')


def main() -> None:
    """Write the data set to the folder named on the command line."""
    parser = argparse.ArgumentParser(description='Write the built-in data set of shapes.')
    parser.add_argument('root', type=Path, help='folder to write coco/, ade/ and panoptic/ into')
    parser.add_argument('--train', type=int, default=90, help='training scenes (default: 90)')
    parser.add_argument('--val', type=int, default=30, help='validation scenes (default: 30)')
    parser.add_argument('--seed', type=int, default=0, help='another seed draws other scenes (default: 0)')
    args = parser.parse_args()
    write(args.root, args.train, args.val, args.seed)


if __name__ == '__main__':
    main()
