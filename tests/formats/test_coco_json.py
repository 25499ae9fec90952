"""Annotation files that are no JSON, or not COCO's, and the keys of their entries."""

import gc
import json
from pathlib import Path

import pytest

from swin_dense.check import coco_sets
from swin_dense.data import coco
from swin_dense.data.coco import Split
from swin_dense.errors import UserError
from swin_dense.formats import coco_json
from tests.check.coco_sets import check, good, the_error

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
        coco.read_annotations(root / 'instances.json')


def test_utf_16_which_pycocotools_does_not_read(root: Path):
    path = root / 'instances.json'
    path.write_bytes(json.dumps(good()).encode('utf-16'))
    error = the_error(coco_sets.check_split(Split(path, root), None, False))
    assert 'utf-8' in error.message


def test_a_file_is_parsed_again_when_it_changed(root: Path):
    assert check(root, good()) == []
    content = good()
    content['annotations'] = content['annotations'][:3] * 2
    assert 'more than one' in the_error(check(root, content)).message


def without(content: dict, name: str, key: str) -> dict:
    del content[name][1][key]
    return content


KEYS = [(name, key) for name, keys in coco_json.REQUIRED.items() for key in keys]


@pytest.mark.parametrize(
    ('name', 'key'), [*KEYS, ('annotations', 'iscrowd'), ('annotations', 'segmentation')]
)
def test_each_required_key(root: Path, name: str, key: str):
    error = the_error(check(root, without(good(), name, key)))
    assert error.field.split('.')[0] == name
    assert key in error.line()
    assert error.count == 1


@pytest.mark.parametrize('stranger', [7, None, 'id', ['id'], 2.5])
def test_an_entry_that_is_no_object_behind_one_that_lacks_a_key(root: Path, stranger: object):
    content = without(good(), 'annotations', 'image_id')
    content['annotations'][2] = stranger
    error = the_error(check(root, content))
    assert (error.field, error.examples, error.count) == ('annotations', (2,), 1)
    assert 'no objects' in error.message


def test_garbage_is_collected_again(root: Path):
    assert gc.isenabled()
    check(root, good())
    check(root, {}, text='no JSON')
    assert gc.isenabled()
