"""Panoptic data: labels and masks as mmdet's own loading has them, things first, one line for a mistake."""

import json
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoPanopticDataset
from mmdet.datasets.transforms import LoadPanopticAnnotations
from mmengine.config import Config

from swin_dense.data import panoptic, panoptic_dataset
from swin_dense.demo import shapes
from swin_dense.errors import UserError
from swin_dense.formats.panoptic_json import read_panoptic
from swin_dense.hosts.configs import stock_root

SPLIT = 'val2017'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shapes.write(tmp_path, train=1, val=5)  # the third scene has a crowd
    return tmp_path / 'panoptic'


@pytest.fixture
def rgb2id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one function of panopticapi that mmdet's loading asks for, by its documented formula."""
    package, utils = ModuleType('panopticapi'), ModuleType('panopticapi.utils')
    utils.rgb2id = lambda colour: colour.astype(np.int32) @ np.array([1, 256, 256**2], np.int32)
    package.utils = utils
    monkeypatch.setitem(sys.modules, 'panopticapi', package)
    monkeypatch.setitem(sys.modules, 'panopticapi.utils', utils)


def arguments(root: Path) -> dict:
    names = (*shapes.CLASSES, 'background')
    return dict(
        ann_file=str(root / f'annotations/panoptic_{SPLIT}.json'),
        data_prefix=dict(img=str(root / SPLIT), seg=str(root / f'annotations/panoptic_{SPLIT}')),
        metainfo=dict(classes=names, thing_classes=names[:5], stuff_classes=names[5:]),
        test_mode=True,
    )


def loaded(step: object, sample: dict) -> dict:
    height, width = sample['height'], sample['width']
    return step.transform({**sample, 'ori_shape': (height, width), 'img_shape': (height, width)})


def test_samples_are_those_of_mmdet(root: Path, rgb2id: None):
    ours, theirs = (
        kind(**arguments(root)) for kind in (panoptic_dataset.CocoPanopticDataset, CocoPanopticDataset)
    )
    assert len(ours) == len(theirs) == 5
    crowds = 0
    for index in range(5):
        mine, host = ours.get_data_info(index), theirs.get_data_info(index)
        assert mine == host
        a = loaded(panoptic_dataset.LoadPanopticAnnotations(), mine)
        b = loaded(LoadPanopticAnnotations(), host)
        assert (a['gt_seg_map'] == b['gt_seg_map']).all()
        assert (a['gt_masks'].masks == b['gt_masks'].masks).all()
        assert (a['gt_bboxes'].tensor == b['gt_bboxes'].tensor).all()
        assert a['gt_bboxes_labels'].tolist() == b['gt_bboxes_labels'].tolist()
        crowds += sum(not s['is_thing'] for s in mine['segments_info']) - 1
    assert crowds, 'a crowd is no thing to be told apart'


def test_labels_number_the_things_first(root: Path):
    """mmdet numbers in the order of the file, and would take stuff for things."""
    path = root / f'annotations/panoptic_{SPLIT}.json'
    before = panoptic_dataset.CocoPanopticDataset(**arguments(root)).get_data_info(0)
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))
    assert panoptic_dataset.CocoPanopticDataset(**arguments(root)).get_data_info(0) == before


def test_the_png_is_the_one_that_the_annotation_names(root: Path):
    path = root / f'annotations/panoptic_{SPLIT}.json'
    content = json.loads(path.read_text())
    name = content['annotations'][0]['file_name']
    content['annotations'][0]['file_name'] = 'another.png'
    path.write_text(json.dumps(content))
    (path.with_suffix('') / name).rename(path.with_suffix('') / 'another.png')
    sample = panoptic_dataset.CocoPanopticDataset(**arguments(root)).get_data_info(0)
    assert loaded(panoptic_dataset.LoadPanopticAnnotations(), sample)['gt_seg_map'].max() == 5


def test_a_png_of_another_size_is_one_line(root: Path):
    sample = panoptic_dataset.CocoPanopticDataset(**arguments(root)).get_data_info(0)
    png = cv2.imread(sample['seg_map_path'])
    cv2.imwrite(sample['seg_map_path'], png[:-4])
    with pytest.raises(UserError, match=rf'panoptic PNG .*{png.shape[0] - 4}, but image .*jpg is'):
        loaded(panoptic_dataset.LoadPanopticAnnotations(), sample)


@pytest.mark.parametrize(
    ('stock', 'weights'),
    [
        ('mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic.py', 7),
        ('panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py', 0),
    ],
)
def test_heads_follow_the_data(root: Path, stock: str, weights: int):
    config = Config.fromfile(stock_root('mmdet') / stock)
    panoptic.point_at(config, root)
    panoptic.name_classes(config)
    model = config.model
    head = model.get('semantic_head') or model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (5, 1)
    fusion = model.panoptic_fusion_head
    assert (fusion.num_things_classes, fusion.num_stuff_classes) == (5, 1)
    if weights:
        assert head.loss_cls.class_weight == [1.0] * 6 + [0.1]
    else:
        assert model.roi_head.bbox_head.num_classes == model.roi_head.mask_head.num_classes == 5
    assert [metric['type'] for metric in config.val_evaluator] == ['swin_dense.CocoPanopticMetric']
    assert Path(config.val_evaluator[0]['seg_prefix']).name == f'panoptic_{SPLIT}'


def test_files_that_disagree(root: Path):
    path = root / 'annotations/panoptic_train2017.json'
    content = read_panoptic(path)
    changed = json.loads(json.dumps(content).replace('"ring"', '"rang"'))
    path.write_text(json.dumps(changed))
    config = Config.fromfile(stock_root('mmdet') / 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    panoptic.point_at(config, root)
    with pytest.raises(UserError, match=r"'rang' is not among the 6 categories of .* did you mean 'ring'"):
        panoptic.name_classes(config)


def test_a_folder_without_panoptic_annotations(root: Path):
    with pytest.raises(UserError, match='no panoptic train annotations'):
        panoptic.find_split(root.parent / 'coco', 'train')


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (('ring', 'stars'), r"metainfo\.classes: 'stars' is not among .* did you mean 'star'"),
        (('ring', 'star'), r'metainfo\.classes names 2 of the 6 categories'),
    ],
)
def test_classes_of_the_config(root: Path, names: tuple[str, ...], message: str):
    config = Config.fromfile(stock_root('mmdet') / 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')
    panoptic.point_at(config, root)
    config.train_dataloader.dataset.metainfo = dict(classes=names)
    with pytest.raises(UserError, match=message):
        panoptic.name_classes(config)
