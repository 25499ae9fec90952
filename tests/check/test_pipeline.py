"""Filters that leave no image, resizes that leave no pixel: mmdet and mmcv are asked; and links."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import TRANSFORMS
from mmdet.datasets import CocoDataset

from swin_dense.check.ade20k_sets import check_split
from swin_dense.check.links import check_links, common_root
from swin_dense.check.pipeline import check_filter, check_sizes, scales
from swin_dense.console.findings import Finding, errors
from tests.check.ade20k_sets import DataSet
from tests.check.coco_sets import check, good

FILTERS = {
    'nothing': ({}, True),
    'small enough': (dict(min_size=32), True),
    'all too small': (dict(min_size=33), False),
    'objects': (dict(filter_empty_gt=True, min_size=1), True),
}


@pytest.mark.parametrize('what', FILTERS)
def test_filters(root: Path, what: str):
    """The host fails on an empty data set with a message about arrays."""
    rule, some = FILTERS[what]
    content = good()
    assert not errors(check(root, content))
    path = root / 'instances.json'
    leaf = dict(filter_cfg=rule, metainfo=dict(classes=('cat', 'dog')))
    found = check_filter(leaf, path, content)
    arguments = dict(ann_file=str(path), data_prefix=dict(img=str(root)), pipeline=[])
    if some:
        assert found == []
        assert len(CocoDataset(**leaf, **arguments)) == 3
        return
    with pytest.raises(ValueError, match='need at least one array to concatenate'):
        CocoDataset(**leaf, **arguments)
    (error,) = errors(found)
    assert f'filter_cfg.min_size={rule["min_size"]} drops all of the 3 images' in error.message
    assert 'largest shorter side is 32' in error.message
    assert check_filter({**leaf, 'test_mode': True}, path, content) == []


def test_size_and_objects_together_may_leave_none(root: Path):
    content = good()
    content['images'].append(dict(id=14, file_name='14.png', width=900, height=900))
    leaf = dict(filter_cfg=dict(filter_empty_gt=True, min_size=100))
    (error,) = check_filter(leaf, root / 'a.json', content)
    assert 'filter_empty_gt=True and min_size=100 drop all of the 4 images' in error.message
    leaf['filter_cfg']['filter_empty_gt'] = False
    assert check_filter(leaf, root / 'a.json', content) == []


def step(kind: str, **arguments: object) -> dict:
    return dict(type=kind, keep_ratio=True, **arguments)


PIPELINES = {
    'one scale': (step('Resize', scale=(512, 128)), [(512, 128)]),
    'with a namespace': (step('mmseg.Resize', scale=(512, 128)), [(512, 128)]),
    'a ratio': (step('RandomResize', scale=(512, 128), ratio_range=(0.5, 2.0)), [(256, 64)]),
    'two scales': (step('RandomResize', scale=[(1333, 640), (1000, 800)]), [(1000, 640)]),
    'a choice': (step('RandomChoiceResize', scales=[(1333, 640), (400, 800)]), [(1333, 640), (400, 800)]),
    'both sides': (dict(type='Resize', scale=(512, 128)), []),
    'a factor': (step('Resize', scale_factor=0.5), []),
    'another first': (dict(type='RandomCrop', crop_size=(8, 8)), []),
    'none': (dict(type='PackSegInputs'), []),
}


@pytest.mark.parametrize('what', PIPELINES)
def test_the_first_resize(what: str):
    first, expected = PIPELINES[what]
    load = [dict(type='LoadImageFromFile'), dict(type='swin_dense.LoadImage'), dict(type='LoadAnnotations')]
    assert scales([*load, first, step('Resize', scale=(4, 4))]) == expected
    assert scales([]) == scales(None) == []


@pytest.mark.parametrize('scale', [(512, 128), (128, 512), (64, 64)])
@pytest.mark.parametrize('size', [(4000, 2), (2, 4000), (1, 1), (4000, 1), (511, 1), (2, 1025), (2, 1023)])
def test_images_too_thin_are_those_that_mmcv_cannot_resize(scale: tuple[int, int], size: tuple[int, int]):
    width, height = size
    resize = TRANSFORMS.build(dict(type='Resize', scale=scale, keep_ratio=True))
    try:
        resize(dict(img=np.zeros((height, width, 3), np.uint8)))
        fits = True
    except Exception:  # cv2.error
        fits = False
    found = check_sizes(Path('images'), ['a.jpg', 'b.jpg'], [(100, 100), size], [(2000, 2000), scale])
    assert (found == []) == fits
    for finding in found:
        assert f'b.jpg is {width} x {height}: the resize to {scale[0]} x {scale[1]}' in finding.message
        assert finding.samples


def test_a_thin_image_in_segmentation(data: DataSet):
    data.add('thin', np.ones((2, 4000), np.uint8))
    cv2.imwrite(str(data.images / 'thin.jpg'), np.zeros((2, 4000, 3), np.uint8))
    arguments = (data.images, data.labels, '.jpg', '.png', ('road', 'house', 'tree'), True, False)
    assert errors(check_split(*arguments)) == []
    (error,) = errors(check_split(*arguments, resizes=[(512, 128)]))
    assert 'thin.jpg is 4000 x 2' in error.message


def outside(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.field == 'links']


def test_links_that_lead_out(root: Path, tmp_path_factory: pytest.TempPathFactory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    for name in ('12.png', '13.png'):
        (root / name).rename(elsewhere / name)
    (root / '12.png').symlink_to(elsewhere / '12.png')
    (root / 'inside').mkdir()
    (elsewhere / '13.png').rename(root / 'inside' / '13.png')
    (root / '13.png').symlink_to('inside/13.png')
    (found,) = outside(check(root, good()))
    assert (found.severity, found.examples, found.count) == ('warning', ('12.png',), 1)
    assert f'12.png is {elsewhere / "12.png"}' in found.message


def test_a_linked_folder(root: Path, tmp_path_factory: pytest.TempPathFactory):
    """That the folder of the images is a link is its owner's doing; one inside it may be a stranger's."""
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    for name in ('11.png', '12.png', '13.png'):
        (root / name).rename(elsewhere / name)
    (root / 'below').symlink_to(elsewhere)
    content = good()
    for image in content['images']:
        image['file_name'] = f'below/{image["file_name"]}'
    (found,) = outside(check(root, content))
    assert found.examples == ('below',)
    assert check_links(root, root / 'below', ['11.png']) == []


def test_the_root_of_a_data_set(tmp_path: Path):
    assert common_root(tmp_path / 'annotations', tmp_path / 'train2017') == tmp_path
    assert common_root(Path('/a/annotations'), Path('/b/images')) == Path('/b/images')


def test_many_links_are_not_all_followed(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('swin_dense.check.links.MOST', 2)
    names = [f'{i}' for i in range(5)]
    for name in names:
        os.symlink('/etc', root / name)  # noqa: PTH211
    (found,) = check_links(root, root, names)
    assert found.count == 2
    assert 'of 5 links, the first 2 were followed' in found.message
