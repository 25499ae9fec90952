"""Predictor in Python: what it takes, and what comes back."""

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from swin_dense.errors import UserError
from swin_dense.formats import rle
from swin_dense.predict import Instances, LabelMap, Predictor
from tests.predict.conftest import TASKS, Made
from tests.tiling import scenes


@pytest.fixture(scope='module')
def predictors(made: Made) -> dict[str, Predictor]:
    return {task: Predictor(path, device='cpu') for task, path in made.checkpoints.items()}


def equal(one: Instances | LabelMap, other: Instances | LabelMap) -> bool:
    if isinstance(one, LabelMap):
        return np.array_equal(one.label_map, other.label_map)
    return one.rles == other.rles and np.array_equal(one.boxes, other.boxes)


@pytest.mark.parametrize('task', TASKS)
def test_the_same_image_in_every_form(task: str, made: Made, predictors: dict[str, Predictor]):
    predictor, path = predictors[task], made.images(task)[0]
    expected = predictor(path)
    rgb = predictor.read(path)[..., ::-1]
    alpha = np.concatenate([rgb, rgb[..., :1]], 2)
    wide = (rgb.astype(np.uint16) << 8) + 17
    tensor = torch.from_numpy(rgb.copy()).permute(2, 0, 1)
    for image in (str(path), rgb, rgb.copy(), alpha, wide, tensor, tensor / 255):
        assert equal(predictor(image), expected)
    gray = rgb[..., 0]
    assert equal(predictor(gray), predictor(np.stack([gray] * 3, 2)))
    assert not equal(predictor(rgb[..., ::-1]), expected), 'the order of channels counts'


def test_what_a_detector_returns(made: Made, predictors: dict[str, Predictor]):
    predictor, path = predictors['detection'], made.images('detection')[0]
    found = predictor(path)
    height, width = predictor.read(path).shape[:2]
    assert predictor.task == 'detection'
    assert found.classes == predictor.classes == ('circle', 'triangle', 'rectangle', 'star', 'ring')
    assert found.shape == (height, width)
    assert found.masks.shape == (20, height, width)
    assert found.masks.dtype == bool
    assert (found.boxes.shape, found.labels.shape, found.scores.shape) == ((20, 4), (20,), (20,))
    half = found.above(float(np.median(found.scores)))
    assert len(half) == 10
    assert set(found.only([3]).labels.tolist()) <= {3}
    nothing = found.above(2.0)
    assert nothing.masks.shape == (0, height, width)


def test_what_a_segmentor_returns(made: Made, predictors: dict[str, Predictor]):
    predictor, path = predictors['segmentation'], made.images('segmentation')[0]
    found = predictor(path, logits=True)
    assert predictor.reduces_zero_label
    assert found.label_map.dtype == np.uint8
    assert found.logits.shape == (6, *found.shape)
    assert np.array_equal(found.logits.argmax(0), found.label_map)
    assert predictor(path).logits is None
    assert set(np.unique(found.only([0]).label_map)) <= {0, 255}


@pytest.mark.parametrize('task', TASKS)
def test_a_batch_changes_nothing_but_rounding(task: str, made: Made, predictors: dict[str, Predictor]):
    """Images of other sizes are not padded to the largest."""
    predictor = predictors[task]
    image = predictor.read(made.images(task)[0])
    images = [image, image[:200, :333], image[::-1].copy()]
    together = predictor.predict(images)
    assert [found.shape for found in together] == [x.shape[:2] for x in images]
    alone = [predictor.predict([x])[0] for x in images]
    assert equal(together[1], alone[1])
    for one, other in zip(together, alone, strict=True):
        if task == 'segmentation':
            assert (one.label_map == other.label_map).mean() > 0.999
        else:
            assert np.allclose(one.scores, other.scores, atol=1e-4)


@pytest.mark.parametrize(
    'image',
    [
        np.zeros((8, 8, 3)),
        np.zeros((8, 8, 2), np.uint8),
        np.zeros((8,), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
        torch.zeros(8, 8),
        torch.full((3, 8, 8), 2.0),
        torch.full((3, 8, 8), float('nan')),
    ],
)
def test_what_is_no_image(image: object, predictors: dict[str, Predictor]):
    with pytest.raises(ValueError, match=r'an image of|a tensor of'):
        predictors['segmentation'](image)


def test_no_such_file(predictors: dict[str, Predictor]):
    with pytest.raises(UserError, match=r'image nothing\.jpg does not exist'):
        predictors['detection']('nothing.jpg')


@pytest.mark.parametrize('task', TASKS)
def test_tiles_of_a_real_model(task: str, made: Made, predictors: dict[str, Predictor]):
    """One tile is the whole image; of several, their borders make differences, but few."""
    predictor = predictors[task]
    image = predictor.read(made.images(task)[0])
    whole = predictor.predict([image])[0]
    assert equal(predictor.predict_tiled(image, 4000), whole)
    assert predictor.predict_tiled(image, 300).shape == whole.shape


def test_runs_of_masks():
    """Against pycocotools' own encoder and decoder, on dense masks."""
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(1, 60, 2)
        y1, y2 = sorted(random.integers(0, height + 1, 2))
        x1, x2 = sorted(random.integers(0, width + 1, 2))
        mask = np.zeros((height, width), bool)
        mask[y1:y2, x1:x2] = random.random((y2 - y1, x2 - x1)) < random.random() * 1.2
        expected = mask_api.encode(np.asfortranarray(mask, np.uint8))
        assert rle.encode(mask[y1:y2, x1:x2], x1, y1, (height, width)) == expected
        assert np.array_equal(rle.crop(expected, 0, 0, width, height), mask)
        assert np.array_equal(rle.crop(expected, x1, y1, x2, y2), mask[y1:y2, x1:x2])
    whole = rle.box((3000, 2000), 3, 5, 1800, 2900)  # long runs
    assert rle.crop(whole, 0, 0, 2000, 3000).sum() == mask_api.area(whole) == 1797 * 2895


def test_dense_masks_are_those_of_the_runs():
    found = scenes.objects([scenes.scene(1)])[0]
    crops = [rle.crop(mask, 0, 0, 160, 160) for mask in found.rles]
    assert np.array_equal(found.masks, np.array(crops))
