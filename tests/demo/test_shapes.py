"""The built-in data set: what is written agrees with what is drawn."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from swin_dense.demo import shapes

TRAIN, VAL, SEED = 20, 10, 0
FIRST = {'train': 0, 'val': TRAIN}
COUNT = {'train': TRAIN, 'val': VAL}
ADE = {'train': 'training', 'val': 'validation'}
every_split = pytest.mark.parametrize('split', ['train', 'val'])


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shapes')
    shapes.write(folder, TRAIN, VAL, SEED)
    return folder


def load(root: Path, split: str) -> COCO:
    return COCO(str(root / 'coco' / 'annotations' / f'instances_{split}2017.json'))


def scenes(split: str) -> dict[int, shapes.Scene]:
    """The scenes of a split by image id."""
    return {
        number + 1: shapes.draw_scene(SEED, number)
        for number in range(FIRST[split], FIRST[split] + COUNT[split])
    }


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize('number', [0, 3, 7, 1000])
def test_a_scene_depends_on_seed_and_number_alone(number: int):
    first, again = shapes.draw_scene(5, number), shapes.draw_scene(5, number)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels(), again.labels())
    assert len(first.instances) == len(again.instances)
    for a, b in zip(first.instances, again.instances, strict=True):
        assert (a.category, a.area, a.crowd) == (b.category, b.area, b.crowd)
        assert np.array_equal(a.mask, b.mask)


@pytest.mark.parametrize(('seed', 'number'), [(6, 0), (5, 1), (0, 5)])
def test_other_seeds_and_numbers_give_other_scenes(seed: int, number: int):
    one, other = shapes.draw_scene(5, 0), shapes.draw_scene(seed, number)
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_the_global_random_state_has_no_part():
    first = shapes.draw_scene(1, 2).image
    np.random.seed(12345)
    assert np.array_equal(shapes.draw_scene(1, 2).image, first)


def test_the_command_writes_the_same_files_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    arguments = ['--train', str(TRAIN), '--val', str(VAL), '--seed', str(SEED)]
    monkeypatch.setattr('sys.argv', ['shapes', str(tmp_path / 'again'), *arguments])
    shapes.main()
    written = {path.relative_to(root): path.read_bytes() for path in root.rglob('*') if path.is_file()}
    again = tmp_path / 'again'
    assert {p.relative_to(again): p.read_bytes() for p in again.rglob('*') if p.is_file()} == written


@every_split
def test_every_reference_resolves(root: Path, split: str):
    content = json.loads((root / 'coco' / 'annotations' / f'instances_{split}2017.json').read_text())
    images = {image['id'] for image in content['images']}
    categories = {category['id']: category['name'] for category in content['categories']}
    assert len(content['images']) == len(images) == COUNT[split]
    assert len({image['file_name'] for image in content['images']}) == COUNT[split]
    numbers = [annotation['id'] for annotation in content['annotations']]
    assert len(set(numbers)) == len(numbers)
    assert min(numbers) > 0, 'pycocotools takes id 0 for no match'
    assert {annotation['image_id'] for annotation in content['annotations']} <= images
    assert {annotation['category_id'] for annotation in content['annotations']} == set(categories)
    assert tuple(categories.values()) == shapes.CLASSES


def test_the_splits_share_no_image(root: Path):
    train, val = (set(load(root, split).imgs) for split in ('train', 'val'))
    assert not train & val


@every_split
def test_images_have_the_stated_size_and_the_drawn_pixels(root: Path, split: str):
    drawn = scenes(split)
    for image_id, image in load(root, split).imgs.items():
        path = root / 'coco' / f'{split}2017' / image['file_name']
        pixels = cv2.imread(str(path))[..., ::-1]
        assert pixels.shape == (image['height'], image['width'], 3)
        assert pixels.shape[:2] in shapes.SIZES
        difference = np.abs(pixels.astype(int) - drawn[image_id].image)
        assert difference.mean() < 8, path  # JPEG
        copy = root / 'ade' / 'images' / ADE[split] / image['file_name']
        assert copy.read_bytes() == path.read_bytes()


@every_split
def test_annotations_agree_with_the_pixels(root: Path, split: str):
    coco = load(root, split)
    for image_id, scene in scenes(split).items():
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            where = f'image {image_id}, annotation {annotation["id"]}'
            assert annotation['category_id'] == instance.category + 1, where
            assert annotation['iscrowd'] == instance.crowd, where
            assert iou(coco.annToMask(annotation).astype(bool), instance.mask) > 0.97, where
            y, x = np.nonzero(instance.mask)
            box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
            assert annotation['bbox'] == box, where
            assert annotation['area'] == instance.mask.sum() > 0, where


@every_split
def test_polygons_rle_crowds_and_empty_images_all_occur(root: Path, split: str):
    coco = load(root, split)
    annotations = list(coco.anns.values())
    assert any(isinstance(a['segmentation'], list) for a in annotations)
    assert any(isinstance(a['segmentation'], dict) and not a['iscrowd'] for a in annotations)
    crowds = [a for a in annotations if a['iscrowd']]
    assert crowds
    assert all(isinstance(a['segmentation'], dict) for a in crowds)
    annotated = {a['image_id'] for a in annotations}
    assert 0 < len(coco.imgs) - len(annotated) < len(coco.imgs) / 4


@every_split
def test_objects_hide_at_most_half_of_each_other_and_share_no_pixel(split: str):
    for scene in scenes(split).values():
        layers = np.zeros(scene.image.shape[:2], int)
        for instance in scene.instances:
            layers += instance.mask
            assert instance.mask.sum() >= shapes.MIN_VISIBLE * instance.area
        assert layers.max(initial=0) <= 1


@every_split
def test_label_maps_agree_with_the_instances(root: Path, split: str):
    coco, seen = load(root, split), set()
    for image_id, image in coco.imgs.items():
        path = (root / 'ade' / 'annotations' / ADE[split] / image['file_name']).with_suffix('.png')
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8
        expected = np.ones((image['height'], image['width']), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(image_id)):
            label = 0 if annotation['iscrowd'] else 1 + annotation['category_id']  # crowds are unlabelled
            expected[coco.annToMask(annotation).astype(bool)] = label
        assert labels.shape == expected.shape
        assert (labels == expected).mean() > 0.995, path
        seen |= set(np.unique(labels).tolist())
    assert seen == {0, *range(1, 1 + len(shapes.LABELS))}


def test_the_class_names_of_the_label_maps(root: Path):
    names = (root / 'ade' / 'classes.txt').read_text().split()
    assert tuple(names) == shapes.LABELS == ('background', *shapes.CLASSES)
