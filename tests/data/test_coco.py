"""COCO folders: what is found, and how configs are pointed at it."""

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from swin_dense.data import coco, fields
from swin_dense.engine import config as configs
from swin_dense.errors import UserError

RECIPE = 'configs/demo/mask_rcnn_swin_nano.py'
ROOT = Path(__file__).parents[2]
NAMES = ('cat', 'dog', 'zebra')
# annotation file of each split, and the folder of its images
LAYOUTS = {
    'COCO 2017': ('annotations/instances_{split}2017.json', '{split}2017'),
    'COCO 2014': ('annotations/instances_{split}2014.json', '{split}2014'),
    'no year': ('annotations/instances_{split}.json', '{split}'),
    'images inside': ('annotations/instances_{split}2017.json', 'images/{split}2017'),
    'mmyolo': ('annotations/{split}.json', 'images/{split}'),
    'one image folder': ('annotations/{split}.json', 'images'),
    'flat': ('instances_{split}.json', '{split}'),
    'flatter': ('{split}.json', '{split}'),
    'all in one': ('{split}.json', '.'),
    'Roboflow': ('{split}/_annotations.coco.json', '{split}'),
}


def annotation_file(path: Path, names: tuple[str, ...] = NAMES, file_name: str = '1.jpg') -> Path:
    """One image with a box of each class."""
    annotations = [
        dict(id=i, image_id=7, category_id=i, bbox=[2 * i, 3, 10, 12], area=120, iscrowd=0)
        for i in range(1, len(names) + 1)
    ]
    content = dict(
        images=[dict(id=7, file_name=file_name, height=32, width=48)],
        annotations=annotations,
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def image(folder: Path, name: str = '1.jpg') -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), np.zeros((32, 48, 3), np.uint8))


def data_set(
    root: Path, layout: str = 'COCO 2017', train: tuple[str, ...] = NAMES, val: tuple[str, ...] = NAMES
) -> Path:
    """A folder with one image a split."""
    for split, names in (('train', train), ('val', val)):
        file, images = (part.format(split=split) for part in LAYOUTS[layout])
        annotation_file(root / file, names, f'{split}.jpg')
        image(root / images, f'{split}.jpg')
    return root


def write_config(folder: Path, text: str) -> str:
    (folder / 'config.py').write_text(text)
    return str(folder / 'config.py')


def stock(folder: Path, base: str, text: str = '') -> Config:
    """A user's config on top of one of mmdet's."""
    return configs.load_config(write_config(folder, f"_base_ = 'mmdet::{base}'\n{text}"))


@cache
def loaded() -> Config:
    return configs.load_config(str(ROOT / RECIPE))


def recipe() -> Config:
    return copy.deepcopy(loaded())


def message(call: Callable, *args: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert '\n' not in text
    return text


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(tmp_path: Path, layout: str, split: str):
    root = data_set(tmp_path, layout)
    file, images = (part.format(split=split) for part in LAYOUTS[layout])
    assert coco.find_annotations(root, split) == root / file
    found = coco.find_split(root, split)
    assert found.annotations == root / file
    assert (found.images / f'{split}.jpg').is_file()
    assert found.images == root / images


def test_roboflow_calls_its_validation_split_valid(tmp_path: Path):
    annotation_file(tmp_path / 'valid' / '_annotations.coco.json')
    image(tmp_path / 'valid')
    found = coco.find_split(tmp_path, 'val')
    assert found == coco.Split(tmp_path / 'valid' / '_annotations.coco.json', tmp_path / 'valid')


def test_file_names_with_folders(tmp_path: Path):
    annotation_file(tmp_path / 'train.json', file_name='photos/a/1.jpg')
    image(tmp_path / 'photos' / 'a')
    assert coco.find_split(tmp_path, 'train').images == tmp_path


@pytest.mark.parametrize(('name', 'classes'), [('nuclei', 2), ('coco-mini', 80)])
def test_real_data(shared: Callable[[str], Path], name: str, classes: int):
    root = shared(name)
    for split in ('train', 'val'):
        found = coco.find_split(root, split)
        content = coco.read_annotations(found.annotations)
        assert len(coco.classes(content)) == classes
        assert all((found.images / entry['file_name']).is_file() for entry in content['images'])


def test_result_files_are_no_annotations(shared: Callable[[str], Path]):
    found = coco.find_annotations(shared('eval') / 'cocoapi-fake100', 'val')
    assert found.name == 'instances_val2014_100.json'


def test_no_folder(tmp_path: Path):
    text = message(coco.find_annotations, tmp_path / 'absent', 'train')
    assert f'data folder {tmp_path / "absent"} does not exist' in text


@pytest.mark.parametrize('split', ['train', 'val'])
def test_nothing_found(tmp_path: Path, split: str):
    text = message(coco.find_annotations, tmp_path, split)
    assert f'no {split} annotations (looked for ' in text
    for pattern in ('annotations/instances_{}20*.json', '{}/_annotations.coco.json', '{}.json'):
        assert pattern.format(split) in text


def test_several_candidates(tmp_path: Path):
    for year in (2014, 2017):
        annotation_file(tmp_path / 'annotations' / f'instances_train{year}.json')
    text = message(coco.find_annotations, tmp_path, 'train')
    assert 'several train annotations' in text
    assert 'instances_train2014.json' in text
    assert 'instances_train2017.json' in text


NO_ANNOTATIONS = {
    'no JSON': (b'<!DOCTYPE html>', 'cannot be read as JSON'),
    'cut off': (b'{"images": [], "annot', 'cannot be read as JSON'),
    'empty': (b'', 'cannot be read as JSON'),
    'no text': (b'\xff\xd8\xff\xe0', 'cannot be read as JSON'),
    'a list': (b'[]', "the list 'images' is missing"),
    'a number': (b'3', "the list 'images' is missing"),
    'no annotations': (b'{"images": [], "categories": []}', "the list 'annotations' is missing"),
    'no categories': (b'{"images": [], "annotations": []}', "the list 'categories' is missing"),
    'images no list': (b'{"images": 3, "annotations": [], "categories": []}', "'images' is missing"),
    'no images': (b'{"images": [], "annotations": [], "categories": []}', '"images" is empty'),
    'no file name': (
        b'{"images": [{"id": 1}], "annotations": [], "categories": []}',
        "images: the field 'file_name' is missing",
    ),
    'no class name': (
        b'{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [], "categories": [{"id": 1}]}',
        "categories: the field 'name' is missing",
    ),
}


@pytest.mark.parametrize('what', NO_ANNOTATIONS)
def test_a_file_that_holds_no_annotations(tmp_path: Path, what: str):
    content, expected = NO_ANNOTATIONS[what]
    path = tmp_path / 'train.json'
    path.write_bytes(content)
    text = message(coco.find_split, tmp_path, 'train')
    assert str(path) in text
    assert expected in text


def test_an_annotation_file_that_is_absent(tmp_path: Path):
    text = message(coco.read_annotations, tmp_path / 'train.json')
    assert 'do not exist' in text
    assert '--data' in text


def test_no_image_folder(tmp_path: Path):
    annotation_file(tmp_path / 'annotations' / 'instances_train2017.json', file_name='9.jpg')
    image(tmp_path / 'train2017', 'other.jpg')
    text = message(coco.find_split, tmp_path, 'train')
    assert "image '9.jpg' is in none of the folders train2017, train" in text


WRAPPED = """
leaf = dict(type='CocoDataset', data_root='old/root/', ann_file='train.json', data_prefix=dict(img='train/'),
            pipeline=_base_.train_pipeline)
balanced = dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=leaf)
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(
    type='ConcatDataset', datasets=[leaf, balanced])))
test_evaluator = [
    dict(type='CocoMetric', ann_file='old/root/val.json'),
    dict(type='DumpResults', out_file_path='a.pkl'),
]
data_root = 'old/root/'
"""


def test_point_at_replaces_every_path(tmp_path: Path):
    root = data_set(tmp_path / 'new', 'COCO 2017')
    config = stock(tmp_path, 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', WRAPPED)
    assert 'old/root' in str(config.to_dict())
    assert 'data/coco' in str(config.to_dict())
    coco.point_at(config, root)
    config.pop('leaf'), config.pop('balanced')  # the file's own variables
    assert 'old/root' not in str(config.to_dict())
    assert 'data/coco' not in str(config.to_dict())
    leaves = fields.inner_datasets(config.train_dataloader.dataset)
    assert len(leaves) == 2
    for leaf in leaves:
        assert (leaf.data_root, leaf.ann_file) == ('', str(root / 'annotations/instances_train2017.json'))
        assert leaf.data_prefix == dict(img=str(root / 'train2017'))
    for split in ('val', 'test'):
        leaf = config[f'{split}_dataloader'].dataset
        assert leaf.ann_file == str(root / 'annotations/instances_val2017.json')
        assert leaf.data_prefix == dict(img=str(root / 'val2017'))
    assert config.val_evaluator.ann_file == str(root / 'annotations/instances_val2017.json')
    assert config.test_evaluator[0].ann_file == str(root / 'annotations/instances_val2017.json')


def test_point_at_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data_set(tmp_path / 'new')
    monkeypatch.chdir(tmp_path)
    config = recipe()
    coco.point_at(config, Path('new'))
    leaf = config.train_dataloader.dataset
    assert Path(leaf.ann_file).is_absolute()
    assert Path(leaf.ann_file).is_file()
    assert (Path(leaf.data_prefix.img) / 'train.jpg').is_file()


HEADS = {
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': 2,
    'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py': 4,  # three box heads, one mask head
    'retinanet/retinanet_r50_fpn_1x_coco.py': 1,
}


@pytest.mark.parametrize('base', HEADS)
def test_every_head_gets_the_classes_of_the_file(tmp_path: Path, base: str):
    config = stock(tmp_path, base)
    coco.point_at(config, data_set(tmp_path))
    coco.name_classes(config)
    assert fields.head_classes(config.model) == {3}
    assert str(config.to_dict()).count("'num_classes': 3") == HEADS[base]
    for split in ('train', 'val', 'test'):
        assert config[f'{split}_dataloader'].dataset.metainfo.classes == NAMES


def test_a_semantic_branch_keeps_its_own_classes(tmp_path: Path):
    config = stock(tmp_path, 'htc/htc_r50_fpn_1x_coco.py')
    own = config.model.roi_head.semantic_head.num_classes
    coco.point_at(config, data_set(tmp_path))
    coco.name_classes(config)
    assert config.model.roi_head.semantic_head.num_classes == own
    assert {head.num_classes for head in config.model.roi_head.bbox_head} == {3}


def test_the_order_of_the_file_is_kept(tmp_path: Path):
    config = recipe()
    coco.point_at(config, data_set(tmp_path, train=('zebra', 'cat'), val=('cat', 'zebra')))
    coco.name_classes(config)
    assert config.val_dataloader.dataset.metainfo.classes == ('zebra', 'cat')


def test_a_class_that_only_the_training_file_has(tmp_path: Path):
    config = recipe()
    coco.point_at(config, data_set(tmp_path, val=('cat', 'dog')))
    text = message(coco.name_classes, config)
    assert "'zebra'" in text
    assert 'instances_train2017.json' in text
    assert 'instances_val2017.json' in text
    assert 'metainfo' not in text  # the config names none


def with_classes(tmp_path: Path, names: object, count: int) -> Config:
    text = f'metainfo = dict(classes={names!r})\n' + '\n'.join(
        f'{split}_dataloader = dict(dataset=dict(metainfo=metainfo))' for split in ('train', 'val', 'test')
    )
    heads = f'dict(bbox_head=dict(num_classes={count}), mask_head=dict(num_classes={count}))'
    text += f'\nmodel = dict(roi_head={heads})'
    return stock(tmp_path, 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', text)


def test_classes_of_the_config(tmp_path: Path):
    config = with_classes(tmp_path, ('zebra', 'cat'), 2)
    coco.point_at(config, data_set(tmp_path))
    coco.name_classes(config)
    assert config.train_dataloader.dataset.metainfo.classes == ('cat', 'zebra')  # as mmdet numbers them
    assert fields.head_classes(config.model) == {2}


@pytest.mark.parametrize(
    ('names', 'wrong', 'hint'),
    [
        (('cat', 'zebar'), "'zebar'", "; did you mean 'zebra'?"),
        (('cat', 'Dog'), "'Dog'", "; did you mean 'dog'?"),
        (('cat', 'submarine'), "'submarine'", None),
    ],
)
def test_a_class_that_the_file_lacks(tmp_path: Path, names: tuple[str, ...], wrong: str, hint: str | None):
    config = with_classes(tmp_path, names, 2)
    coco.point_at(config, data_set(tmp_path))
    text = message(coco.name_classes, config)
    assert f'metainfo.classes: {wrong} is not among the 3 categories of ' in text
    assert text.endswith(hint) if hint else 'did you mean' not in text
    assert str(tmp_path / 'config.py') in text


def test_one_class_without_the_comma_of_a_tuple(tmp_path: Path):
    config = with_classes(tmp_path, 'cat', 1)
    coco.point_at(config, data_set(tmp_path))
    coco.name_classes(config)
    assert config.train_dataloader.dataset.metainfo.classes == ('cat',)


def test_a_file_of_class_names(tmp_path: Path):
    (tmp_path / 'names.txt').write_text('zebra\ncat\n')
    config = with_classes(tmp_path, str(tmp_path / 'names.txt'), 2)
    coco.point_at(config, data_set(tmp_path))
    coco.name_classes(config)
    assert config.train_dataloader.dataset.metainfo.classes == ('cat', 'zebra')


def test_a_file_without_classes(tmp_path: Path):
    config = recipe()
    coco.point_at(config, data_set(tmp_path, train=(), val=()))
    assert message(coco.name_classes, config).endswith(
        'instances_train2017.json: the list "categories" is empty'
    )


def test_heads_that_disagree_with_the_configs_classes(tmp_path: Path):
    config = with_classes(tmp_path, ('cat', 'dog'), 80)
    coco.point_at(config, data_set(tmp_path))
    text = message(coco.name_classes, config)
    assert 'metainfo.classes names 2 classes, but num_classes of the heads is 80' in text


def test_without_data_the_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = recipe()
    monkeypatch.chdir(tmp_path)
    text = message(coco.name_classes, config)
    assert 'annotations data/shapes/coco/annotations/instances_' in text
    assert 'do not exist' in text
