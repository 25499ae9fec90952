"""Checks of COCO files: every kind of fault is found, named by id, and never reaches pycocotools."""

from collections.abc import Callable
from pathlib import Path

import pytest

from swin_dense.check import coco_sets
from swin_dense.data import coco
from tests.check.coco_sets import assert_one_error, check, good, the_error


def test_nothing_is_found_in_a_good_set(root: Path):
    assert check(root, good()) == []
    assert check(root, good(), decode=True) == []


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
}


@pytest.mark.parametrize('what', ERRORS)
def test_errors(root: Path, what: str):
    assert_one_error(root, *ERRORS[what])


def test_iscrowd_is_read_by_evaluation_alone(root: Path):
    content = good()
    del content['annotations'][1]['iscrowd']
    assert check(root, content, scored=False) == []


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
    assert coco_sets.count_instances(root / 'instances.json') == {'cat': 3, 'dog': 2, 'zebra': 0}


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


@pytest.mark.parametrize(('name', 'notes'), [('nuclei', 0), ('coco-mini', 3)])
def test_real_sets_pass(shared: Callable[[str], Path], name: str, notes: int):
    """Of coco-mini it is true that classes of the 80, and two images, have no objects."""
    found = []
    for split in ('train', 'val'):
        found += coco_sets.check_split(
            coco.find_split(shared(name), split), None, False, True, split == 'val'
        )
    assert [finding.severity for finding in found] == ['note'] * notes
    if name == 'coco-mini':
        assert (58636, 226111) in [finding.examples for finding in found]
