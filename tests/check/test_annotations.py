"""Checks of boxes, polygons and RLE: every fault is found, named by id, and never reaches pycocotools."""

import copy
from pathlib import Path

import numpy as np
import pytest

from swin_dense.check import annotations
from swin_dense.formats import coco_json
from tests.check.coco_sets import (
    GARBAGE,
    HEIGHT,
    INF,
    NAN,
    SQUARE,
    WIDTH,
    assert_one_error,
    change,
    check,
    good,
    the_error,
)

# what is changed, the new value, the field that the error names, a part of its message, what is listed
ERRORS = {
    'box of five numbers': (
        'annotations.1.bbox',
        [1, 2, 3, 4, 5],
        'annotations.bbox',
        'not four numbers',
        (102,),
    ),
    'box of three numbers': ('annotations.1.bbox', [1, 2, 3], 'annotations.bbox', 'not four numbers', (102,)),
    'box of text': (
        'annotations.1.bbox',
        ['1', '2', '3', '4'],
        'annotations.bbox',
        'not four numbers',
        (102,),
    ),
    'box with null': ('annotations.1.bbox', [1, 2, 3, None], 'annotations.bbox', 'not four numbers', (102,)),
    'box that is null': ('annotations.1.bbox', None, 'annotations.bbox', 'not four numbers', (102,)),
    'box of a vast number': (
        'annotations.1.bbox',
        [1, 2, 3, 10**400],
        'annotations.bbox',
        'not four numbers',
        (102,),
    ),
    'box with NaN': ('annotations.1.bbox', [1, 2, NAN, 4], 'annotations.bbox', 'NaN', (102,)),
    'infinite box': ('annotations.1.bbox', [1, 2, INF, 4], 'annotations.bbox', 'infinite', (102,)),
    'area of text': ('annotations.1.area', '100', 'annotations.area', 'no number', (102,)),
    'crowd of text': ('annotations.1.iscrowd', '0', 'annotations.iscrowd', 'neither 0 nor 1', (102,)),
    'polygon with NaN': ('annotations.0.segmentation', [[NAN, *SQUARE[1:]]], 'segmentation', 'NaN', (101,)),
    'infinite polygon': (
        'annotations.0.segmentation',
        [[INF, *SQUARE[1:]]],
        'segmentation',
        'infinite',
        (101,),
    ),
    'polygon with 1e9': (
        'annotations.0.segmentation',
        [[*SQUARE[1:], 1e9]],
        'segmentation',
        'beyond',
        (101,),
    ),
    'polygon with -1e9': (
        'annotations.0.segmentation',
        [[*SQUARE[1:], -1e9]],
        'segmentation',
        'beyond',
        (101,),
    ),
    'polygon with 1e400': (
        'annotations.0.segmentation',
        [[*SQUARE[1:], 10**400]],
        'segmentation',
        'not a list',
        (101,),
    ),
    'NaN in the second part': ('annotations.3.segmentation.1.3', NAN, 'segmentation', 'NaN', (104,)),
    'polygon of two points': (
        'annotations.0.segmentation',
        [SQUARE[:4]],
        'segmentation',
        'three points',
        (101,),
    ),
    'polygon of one point': (
        'annotations.0.segmentation',
        [SQUARE[:2]],
        'segmentation',
        'three points',
        (101,),
    ),
    'polygon of half a point': (
        'annotations.0.segmentation',
        [SQUARE[:7]],
        'segmentation',
        'half a point',
        (101,),
    ),
    'polygon of nothing': ('annotations.0.segmentation', [[]], 'segmentation', 'three points', (101,)),
    'polygon of text': (
        'annotations.0.segmentation',
        [list('12345678')],
        'segmentation',
        'not a list',
        (101,),
    ),
    'polygon not in a list': ('annotations.0.segmentation', SQUARE, 'segmentation', 'not a list', (101,)),
    'polygon of pairs': ('annotations.0.segmentation', [[[4, 4]] * 6], 'segmentation', 'not a list', (101,)),
    'no polygons': ('annotations.0.segmentation', [], 'segmentation', 'neither', (101,)),
    'a mask that is null': ('annotations.0.segmentation', None, 'segmentation', 'neither', (101,)),
    'a mask of text': ('annotations.0.segmentation', 'abc', 'segmentation', 'neither', (101,)),
    'RLE of garbage': ('annotations.1.segmentation.counts', GARBAGE, 'segmentation', 'garbage', (102,)),
    'RLE that goes on': ('annotations.1.segmentation.counts', '1P', 'segmentation', 'garbage', (102,)),
    'RLE of other characters': (
        'annotations.1.segmentation.counts',
        '1 2\x7f',
        'segmentation',
        'garbage',
        (102,),
    ),
    'RLE not ASCII': ('annotations.1.segmentation.counts', 'é12', 'segmentation', 'compressed text', (102,)),
    'RLE empty': ('annotations.1.segmentation.counts', '', 'segmentation', 'compressed text', (102,)),
    'RLE null': ('annotations.1.segmentation.counts', None, 'segmentation', 'compressed text', (102,)),
    'RLE without counts': (
        'annotations.1.segmentation',
        {'size': [32, 48]},
        'segmentation',
        'compressed',
        (102,),
    ),
    'RLE of 200000^2': ('annotations.1.segmentation.size', [200000] * 2, 'segmentation', 'more than', (102,)),
    'RLE of another size': (
        'annotations.1.segmentation.size',
        [48, 32],
        'segmentation',
        "the image's",
        (102,),
    ),
    'RLE with a size of text': (
        'annotations.1.segmentation.size',
        '32',
        'segmentation',
        'not [height',
        (102,),
    ),
    'runs too long': ('annotations.2.segmentation.counts.0', 101, 'segmentation', 'sum up', (103,)),
    'runs negative': ('annotations.2.segmentation.counts', [-1, 1537], 'segmentation', 'sum up', (103,)),
    'runs vast': ('annotations.2.segmentation.counts', [10**30], 'segmentation', 'sum up', (103,)),
    'runs of text': ('annotations.2.segmentation.counts.0', '100', 'segmentation', 'sum up', (103,)),
}


@pytest.mark.parametrize('what', ERRORS)
def test_errors(root: Path, what: str):
    assert_one_error(root, *ERRORS[what])


# boxes that mmdet drops, or clips
DROPPED = {
    'zero': ([4, 4, 0, 10], 'below one pixel'),
    'negative': ([4, 4, 10, -3], 'below one pixel'),
    'outside to the right': ([WIDTH + 1, 4, 10, 10], 'wholly outside'),
    'outside above': ([4, -20, 10, 10], 'wholly outside'),
    'partly outside': ([40, 4, 12, 10], 'reaches outside'),
}


@pytest.mark.parametrize('what', DROPPED)
def test_dropped_boxes_are_counted(root: Path, what: str):
    content = good()
    box, message = DROPPED[what]
    for number in (1, 3):
        content['annotations'][number]['bbox'] = box
    (found,) = check(root, content)
    assert (found.severity, found.examples, found.count) == ('warning', (102, 104), 2)
    assert message in found.message


@pytest.mark.parametrize('what', [*list(DROPPED)[:4], 'NaN', 'area'])
def test_all_dropped(root: Path, what: str):
    content = good()
    for annotation in content['annotations']:
        if what == 'area':
            annotation['area'] = 0
        else:
            annotation['bbox'] = [4, NAN, 4, 4] if what == 'NaN' else DROPPED[what][0]
    error = the_error(check(root, content, scored=False))
    assert '0 usable of 6' in error.message


def test_nan_is_dropped_in_training_and_wrong_in_evaluation(root: Path):
    content = good()
    content['annotations'][0]['bbox'] = [4, 4, NAN, 4]
    (found,) = check(root, content, scored=False)
    assert (found.severity, found.examples) == ('warning', (101,))
    assert the_error(check(root, content)).examples == (101,)


def test_what_training_keeps_is_what_mmdet_keeps(root: Path):
    """Against mmdet's own parsing of the same file."""
    from mmdet.datasets import CocoDataset

    rng = np.random.default_rng(3)
    content = good()
    template = content['annotations'][0]
    boxes = rng.uniform(-20, 60, (300, 4)).round(1).tolist()
    boxes += [[4, 4, NAN, 4], [NAN, 4, 4, 4], [4, 4, 0.9, 9], [4, 4, 1, 1], [47, 4, 1, 1], [48, 4, 1, 1]]
    content['annotations'] = [
        template | dict(id=i, bbox=box, area=float(rng.integers(-1, 4)), image_id=11)
        for i, box in enumerate(boxes, 1)
    ]
    check(root, content)
    data = CocoDataset(
        ann_file=str(root / 'instances.json'),
        data_prefix=dict(img=''),
        metainfo=dict(classes=('cat', 'dog')),
        pipeline=[],
    )
    expected = sum(len(data.get_data_info(i)['instances']) for i in range(len(data)))
    sizes = np.tile([float(WIDTH), float(HEIGHT)], (len(boxes), 1))
    columns = coco_json.columns(root / 'instances.json')
    _, kept = annotations.check_boxes(Path(), columns, sizes, scored=True)
    assert 0 < expected < len(boxes)
    assert kept.sum() == expected


def test_shares_of_the_image_in_place_of_pixels(root: Path):
    content = good()
    for annotation in content['annotations']:
        annotation['bbox'] = [0.1, 0.1, 0.5, 0.5]
    found = check(root, content)
    assert any('shares of the image' in finding.message for finding in found)


def test_corners_in_place_of_sides(root: Path):
    content = good()
    for annotation in content['annotations']:
        annotation['bbox'] = [20, 20, 40, 30]
    (found,) = check(root, content)
    assert 'look like [x1, y1, x2, y2]' in found.message
    assert found.count == 6


def test_boxes_alone_need_no_masks(root: Path):
    content = good()
    for annotation in content['annotations']:
        del annotation['segmentation']
    assert check(root, content) == []
    assert the_error(check(root, content, masks=True)).count == 6


def test_bad_masks_do_not_stop_a_model_without_masks(root: Path):
    content = good()
    change(content, 'annotations.0.segmentation', [[NAN, *SQUARE[1:]]])
    (found,) = check(root, content, masks=False)
    assert (found.severity, found.examples) == ('warning', (101,))


def test_a_small_part_is_left_out(root: Path):
    content = good()
    content['annotations'][0]['segmentation'] = [SQUARE, SQUARE[:4]]
    (found,) = check(root, content)
    assert (found.severity, found.examples) == ('warning', (101,))
    content['annotations'][0]['segmentation'] = [SQUARE[:4], SQUARE]  # pycocotools goes by the first
    assert the_error(check(root, content)).examples == (101,)


def test_polygons_that_reach_outside(root: Path):
    content = good()
    content['annotations'][0]['segmentation'] = [[*SQUARE, 60, 3]]
    (found,) = check(root, content)
    assert (found.severity, found.examples) == ('warning', (101,))
    content['annotations'][0]['segmentation'] = [[*SQUARE, WIDTH + 0.5, 3]]
    assert check(root, content) == []


def test_a_far_point_inside_of_the_size_that_the_file_states(root: Path):
    content = good()
    content['images'][2]['width'] = 2 * 10**9  # of annotation 0
    content['annotations'][0]['segmentation'] = [[4, 4, 1e9, 4, 14, 14]]
    (found,) = [finding for finding in check(root, content) if 'ends the process' in finding.message]
    assert (found.severity, found.field, found.count) == ('error', 'annotations.segmentation', 1)


def test_findings_do_not_depend_on_chunks(root: Path, monkeypatch: pytest.MonkeyPatch):
    content = good()
    for number, place in enumerate(('0.segmentation.0.2', '3.segmentation.1.3')):
        change(content, f'annotations.{place}', (NAN, 1e9)[number])
    change(content, 'annotations.4.segmentation.counts', GARBAGE)
    whole = check(root, copy.deepcopy(content))
    monkeypatch.setattr(annotations, 'CHUNK', 1)
    assert check(root, content) == whole
    assert sum(finding.count for finding in whole) == 3
