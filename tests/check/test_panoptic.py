"""Faults of a COCO-panoptic data set: each is one finding that names the file, the field and the image."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from swin_dense.check.data_sets import check_folder
from swin_dense.check.panoptic_sets import count_segments
from swin_dense.console.findings import Finding, errors
from swin_dense.demo import shapes
from swin_dense.formats.panoptic_pngs import colours_of, ids_of, read_ids

JSON, PNGS = 'annotations/panoptic_train2017.json', 'annotations/panoptic_train2017'


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('scenes')
    shapes.write(root, train=2, val=1)
    return root / 'panoptic'


@pytest.fixture
def root(scenes: Path, tmp_path: Path) -> Path:
    """The scenes, to be changed."""
    for file in scenes.rglob('*.*'):
        target = tmp_path / file.relative_to(scenes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path


def the_error(root: Path, decode: bool = False) -> Finding:
    found = errors(check_folder(root, decode))
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize('decode', [False, True])
def test_shapes_have_no_faults(scenes: Path, decode: bool):
    assert [f for f in check_folder(scenes, decode) if f.severity != 'note'] == []


def test_segments_of_each_class(scenes: Path):
    content = json.loads((scenes / JSON).read_text())
    segments = [s for a in content['annotations'] for s in a['segments_info'] if not s['iscrowd']]
    counts = count_segments(scenes / JSON)
    assert sum(counts.values()) == len(segments)
    assert list(counts) == [*shapes.CLASSES, 'background']
    assert counts['background'] == 2


def test_ids_of_every_colour():
    ids = np.random.default_rng(0).integers(0, 2**24, (50, 40))
    assert (ids_of(colours_of(ids)) == ids).all()
    assert colours_of(np.array([[1 + 2 * 256 + 3 * 65536]])).tolist() == [[[1, 2, 3]]], "COCO's formula"


Change = Callable[[dict], object]
FAULTS: dict[str, tuple[Change, str]] = {
    'no categories': (lambda c: c.pop('categories'), "the list 'categories' is missing"),
    'no isthing': (lambda c: c['categories'][0].pop('isthing'), "the field 'isthing' is missing"),
    'isthing is text': (lambda c: c['categories'][0].update(isthing='yes'), 'neither 0 (stuff) nor 1'),
    'the same name twice': (lambda c: c['categories'][0].update(name='ring'), 'more than one category'),
    'an id twice': (lambda c: c['images'][1].update(id=1), 'ids that more than one entry has'),
    'no annotation': (lambda c: c['annotations'].pop(), 'images without an annotation'),
    'no image': (lambda c: c['annotations'][0].update(image_id=77), 'no image has it'),
    'a path that leaves': (lambda c: c['annotations'][0].update(file_name='../a.png'), 'not a path below'),
    'no list': (lambda c: c['annotations'][0].update(segments_info={}), 'no list'),
    'an unknown class': (lambda c: segment(c).update(category_id=99), 'category_id of a segment'),
    'an id of 0': (lambda c: segment(c).update(id=0), 'no whole number from 1 to 16777215'),
    'an id too large': (lambda c: segment(c).update(id=2**24), 'no whole number from 1 to 16777215'),
    'overlapping segments': (lambda c: segments(c).append(segment(c)), 'the same id: they would overlap'),
    'no box': (lambda c: segment(c).pop('bbox'), "lacks the field 'bbox'"),
    'half a box': (lambda c: segment(c).update(bbox=[1, 2]), 'not four numbers'),
    'no area': (lambda c: segment(c).update(area='large'), 'area of a segment is no number'),
    'iscrowd 2': (lambda c: segment(c).update(iscrowd=2), 'iscrowd of a segment'),
    'a colour without a segment': (
        lambda c: segments(c).pop(0),
        'whose id R + 256 G + 65536 B no segment has',
    ),
    'a segment without pixels': (
        lambda c: segments(c).append({**segment(c), 'id': 4000}),
        'without a pixel',
    ),
    'another size': (lambda c: c['images'][0].update(width=100), 'not the size of the file'),
    'a PNG that is not there': (lambda c: c['annotations'][0].update(file_name='none.png'), 'none.png'),
}


def segments(content: dict) -> list:
    return content['annotations'][0]['segments_info']


def segment(content: dict) -> dict:
    return segments(content)[0]


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_of_the_json(root: Path, fault: str):
    change, message = FAULTS[fault]
    content = json.loads((root / JSON).read_text())
    before = copy.deepcopy(content)
    change(content)
    assert content != before
    (root / JSON).write_text(json.dumps(content))
    lines = [finding.line() for finding in errors(check_folder(root, False))]
    assert lines
    assert message in lines[0]
    assert 'panoptic_train2017' in lines[0]


def test_an_area_that_differs_is_a_warning(root: Path):
    content = json.loads((root / JSON).read_text())
    segment(content)['area'] += 5
    (root / JSON).write_text(json.dumps(content))
    found = [finding for finding in check_folder(root, False) if finding.severity == 'warning']
    assert [(finding.field, finding.examples) for finding in found] == [
        ('segments_info.area', ('000001.png',))
    ]


def test_a_box_that_differs_is_a_warning(root: Path):
    content = json.loads((root / JSON).read_text())
    segment(content)['bbox'][2] += 9
    (root / JSON).write_text(json.dumps(content))
    found = [finding for finding in check_folder(root, False) if finding.severity == 'warning']
    assert [finding.field for finding in found] == ['segments_info.bbox']


def test_a_png_of_the_wrong_size(root: Path):
    path = root / PNGS / '000001.png'
    cv2.imwrite(str(path), cv2.imread(str(path))[:-8])
    assert 'not the size of the file' in the_error(root).message
    assert '000001.png' in the_error(root).message


def test_a_gray_png(root: Path):
    path = root / PNGS / '000001.png'
    cv2.imwrite(str(path), read_ids(path).astype(np.uint8))
    error = the_error(root)
    assert error.examples == ('000001.png',)
    assert error.message.startswith('no panoptic PNG, which has three channels of 8 bits')


def test_a_missing_folder_of_pngs(root: Path):
    (root / PNGS).rename(root / 'elsewhere')
    assert 'the folder of their PNGs' in the_error(root).message


def test_a_truncated_png(root: Path):
    path = root / PNGS / '000001.png'
    path.write_bytes(path.read_bytes()[:-200])
    assert '000001.png' in the_error(root).examples
