"""Pictures of predictions: the right pixels are tinted, names stand where there is room."""

import numpy as np
import pytest

from swin_dense.drawing import overlays
from swin_dense.drawing.colours import colours
from swin_dense.drawing.painter import LABEL_FILL, MASK_FILL, muted
from swin_dense.formats import rle
from swin_dense.formats.predictions import Instances, LabelMap

CLASSES = ('circle', 'triangle', 'Straße')


def instances(shape: tuple[int, int], boxes: list[list[int]], with_masks: bool = True) -> Instances:
    rles = [rle.box(shape, *box) for box in boxes] if with_masks else None
    count = len(boxes)
    labels, scores = np.arange(count) % 3, np.linspace(0.9, 0.6, count).astype(np.float32)
    return Instances(np.array(boxes, np.float32).reshape(-1, 4), labels, scores, rles, CLASSES, shape)


def test_objects():
    image = np.random.default_rng(0).integers(0, 256, (700, 800, 3), np.uint8)
    before = image.copy()
    drawn = overlays.picture(image, instances((700, 800), [[100, 100, 300, 200], [400, 300, 600, 600]]))
    assert np.array_equal(image, before)
    assert drawn.shape[1] == 800
    assert 700 < drawn.shape[0] < 760, 'a legend below'
    share = MASK_FILL / 255
    expected = (1 - share) * muted(image)[120:180, 120:280] + share * colours(3)[0]
    assert np.abs(drawn[120:180, 120:280] - expected).max() <= 1
    assert (drawn[150, [100, 299]] == colours(3)[0]).all(), 'the outline'
    assert np.array_equal(drawn[620:700], image[620:700])
    assert (drawn[75:99, 102:160] == colours(3)[0]).all(-1).mean() > 0.4, 'its name above, on its colour'


def test_boxes_alone_and_nothing():
    image = np.full((700, 800, 3), 90, np.uint8)
    drawn = overlays.picture(image, instances((700, 800), [[100, 100, 300, 200]], with_masks=False))
    assert (drawn[100, 100:300] == colours(3)[0]).all()
    assert (drawn[110:190, 110:290] == 90).all()
    assert np.array_equal(overlays.picture(image, instances((700, 800), [])), image), 'no legend either'


def test_names_do_not_cover_each_other():
    """Twenty objects on one spot: each name that is written can be read."""
    image = np.zeros((700, 800, 3), np.uint8)
    crowd = overlays.picture(image, instances((700, 800), [[300, 300, 400, 360]] * 20, with_masks=False))
    alone = overlays.picture(image, instances((700, 800), [[300, 300, 400, 360]], with_masks=False))
    height = overlays._text('x', 13).shape[0]
    assert np.array_equal(crowd[300 - height : 299, 301:399], alone[300 - height : 299, 301:399])


@pytest.mark.parametrize(
    ('shape', 'side'), [((10, 10), 80), ((100, 60), 700), ((640, 64), 640), ((900, 5000), 4000)]
)
def test_pictures_have_a_readable_size(shape: tuple[int, int], side: int):
    found = instances(shape, [[1, 1, min(shape) - 1, min(shape) - 1]])
    drawn = overlays.picture(np.zeros((*shape, 3), np.uint8), found)
    assert side <= max(drawn.shape[:2]) < side + 100
    labels = LabelMap(np.zeros(shape, np.uint8), CLASSES)
    assert overlays.picture(np.zeros((*shape, 3), np.uint8), labels).shape[1] == drawn.shape[1]


def test_a_mask_is_reduced_with_its_image():
    found = instances((8000, 8000), [[2000, 4000, 6000, 7000]])
    drawn = overlays.picture(np.zeros((8000, 8000, 3), np.uint8), found)
    tinted = drawn[:4000].any(-1)
    assert tinted[2010:3490, 1010:2990].all()
    assert not tinted[:1900].any()
    assert not tinted[3510:].any()


def test_a_label_map():
    image = np.full((700, 800, 3), 200, np.uint8)
    labels = np.zeros((700, 800), np.uint8)
    labels[:, 400:] = 2
    labels[600:] = 255
    drawn = overlays.picture(image, LabelMap(labels, ('background', 'a', 'b')))
    ground, share = int(muted(image)[0, 0, 0]), LABEL_FILL / 255
    assert (drawn[:600, :400] == ground).all(), 'the background has no colour'
    assert np.abs(drawn[:590, 410:] - ((1 - share) * ground + share * colours(3)[2])).max() <= 1
    assert (drawn[:600, 400] == colours(3)[2]).all(), 'the outline'
    assert (drawn[600:700] <= 60).all(), 'what has no label is dark'
    legend = drawn[700:]
    assert (legend == colours(3)[2]).all(-1).any()
    assert not (legend == colours(3)[1]).all(-1).any(), 'only classes that occur'


def test_a_legend_of_many_classes():
    names = tuple(f'class number {i}' for i in range(150))
    labels = np.arange(700 * 800).reshape(700, 800) % 150
    drawn = overlays.picture(np.zeros((700, 800, 3), np.uint8), LabelMap(labels.astype(np.uint8), names))
    assert 760 < drawn.shape[0] < 1100
    assert drawn.shape[1] == 800
    fixed = overlays.picture(np.zeros((700, 800, 3), np.uint8), LabelMap(labels.astype(np.uint8), names), [3])
    assert fixed.shape[0] < 750


def test_names_beyond_ascii():
    assert overlays._text('ß', 20).any()
    assert not np.array_equal(overlays._text('Straße', 20), overlays._text('Stra?e', 20))
