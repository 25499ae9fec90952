"""Result files: what is read, what is refused, and in which words."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from swin_dense.errors import NotFiniteError, UserError
from swin_dense.evaluate import coco
from swin_dense.formats import coco_results
from swin_dense.formats import rle as formats_rle
from tests.evaluate import scenes

BOX = dict(image_id=1, category_id=1, score=0.5, bbox=[1, 2, 3, 4])
RLE = scenes.encode(1, 2, 30, 40)
MASK = dict(image_id=1, category_id=1, score=0.5, segmentation=RLE)


def without(entry: dict, field: str) -> dict:
    return {key: value for key, value in entry.items() if key != field}


REFUSED = {
    'no JSON': ('{', 'cannot be read as JSON'),
    'a dict': ({'annotations': []}, 'not a list of COCO results'),
    'numbers': ([1, 2], 'not a list of COCO results'),
    'a number later': ([BOX, 2], 'not a list of COCO results'),
    'neither boxes nor masks': ([without(BOX, 'bbox')], "neither 'bbox' nor 'segmentation'"),
    'a missing score': ([BOX, without(BOX, 'score')], "entry 1: no 'score', or no valid one"),
    'a score that is text': ([BOX | dict(score='high')], "entry 0: no 'score', or no valid one"),
    'a missing category': ([without(BOX, 'category_id')], "entry 0: no 'category_id', or no valid one"),
    'an unknown category': (
        [BOX | dict(category_id=99)],
        'entry 0: category_id 99 is not in the annotations',
    ),
    'another image': ([BOX | dict(image_id=99)], 'entry 0: image_id 99 is not in the annotations'),
    'a list for an image': ([BOX | dict(image_id=[1])], 'entry 0: image_id [1] is not in the annotations'),
    'three numbers': ([BOX | dict(bbox=[1, 2, 3])], 'x, y, width, height are needed'),
    'a polygon': (
        [MASK | dict(segmentation=[[1, 2, 3, 4, 5, 6]])],
        "entry 0: no 'segmentation', or no valid one",
    ),
    'RLE of another size': (
        [MASK | dict(segmentation=RLE | dict(size=[99, 9]))],
        "no RLE of the image's size",
    ),
    'huge RLE': ([MASK | dict(segmentation=RLE | dict(size=[200000, 200000]))], "no RLE of the image's size"),
    'a RLE that is no RLE for C': (
        [MASK | dict(segmentation=RLE | dict(size=[10**400, 1]))],
        "no RLE of the image's size",
    ),
    'sides that are true': (
        [MASK | dict(segmentation=RLE | dict(size=[True, True]))],
        "no RLE of the image's",
    ),
    'a score of 400 digits': (
        [BOX, BOX | dict(score=10**399)],
        "entry 1: 'score' is an integer of 400",
    ),
    'a box of 400 digits': (
        [BOX | dict(bbox=[1, 2, 3, 10**399])],
        "entry 0: 'bbox' is an integer of 400",
    ),
    'a category of 400 digits': ([BOX | dict(category_id=10**399)], 'entry 0: category_id 10000000'),
    'an image of 400 digits': ([BOX | dict(image_id=-(10**399))], 'entry 0: image_id -1000000'),
    'more digits than Python reads': ('[{"score": ' + '9' * 5000 + '}]', 'cannot be read as JSON'),
    'a box of astronomical size': ([BOX | dict(bbox=[0, 0, 1e300, 1e300])], 'no image is that large'),
    'a box of truths': ([BOX | dict(bbox=[True, 2, 3, 4])], 'x, y, width, height are needed'),
    'an image that is true': (
        [BOX | dict(image_id=True)],
        'entry 0: image_id True is not in',
    ),
    'a lone surrogate': ([BOX | dict(image_id='\ud800')], r"entry 0: image_id '\ud800' is not in"),
    'deep nesting': ('[' * 10**5, 'cannot be read as JSON'),
    'nesting in an image': (
        '[{"category_id": 1, "score": 1, "bbox": [1, 2, 3, 4], "image_id": ' + '[' * 900 + ']' * 900 + '}]',
        'entry 0: image_id [[[[[',
    ),
    'nesting in a mask': (
        '[{"category_id": 1, "score": 1, "image_id": 1, "segmentation": {"size": '
        + '[' * 900
        + ']' * 900
        + '}}]',
        "entry 0: 'segmentation' is no RLE",
    ),
    'garbage RLE': ([MASK | dict(segmentation=RLE | dict(counts='garbage'))], "no RLE of the image's size"),
}
NOT_FINITE = {
    'NaN score': (BOX | dict(score=float('nan')), 'score is nan'),
    'a huge exponent': (BOX | dict(score=float('1e999')), 'score is inf'),
    'infinite score': (MASK | dict(score=float('inf')), 'score is inf'),
    'NaN box': (BOX | dict(bbox=[float('nan'), 2, 3, 4]), 'bbox is [nan, 2, 3, 4]'),
    'infinite box': (BOX | dict(bbox=[1, 2, float('inf'), 4]), 'bbox is [1, 2, inf, 4]'),
}


def read(folder: Path, content: object) -> dict[str, list[dict]]:
    truth, _ = scenes.write(folder)
    path = folder / 'wrong.json'
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return coco_results.read_results(path, coco.load_truth(truth))


@pytest.mark.parametrize('what', REFUSED)
def test_what_is_refused(tmp_path: Path, what: str):
    content, expected = REFUSED[what]
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert caught.value.status == 2
    assert f'predictions {tmp_path / "wrong.json"}: ' in str(caught.value).replace(' cannot', ': cannot')
    assert expected in str(caught.value)


@pytest.mark.parametrize('what', NOT_FINITE)
def test_nothing_is_computed_from_nan(tmp_path: Path, what: str):
    entry, expected = NOT_FINITE[what]
    kind = 'bbox' if 'bbox' in entry else 'segmentation'
    fine = BOX if kind == 'bbox' else MASK
    with pytest.raises(NotFiniteError) as caught:
        read(tmp_path, [fine, entry])
    assert caught.value.status == 4
    assert f'entry 1 (image_id 1): {expected}: no AP' in str(caught.value)


def test_other_fields_are_left_out(tmp_path: Path):
    """Of a first entry with a caption, pycocotools would take all for captions."""
    truth = coco.load_truth(scenes.write(tmp_path)[0])
    (tmp_path / 'wrong.json').write_text(json.dumps([BOX | dict(caption='a cat', area='x', id=[1]), BOX]))
    found = coco_results.read_results(tmp_path / 'wrong.json', truth)
    assert found == {'bbox': [BOX, BOX]}
    assert len(coco_results.as_coco(truth, found['bbox']).anns) == 2


def test_what_is_no_file_is_not_waited_for(tmp_path: Path):
    truth = coco.load_truth(scenes.write(tmp_path)[0])
    os.mkfifo(tmp_path / 'pipe.json')
    for path in (tmp_path / 'pipe.json', Path('/dev/zero')):
        with pytest.raises(UserError, match=f'predictions {path}: no regular file'):
            coco_results.read_results(path, truth)


def covers(mask: dict, image: dict) -> bool:
    """Whether compressed RLE covers exactly its image."""
    if not formats_rle.states_size(mask, image):
        return False
    (fine,) = formats_rle.sum_up([mask['counts']], np.array([mask['size'][0] * mask['size'][1]]))
    return bool(fine)


def test_counts_whose_sum_overflows_are_no_rle():
    """Four numbers of 2^62 wrap to 0 in 64 bits; of a mask without a size in the annotations."""
    huge = [((1 << 54) >> 5 * i & 31) | 32 for i in range(10)] + [(1 << 54) >> 50 & 31]
    number = ''.join(chr(48 + code) for code in huge)
    for repeats in (4, 1024, 2048):
        assert not covers(dict(size=[1, 1], counts=number * repeats + '1'), {})


def test_a_missing_file(tmp_path: Path):
    truth, _ = scenes.write(tmp_path)
    with pytest.raises(UserError, match='cannot be read'):
        coco_results.read_results(tmp_path / 'absent.json', coco.load_truth(truth))


def test_a_mask_is_not_given_its_boxs_area(tmp_path: Path):
    both = read(tmp_path, [BOX | MASK])
    assert both == {'bbox': [BOX], 'segm': [MASK]}


def test_the_files_of_a_run(tmp_path: Path):
    """Each kind from its own file: their scores may differ."""
    truth = coco.load_truth(scenes.write(tmp_path)[0])
    (tmp_path / 'predictions.bbox.json').write_text(json.dumps([BOX]))
    assert coco_results.read_results(tmp_path, truth) == {'bbox': [BOX]}
    (tmp_path / 'predictions.segm.json').write_text(json.dumps([BOX | MASK | dict(score=0.25)]))
    assert coco_results.read_results(tmp_path, truth) == {'bbox': [BOX], 'segm': [MASK | dict(score=0.25)]}
    (tmp_path / 'predictions.segm.json').write_text('[]')
    assert coco_results.read_results(tmp_path, truth) == {'bbox': [BOX], 'segm': []}


def test_rle_is_sound_where_pycocotools_decodes_it():
    rng = np.random.default_rng(0)
    for density in (0, 0.01, 0.5, 1):
        for height, width in ((1, 1), (3, 400), (97, 61)):
            mask = np.asfortranarray(rng.random((height, width)) < density, np.uint8)
            encoded = rle.encode(mask)
            entry = {'size': encoded['size'], 'counts': encoded['counts'].decode()}
            image = dict(height=height, width=width)
            assert covers(entry, image)
            assert covers(entry, {})
            assert not covers(entry, dict(height=height + 1, width=width))
            assert not covers(entry | dict(size=[height, width + 1]), {})
            assert not covers(entry | dict(counts=entry['counts'][:-1]), {})
            assert not covers(entry | dict(counts=entry['counts'] + 'o'), {})


@pytest.mark.parametrize('counts', ['', 'ooooo', '\x00', 'é', 'O' * 40 + '0', '0' * 9, 5, None, [1, 2]])
def test_garbage_is_no_rle(counts: object):
    assert not covers(dict(size=[10, 10], counts=counts), {})
