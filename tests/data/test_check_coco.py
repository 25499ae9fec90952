"""Checks of COCO files: every kind of fault is found, named by id, and never reaches pycocotools."""

import copy
import gc
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from swin_dense.data import check_annotations, check_coco, coco, coco_file
from swin_dense.data.coco import Split
from swin_dense.data.findings import Finding, errors
from swin_dense.errors import UserError

SQUARE = [4, 4, 14, 4, 14, 14, 4, 14]
HEIGHT, WIDTH = 32, 48


def encoded(mask: np.ndarray) -> dict:
    found = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(found['size']), 'counts': found['counts'].decode()}


def good() -> dict:
    """Three images with two objects each: a polygon, and compressed and plain run lengths."""
    rng = np.random.default_rng(0)
    images = [dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH) for i in (11, 12, 13)]
    noise = rng.random((HEIGHT, WIDTH)) > 0.5
    runs = {'size': [HEIGHT, WIDTH], 'counts': [100, 36, HEIGHT * WIDTH - 136]}
    masks = ([SQUARE], encoded(noise), runs, [SQUARE, SQUARE], encoded(~noise), [SQUARE])
    annotations = [
        dict(id=i, image_id=11 + i % 3, category_id=1 + i % 2, bbox=[4, 4, 10, 10], area=100, iscrowd=0)
        | dict(segmentation=copy.deepcopy(mask))
        for i, mask in enumerate(masks, 101)
    ]
    return dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')]
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in (11, 12, 13):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return tmp_path


def check(root: Path, content: object, text: str | None = None, **options: Any) -> list[Finding]:  # noqa: ANN401
    path = root / 'instances.json'
    path.write_text(json.dumps(content) if text is None else text)
    settings = dict(wanted=None, decode=False) | options
    return check_coco.check_split(Split(path, root), **settings)


def the_error(found: list[Finding]) -> Finding:
    (error,) = errors(found)
    assert error.file.name == 'instances.json'
    return error


def test_nothing_is_found_in_a_good_set(root: Path):
    assert check(root, good()) == []
    assert check(root, good(), decode=True) == []


def change(content: dict, field: str, value: object) -> None:
    """``'annotations.0.bbox'`` or ``'images.0'``."""
    *path, last = (int(part) if part.isdigit() else part for part in field.split('.'))
    for part in path:
        content = content[part]
    content[last] = value


NAN, INF = float('nan'), float('inf')
IMAGE = dict(id=11, file_name='14.png', height=HEIGHT, width=WIDTH)
GARBAGE = 'o' * 50
# what is changed, the new value, the field that the error names, a part of its message, what is listed
ERRORS = {
    'images no list': ('images', 3, 'images', 'the list', ()),
    'annotations no list': ('annotations', {}, 'annotations', 'the list', ()),
    'no images': ('images', [], 'images', 'empty', ()),
    'no categories': ('categories', [], 'categories', 'empty', ()),
    'no annotations': ('annotations', [], 'annotations', '0 usable of 0', ()),
    'an entry that is a number': ('annotations.2', 7, 'annotations', 'no objects', (2,)),
    'an image id that is a list': ('images.1.id', [1], 'images.id', 'no number', (1,)),
    'a category id that is null': (
        'annotations.1.category_id',
        None,
        'annotations.category_id',
        'no number',
        (1,),
    ),
    'two images with one id': ('images.2.id', 11, 'images.id', 'more than one', (11,)),
    'two annotations with one id': ('annotations.3.id', 101, 'annotations.id', 'more than one', (101,)),
    'two categories with one id': ('categories.1.id', 1, 'categories.id', 'more than one', (1,)),
    'two categories with one name': (
        'categories.1.name',
        'cat',
        'categories.name',
        'more than one',
        ('cat',),
    ),
    'a name that is a number': ('categories.1.name', 5, 'categories.name', 'no text', (2,)),
    'an unknown category': ('annotations.1.category_id', 9, 'annotations.category_id', 'no category', (102,)),
    'a width of text': ('images.1.width', '48', 'images.width, height', 'no whole number', (12,)),
    'a width of 0': ('images.1.width', 0, 'images.width, height', 'no whole number', (12,)),
    'another size': ('images.2.width', 50, 'images.width, height', 'not the size of the file', (13,)),
    'file name up': (
        'images.0.file_name',
        '../11.png',
        'images.file_name',
        'below the image',
        ('../11.png',),
    ),
    'file name inside and up': (
        'images.0.file_name',
        'a/../../b.png',
        'images.file_name',
        'below the image',
        None,
    ),
    'file name absolute': ('images.0.file_name', '/etc/11.png', 'images.file_name', 'below the image', None),
    'file name of Windows': ('images.0.file_name', 'C:\\11.png', 'images.file_name', 'below the image', None),
    'file name up in Windows': (
        'images.0.file_name',
        '..\\11.png',
        'images.file_name',
        'below the image',
        None,
    ),
    'file name http': (
        'images.0.file_name',
        'http://a.b/11.png',
        'images.file_name',
        'below the image',
        None,
    ),
    'file name https': (
        'images.0.file_name',
        'https://a.b/11.png',
        'images.file_name',
        'below the image',
        None,
    ),
    'file name empty': ('images.0.file_name', '', 'images.file_name', 'below the image', ('',)),
    'file name null': ('images.0.file_name', None, 'images.file_name', 'no text', (11,)),
    'file name with a NUL': ('images.0.file_name', 'a\0/b.png', 'images.file_name', 'not in', ('a\0/b.png',)),
    'file name too long': ('images.0.file_name', 'a' * 5000, 'images.file_name', 'not in', ('a' * 5000,)),
    'file missing': ('images.2.file_name', '14.png', 'images.file_name', 'not in', ('14.png',)),
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
    """None of them reaches pycocotools: nothing here can hang or end the process."""
    place, value, field, message, examples = ERRORS[what]
    content = good()
    change(content, place, value)
    begin = time.monotonic()
    error = the_error(check(root, content))
    assert time.monotonic() - begin < 5
    assert error.field.endswith(field)
    assert message in error.message
    if examples is not None:
        assert error.examples == examples


def without(content: dict, name: str, key: str) -> dict:
    del content[name][1][key]
    return content


KEYS = [(name, key) for name, keys in coco_file.REQUIRED.items() for key in keys]


@pytest.mark.parametrize(
    ('name', 'key'), [*KEYS, ('annotations', 'iscrowd'), ('annotations', 'segmentation')]
)
def test_each_required_key(root: Path, name: str, key: str):
    error = the_error(check(root, without(good(), name, key)))
    assert error.field.split('.')[0] == name
    assert key in error.line()
    assert error.count == 1


def test_iscrowd_is_read_by_evaluation_alone(root: Path):
    assert check(root, without(good(), 'annotations', 'iscrowd'), scored=False) == []


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


BROKEN = {
    'cut off': (json.dumps(good())[:200], 'line 1 column'),
    'cut off in line 3': ('{\n"images":\n[{"id": 1', 'line 3 column'),
    'two': ('{}{}', 'line 1 column 3'),
    'a BOM': ('\ufeff' + json.dumps(good()), 'byte order mark'),
    'nothing': ('', 'line 1 column 1'),
    'a list': (json.dumps(good()['annotations']), 'the top level is no object but a list'),
    'a number': ('3', 'the top level is no object but a int'),
    'deep': ('[' * 200_000, 'cannot be read as JSON'),
    'digits': ('[' + '9' * 10_000 + ']', 'cannot be read as JSON'),
}


@pytest.mark.parametrize('what', BROKEN)
def test_a_file_that_is_no_coco_json(root: Path, what: str):
    text, message = BROKEN[what]
    assert message in the_error(check(root, None, text)).line()
    with pytest.raises(UserError, match=f'annotations {root}'):
        coco.read(root / 'instances.json')


def test_utf_16_which_pycocotools_does_not_read(root: Path):
    path = root / 'instances.json'
    path.write_bytes(json.dumps(good()).encode('utf-16'))
    error = the_error(check_coco.check_split(Split(path, root), None, False))
    assert 'utf-8' in error.message


def test_a_file_is_parsed_again_when_it_changed(root: Path):
    assert check(root, good()) == []
    content = good()
    content['annotations'] = content['annotations'][:3] * 2
    assert 'more than one' in the_error(check(root, content)).message


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
    columns = coco_file.columns(root / 'instances.json')
    _, kept = check_annotations.check_boxes(Path(), columns, sizes, scored=True)
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


def test_id_0_is_no_match_to_pycocotools(root: Path):
    content = good()
    content['annotations'][2]['id'] = 0
    (found,) = check(root, content)
    assert (found.severity, found.field, found.examples) == ('warning', 'annotations.id', (12,))
    assert 'AP 0' in found.message
    assert check(root, content, scored=False) == []


def test_objects_of_unknown_images_are_dropped(root: Path):
    content = good()
    content['annotations'][2]['image_id'] = 99
    (found,) = check(root, content)
    assert (found.severity, found.field, found.examples) == ('warning', 'annotations.image_id', (103,))


@pytest.mark.parametrize(
    ('name', 'hint'), [('catt', "did you mean 'cat'?"), ('submarine', 'among the 2 categories')]
)
def test_a_class_that_is_missing(root: Path, name: str, hint: str):
    error = the_error(check(root, good(), wanted=('dog', name)))
    assert repr(name) in error.message
    assert hint in error.message


def test_reordered_classes_are_fine(root: Path):
    assert check(root, good(), wanted=('dog', 'cat')) == []


def test_a_part_of_the_classes(root: Path):
    content = good()
    content['annotations'] = [a for a in content['annotations'] if a['category_id'] == 1]
    found = check(root, content, wanted=('cat',))
    assert [(finding.severity, finding.examples) for finding in found] == [('note', ('dog',))]
    found = check(root, content, wanted=('dog',))
    assert '0 usable of 3' in the_error(found).message


def test_notes(root: Path):
    content = good()
    content['categories'].append(dict(id=3, name='zebra'))
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 12]
    found = check(root, content)
    assert [(finding.severity, finding.field, finding.examples) for finding in found] == [
        ('note', 'images', (12,)),
        ('note', 'categories', ('zebra',)),
    ]


def test_instances(root: Path):
    content = good()
    content['annotations'][0]['iscrowd'] = 1
    content['categories'].append(dict(id=3, name='zebra'))
    check(root, content)
    assert check_coco.count_instances(root / 'instances.json') == {'cat': 3, 'dog': 2, 'zebra': 0}


REFERENCES = {
    'whole numbers': ([30, -5, 7], [7, 30, 8, -5, -9, 99], [2, 0, -1, 1, -1, -1]),
    'beyond 64 bits': ([30, 2**70], [2**70, 30, 5], [1, 0, -1]),
    'text': (['b', 'a'], ['a', 'c'], [1, -1]),
    'text for a number': ([1, 2], ['1', 2], [-1, 1]),
    'numbers for text': (['1', 2], [1, 2], [-1, 1]),
    'a float that is whole': ([1, 2], [2.0, 2.5], [1, -1]),
}


@pytest.mark.parametrize(('ids', 'wanted', 'expected'), REFERENCES.values(), ids=list(REFERENCES))
def test_the_images_of_annotations(root: Path, ids: list, wanted: list, expected: list[int]):
    content = good()
    content['images'] = [content['images'][0] | dict(id=name) for name in ids]
    content['annotations'] = [
        content['annotations'][0] | dict(id=i, image_id=name) for i, name in enumerate(wanted, 1)
    ]
    found = {finding.field: finding.examples for finding in check(root, content)}
    lost = tuple(i for i, place in enumerate(expected, 1) if place < 0)
    assert found['annotations.image_id'] == lost[:5]
    used = {place for place in expected if place >= 0}
    unused = tuple(name for i, name in enumerate(ids) if i not in used)
    assert found.get('images', ()) == unused


def test_garbage_is_collected_again(root: Path):
    assert gc.isenabled()
    check(root, good())
    check(root, {}, text='no JSON')
    assert gc.isenabled()


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


BAD_IMAGES = {
    'empty': (lambda path: path.write_bytes(b''), 'empty'),
    'HTML': (lambda path: path.write_text('<!DOCTYPE html><html></html>'), 'HTML'),
    'cut off': (lambda path: path.write_bytes(path.read_bytes()[:-20]), 'cut off'),
    'a folder': (lambda path: (path.unlink(), path.mkdir()), 'cannot be read'),
    'a dangling link': (lambda path: (path.unlink(), path.symlink_to('absent.png')), 'missing'),
}


@pytest.mark.parametrize('what', BAD_IMAGES)
def test_images_that_cannot_be_read(root: Path, what: str):
    spoil, message = BAD_IMAGES[what]
    spoil(root / '12.png')
    (error,) = errors(check(root, good()))
    assert message in error.message
    assert error.examples == ('12.png',)
    assert error.file == root


def test_pixels_are_decoded_on_request(root: Path):
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode('.png', image)[1].tobytes())
    data[1000:1100] = bytes(100)
    (root / '12.png').write_bytes(bytes(data))
    assert check(root, good()) == []
    (error,) = errors(check(root, good(), decode=True))
    assert 'decoded' in error.message
    assert error.examples == ('12.png',)


def turned(root: Path, orientation: int, stored: tuple[int, int]) -> list[Finding]:
    """The first image with an EXIF orientation; the JSON has its displayed height and width."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*stored, 3), np.uint8)).save(root / '11.jpg', exif=exif)
    content = good()
    content['images'][0] |= dict(file_name='11.jpg')
    return check(root, content)


def test_exif_sizes_are_of_what_is_displayed(root: Path):
    assert turned(root, 6, (WIDTH, HEIGHT)) == []  # as OpenCV loads it: test_images.py
    error = the_error(turned(root, 6, (HEIGHT, WIDTH)))
    assert 'EXIF turns the image' in error.message
    assert error.examples == (11,)


def test_exif_turns_that_the_size_does_not_show(root: Path):
    (found,) = turned(root, 3, (HEIGHT, WIDTH))
    assert (found.severity, found.examples) == ('warning', (11,))


def test_the_last_of_1000_images_is_missing(root: Path):
    content = good()
    template = content['images'][0]
    content['images'] = [template | dict(id=i, file_name=f'many/{i}.png') for i in range(11, 1011)]
    (root / 'many').mkdir()
    for image in content['images'][:-1]:
        (root / image['file_name']).hardlink_to(root / '11.png')
    error = the_error(check(root, content))
    assert (error.field, error.examples, error.count) == ('images.file_name', ('many/1010.png',), 1)


def test_a_large_set_is_sampled_evenly(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(check_coco, 'ALWAYS_PROBED', 100)
    monkeypatch.setattr(check_coco, 'PROBE_SECONDS', 0.0)
    entries = [dict(file_name='11.png', number=i) for i in range(1000)]
    probed = check_coco._probe(root, entries, decode=False)
    assert len(probed) == 100
    numbers = [entry['number'] for entry, _ in probed]
    assert np.histogram(numbers, 4, (0, 1000))[0].min() > 10
    content = good()
    content['images'] = [content['images'][0] | dict(id=i) for i in range(11, 1011)]
    notes = [finding.message for finding in check(root, content) if finding.severity == 'note']
    assert any('100 of 1000 images were opened' in note for note in notes)


def test_files_that_two_images_name(root: Path):
    content = good()
    content['images'][1]['file_name'] = '11.png'
    (found,) = check(root, content)
    assert (found.severity, found.examples) == ('warning', ('11.png',))


def masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = rng.integers(1, 90, (count, 2))
    made = [rng.random(tuple(shape)) > rng.random() for shape in shapes]
    return [*made, np.zeros((5, 7), bool), np.ones((700, 900), bool), np.ones((1, 1), bool)]


def test_every_rle_of_pycocotools_is_valid():
    made = masks(200)
    texts = [encoded(mask)['counts'] for mask in made]
    pixels = np.array([mask.size for mask in made])
    assert check_annotations.valid_rle(texts, pixels).all()
    assert not check_annotations.valid_rle(texts, pixels + 1).any()


def plain_runs(text: str) -> list[int] | None:
    """Run lengths by pycocotools' definition, a character after the other; None if the text ends early."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = place = 0
        more = True
        while more:
            if at == len(text):
                return None
            group = ord(text[at]) - 48
            value |= (group & 31) << 5 * place
            more = bool(group & 32)
            at, place = at + 1, place + 1
        if group & 16:
            value -= 1 << 5 * place
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def test_garbage_rle_against_a_plain_reading():
    rng = np.random.default_rng(5)
    texts = [encoded(mask)['counts'] for mask in masks(100)[:100]]
    pixels = np.array([sum(plain_runs(text)) for text in texts])
    spoiled = []
    for text in texts:
        at = int(rng.integers(len(text)))
        spoiled.append(text[:at] + chr(int(rng.integers(48, 112))) + text[at + 1 :])
    expected = [
        (runs := plain_runs(text)) is not None and min(runs) >= 0 and sum(runs) == size
        for text, size in zip(spoiled, pixels, strict=True)
    ]
    assert check_annotations.valid_rle(spoiled, pixels).tolist() == expected
    assert 0 < sum(expected) < 100  # some characters were replaced by themselves, or only moved a border


def test_findings_do_not_depend_on_chunks(root: Path, monkeypatch: pytest.MonkeyPatch):
    content = good()
    for number, place in enumerate(('0.segmentation.0.2', '3.segmentation.1.3')):
        change(content, f'annotations.{place}', (NAN, 1e9)[number])
    change(content, 'annotations.4.segmentation.counts', GARBAGE)
    whole = check(root, copy.deepcopy(content))
    monkeypatch.setattr(check_annotations, 'CHUNK', 1)
    assert check(root, content) == whole
    assert sum(finding.count for finding in whole) == 3


@pytest.mark.parametrize(('name', 'notes'), [('nuclei', 0), ('coco-mini', 3)])
def test_real_sets_pass(shared: Callable[[str], Path], name: str, notes: int):
    """Of coco-mini it is true that classes of the 80, and two images, have no objects."""
    found = []
    for split in ('train', 'val'):
        found += check_coco.check_split(
            coco.find_split(shared(name), split), None, False, True, split == 'val'
        )
    assert [finding.severity for finding in found] == ['note'] * notes
    if name == 'coco-mini':
        assert (58636, 226111) in [finding.examples for finding in found]
