"""Tiles against the whole image, with stand-ins for which both are equal: not a pixel may differ."""

import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as mask_api

from swin_dense.errors import UserError
from swin_dense.formats.predictions import Instances, LabelMap
from swin_dense.tiling.instances import predict_instances
from swin_dense.tiling.label_maps import predict_labels
from swin_dense.tiling.tiles import grid, neighbours, starts
from tests.tiling import scenes


@pytest.mark.parametrize('overlap', [0, 0.1, 0.25, 0.5, 0.7])
@pytest.mark.parametrize(('length', 'size'), [(1, 4), (4, 4), (5, 4), (100, 32), (1751, 1000), (97, 1)])
def test_where_tiles_begin(length: int, size: int, overlap: float):
    begin = starts(length, size, overlap)
    assert begin[0] == 0
    assert begin[-1] == max(0, length - size), 'all of one size, the last at the end'
    gaps = np.diff(begin)
    step = max(1, size - round(size * overlap))
    assert (gaps <= step).all()
    assert (gaps > 0).all()
    assert len(begin) == 1 or (len(begin) - 2) * step < length - size, 'one less would not reach'


def test_tiles_that_see_the_same_pixels():
    tiles = grid((60, 83), 20, 0.4)
    flat = [tile for row in tiles for tile in row]
    pairs = {(a, b) for a in range(len(flat)) for b in range(a + 1, len(flat)) if flat[a].zone(flat[b])}
    found = {(a, b): zone for a, b, zone in neighbours(tiles)}
    assert found.keys() == pairs
    assert all(zone == flat[a].zone(flat[b]) for (a, b), zone in found.items())


@pytest.mark.parametrize(
    ('tile', 'overlap', 'word'), [(0, 0.1, '--tile 0'), (8, 1.0, '--overlap 1.0'), (8, -0.1, '--overlap')]
)
def test_impossible_tiles(tile: int, overlap: float, word: str):
    with pytest.raises(UserError, match=word):
        grid((50, 50), tile, overlap)


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize(
    ('tile', 'overlap'), [(64, 0.25), (50, 0.5), (41, 0.1), (33, 0.0), (30, 0.66), (200, 0.25)]
)
def test_labels_of_tiles_are_those_of_the_whole(tile: int, overlap: float, batch: int):
    image = np.random.default_rng(0).integers(0, 256, (131, 97, 3), np.uint8)
    whole = scenes.pixels([image])[0]
    found = predict_labels(scenes.pixels, image, tile, overlap, batch)
    assert found.label_map.dtype == np.uint8
    assert np.array_equal(found.label_map, whole.label_map)


def test_logits_are_averaged_where_tiles_overlap():
    """Against the average by hand, with logits that depend on the tile."""
    image = np.zeros((90, 70, 3), np.uint8)
    rng = np.random.default_rng(0)
    tiles = [tile for row in grid(image.shape, 40, 0.4) for tile in row]
    logits = [rng.normal(size=(4, 40, 40)).astype(np.float32) for _ in tiles]
    sums, counts = np.zeros((4, 90, 70)), np.zeros((90, 70))
    for tile, value in zip(tiles, logits, strict=True):
        sums[:, tile.y1 : tile.y2, tile.x1 : tile.x2] += value
        counts[tile.y1 : tile.y2, tile.x1 : tile.x2] += 1
    assert counts.max() > 4, 'some pixels are seen by more than two tiles a side'
    rest = iter(logits)

    def predict(images: list[np.ndarray]) -> list[LabelMap]:
        return [LabelMap(np.zeros((40, 40), np.uint8), tuple('abcd'), next(rest)) for _ in images]

    found = predict_labels(predict, image, 40, 0.4, batch=2)
    assert np.array_equal(found.label_map, (sums / counts).argmax(0))
    # a single logit: the mean counts, not the sum
    rest = iter([value[:1] for value in logits])
    found = predict_labels(predict, image, 40, 0.4, threshold=0.7)
    assert np.array_equal(found.label_map, 1 / (1 + np.exp(-sums[0] / counts)) > 0.7)


def test_more_than_255_classes():
    names = tuple(map(str, range(300)))

    def predict(images: list[np.ndarray]) -> list[LabelMap]:
        eye = (np.arange(300)[:, None, None] == image[None, ..., 0].astype(int) + 44 for image in images)
        return [LabelMap(x.argmax(0).astype(np.uint16), names, x.astype(np.float32)) for x in eye]

    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    assert np.array_equal(predict_labels(predict, image, 16, 0.25).label_map, image[..., 0] + np.uint16(44))


def test_memory_of_label_maps():
    """Bounded by tile and width: a 40 times higher image needs 40 times the label map, and nothing else."""
    peaks = []
    for height in (64, 64 * 40):
        image = np.zeros((height, 256, 3), np.uint8)
        tracemalloc.start()
        predict_labels(scenes.pixels, image, 64, 0.25)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    strip = 5 * 16 * 256 * 4
    assert peaks[1] - peaks[0] < 64 * 40 * 256 + 3 * strip


def as_set(found: Instances) -> Counter:
    """Class, mask (box, without masks) of each object."""
    if found.rles is None:
        return Counter(
            (int(label), *box) for label, box in zip(found.labels, found.boxes.tolist(), strict=True)
        )
    return Counter((int(label), x['counts']) for label, x in zip(found.labels, found.rles, strict=True))


@pytest.mark.parametrize('seed', range(12))
@pytest.mark.parametrize(('tile', 'overlap'), [(64, 0.25), (50, 0.5), (45, 0.3)])
def test_objects_of_tiles_are_those_of_the_whole(seed: int, tile: int, overlap: float):
    image = scenes.scene(seed)
    whole = scenes.objects([image])[0]
    found = predict_instances(scenes.objects, image, tile, overlap, batch=1 + seed % 3)
    assert as_set(found) == as_set(whole)
    assert found.shape == whole.shape
    assert (np.diff(found.scores) <= 0).all()
    by_mask = {x['counts']: box.tolist() for x, box in zip(whole.rles, whole.boxes, strict=True)}
    assert all(by_mask[x['counts']] == box.tolist() for x, box in zip(found.rles, found.boxes, strict=True))


PLACES = {  # tiles of 40 every 30 pixels
    'one': (2, 2, 20, 20),
    'the zone of two': (31, 5, 38, 12),
    'the zone of four': (31, 31, 39, 39),
    'two': (20, 5, 60, 15),
    'two, as far as the border': (20, 5, 40, 15),
    'four': (20, 20, 60, 60),
    'all in a row': (0, 10, 100, 14),
    'everything': (0, 0, 100, 100),
    'one pixel into the zone': (5, 5, 31, 15),
}


@pytest.mark.parametrize('predict', [scenes.objects, scenes.boxes], ids=['masks', 'boxes'])
@pytest.mark.parametrize('place', PLACES)
def test_one_object(place: str, predict: object):
    x1, y1, x2, y2 = PLACES[place]
    image = np.zeros((100, 100, 3), np.uint8)
    image[y1:y2, x1:x2] = 4
    found = predict_instances(predict, image, 40, 0.25)
    assert found.boxes.tolist() == [[x1, y1, x2, y2]]
    assert found.labels.tolist() == [1]
    if found.rles is not None:
        assert np.array_equal(found.masks[0], image[..., 0] == 4)


@pytest.mark.parametrize('flipped', [False, True])
def test_a_comb_is_several_objects_to_one_tile(flipped: bool):
    image = np.zeros((70, 40, 3), np.uint8)
    for x in (5, 12, 19, 26):
        image[5:50, x : x + 3] = 3
    image[45:50, 5:29] = 3
    image = np.ascontiguousarray(image[::-1]) if flipped else image
    found = predict_instances(scenes.objects, image, 40, 0.25)
    assert as_set(found) == as_set(scenes.objects([image])[0])
    assert len(found) == 1


@pytest.mark.parametrize('gap', [0, 1])
@pytest.mark.parametrize('values', [(3, 6), (3, 4)], ids=['one class', 'two classes'])
@pytest.mark.parametrize('middle', [28, 31, 33, 35, 38, 41])
def test_touching_neighbours_stay_apart(middle: int, values: tuple[int, int], gap: int):
    image = np.zeros((60, 70, 3), np.uint8)
    image[10:50, 5:middle] = values[0]
    image[10:50, middle + gap : 65] = values[1]
    found = predict_instances(scenes.objects, image, 40, 0.25)
    assert as_set(found) == as_set(scenes.objects([image])[0])
    assert len(found) == 2


def test_the_score_of_a_joined_object_is_its_highest():
    image = np.zeros((40, 70, 3), np.uint8)
    image[10:20, 10:65] = 3
    found = predict_instances(scenes.objects, image, 40, 0.25)
    assert found.scores.tolist() == [np.float32(350 / 1600)]


def test_an_object_is_taken_from_the_tile_that_sees_it_whole():
    """Though another sees a part of it, with a higher score."""
    image = np.zeros((40, 70, 3), np.uint8)
    image[10:20, 12:36] = 3

    def predict(images: list[np.ndarray]) -> list[Instances]:
        return [replace(x, scores=1 - x.scores) for x in scenes.objects(images)]

    found = predict_instances(predict, image, 40, 0.25)
    assert found.boxes.tolist() == [[12, 10, 36, 20]]
    assert found.scores.tolist() == [1 - np.float32(240 / 1600)]


def listed(*per_tile: list[tuple[float, list[int]]]) -> object:
    """A stand-in that gives for each tile in turn objects of class 0: score and box in the tile."""
    rest = iter(per_tile)

    def predict(images: list[np.ndarray]) -> list[Instances]:
        results = []
        for image, objects in zip(images, rest, strict=False):
            boxes = np.array([box for _, box in objects], np.float32).reshape(-1, 4)
            scores = np.array([score for score, _ in objects], np.float32)
            zeros = np.zeros(len(objects), int)
            results.append(Instances(boxes, zeros, scores, None, ('a',), image.shape[:2]))
        return results

    return predict


def test_duplicates_of_two_tiles_are_suppressed():
    """Both whole to their tiles, and not quite the same."""
    image = np.zeros((40, 60, 3), np.uint8)  # tiles at 0 and 20, the zone is 20 to 40
    predict = listed([(0.7, [22, 5, 34, 20])], [(0.9, [3, 5, 15, 21])])
    found = predict_instances(predict, image, 40, 0.5)
    assert found.boxes.tolist() == [[23, 5, 35, 21]]
    assert found.scores.tolist() == [np.float32(0.9)]


def test_two_of_one_tile_are_the_models_own_affair():
    image = np.zeros((40, 60, 3), np.uint8)
    predict = listed([(0.7, [2, 5, 14, 20]), (0.9, [3, 5, 15, 20])], [])
    assert len(predict_instances(predict, image, 40, 0.5)) == 2


def test_a_fragment_inside_an_object_is_dropped():
    """What the border left of an object, too badly seen to agree with it."""
    image = np.zeros((40, 60, 3), np.uint8)
    predict = listed([(0.7, [4, 5, 36, 25])], [(0.9, [0, 6, 6, 14])])
    assert predict_instances(predict, image, 40, 0.5).boxes.tolist() == [[4, 5, 36, 25]]


def test_two_classes_on_one_spot_stay_two():
    image = np.zeros((40, 70, 3), np.uint8)
    image[10:20, 10:65] = 3

    def predict(images: list[np.ndarray]) -> list[Instances]:
        found = scenes.objects(images)
        twice = [x.take(np.array([0, 0])) for x in found]
        return [replace(x, labels=np.array([0, 1])) for x in twice]

    found = predict_instances(predict, image, 40, 0.25)
    assert sorted(found.labels.tolist()) == [0, 1]
    assert found.boxes.tolist() == [[10, 10, 65, 20]] * 2


def test_nothing_is_found():
    image = np.zeros((100, 120, 3), np.uint8)
    for predict in (scenes.objects, scenes.boxes):
        found = predict_instances(predict, image, 40, 0.25)
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
        assert found.shape == (100, 120)


def test_an_image_of_one_tile_is_left_alone():
    image = scenes.scene(3, side=40)
    found = predict_instances(scenes.objects, image, 64, 0.25)
    whole = scenes.objects([image])[0]
    assert found.rles == whole.rles
    assert np.array_equal(found.scores, whole.scores)


def test_memory_of_objects():
    """No mask of the whole image: 200 objects in 1000 x 1000 pixels would be 200 MB."""
    image = np.zeros((1000, 1000, 3), np.uint8)
    spots = np.random.default_rng(0).permutation(400)[:200]
    for number, spot in enumerate(spots):
        y, x = divmod(int(spot), 20)
        image[y * 50 : y * 50 + 30, x * 50 : x * 50 + 30] = 3 + number % 3

    def predict(images: list[np.ndarray]) -> list[Instances]:
        tracemalloc.stop()
        found = scenes.objects(images)
        tracemalloc.start()
        return found

    tracemalloc.start()
    found = predict_instances(predict, image, 250, 0.25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 200
    assert peak < 30e6
    assert mask_api.area(found.rles).sum() == (image[..., 0] > 0).sum()
