"""Roboflow's exports, whose category 0 is the supercategory and often bears the name of a class."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.config import Config

from swin_dense.check import data_sets
from swin_dense.data import coco
from swin_dense.data.coco_dataset import CocoDataset
from swin_dense.demo import shapes
from swin_dense.errors import UserError
from swin_dense.evaluate.online import CocoMetric
from swin_dense.formats import coco_json
from swin_dense.registry import DATASETS
from tests.tools.running import in_process
from tests.tools.runs import DETECTION, epochs

tool = pytest.fixture(in_process)
REPEATED = shapes.CLASSES[2]


@pytest.fixture(scope='module')
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('original')
    shapes.write(root, train=8, val=4)
    return root / 'coco'


@pytest.fixture
def export(original: Path, tmp_path: Path) -> Path:
    """The same set as Roboflow exports it: ids from 0 on, the first for the supercategory, unused."""
    root = tmp_path / 'export'
    for split, folder in (('train', 'train'), ('val', 'valid')):
        annotations = coco.find_split(original, split)
        content = json.loads(annotations.annotations.read_text())
        for category in content['categories']:
            category['supercategory'] = REPEATED
        supercategory = {'id': 0, 'name': REPEATED, 'supercategory': 'none'}
        content['categories'] = [supercategory, *content['categories']]
        shutil.copytree(annotations.images, root / folder)
        (root / folder / '_annotations.coco.json').write_text(json.dumps(content))
    return root


def test_the_class_list_has_no_dead_class(export: Path):
    for split in ('train', 'val'):
        assert (
            coco.classes(coco_json.read_annotations(coco.find_annotations(export, split))) == shapes.CLASSES
        )
    found = [x for x in data_sets.check_folder(export, decode=False) if x.severity != 'note']
    assert [(finding.severity, finding.field, finding.examples) for finding in found] == [
        ('warning', 'categories', (0,))
    ] * 2
    assert 'that repeat the name of another are left out; ids' in found[0].message


def labels(kind: type[MMDetCocoDataset], annotations: Path) -> list[list[int]]:
    names = dict(classes=shapes.CLASSES)
    dataset = kind(ann_file=str(annotations), metainfo=names, data_prefix=dict(img=''), pipeline=[])
    images = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [[item['bbox_label'] for item in image['instances']] for image in images]


def test_labels_are_those_of_the_file_without_it(original: Path, export: Path):
    expected = labels(MMDetCocoDataset, coco.find_annotations(original, 'train'))
    annotations = coco.find_annotations(export, 'train')
    assert labels(CocoDataset, annotations) == expected
    assert labels(MMDetCocoDataset, annotations) != expected, 'the category 0 shifts the labels'


def test_scores_are_those_of_the_file_without_it(original: Path, export: Path):
    scores = []
    for root in (original, export):
        metric = CocoMetric(str(coco.find_annotations(root, 'val')))
        metric.dataset_meta = dict(classes=shapes.CLASSES)
        content = json.loads(coco.find_annotations(original, 'val').read_text())
        samples = []
        for image in content['images']:
            own = [a for a in content['annotations'] if a['image_id'] == image['id']]
            boxes = torch.tensor([a['bbox'] for a in own], dtype=torch.float32)
            boxes[:, 2:] += boxes[:, :2]
            names = {category['id']: i for i, category in enumerate(content['categories'])}
            predictions = dict(
                bboxes=boxes + 2,
                scores=torch.linspace(0.2, 0.9, len(own)),
                labels=torch.tensor([names[a['category_id']] for a in own]),
            )
            size = image['height'], image['width']
            samples.append(dict(img_id=image['id'], ori_shape=size, pred_instances=predictions))
        metric.process({}, samples)
        scores.append(metric.evaluate(len(samples)))
    assert scores[0] == scores[1]
    assert scores[0]['coco/bbox_mAP'] > 0.5


def test_training_and_scoring(export: Path, tmp_path: Path, tool: Callable):
    work_dir = tmp_path / 'run'
    arguments = ['--data', export, '--work-dir', work_dir, '--device', 'cpu', '--cfg-options', *epochs(1)]
    ended = tool('train', DETECTION, *arguments)
    assert ended.status == 0, ended.err
    assert 'circle, triangle, rectangle, star, ring' in ended.out
    shown = ' '.join(ended.out.split())
    assert shown.count('categories without an annotation that repeat the name of another') == 2, (
        'a line a file'
    )
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    scored = tool(
        *('test', DETECTION, '--predictions', work_dir, '--data', export, '--work-dir', tmp_path / 'scored')
    )
    assert scored.status == 0, scored.err
    again = json.loads((tmp_path / 'scored' / 'metrics.json').read_text())
    assert {name: again[name] for name in metrics} == metrics


def test_a_data_set_without_repeats_stays_the_hosts(original: Path, export: Path):
    for root, kind in ((original, 'CocoDataset'), (export, 'swin_dense.CocoDataset')):
        config = Config.fromfile(DETECTION)
        coco.point_at(config, root)
        coco.name_classes(config)
        assert config.train_dataloader.dataset.type == kind
    assert DATASETS.get('swin_dense.CocoDataset') is CocoDataset


def test_names_of_two_used_categories_stay_an_error(export: Path):
    path = coco.find_annotations(export, 'train')
    content = json.loads(path.read_text())
    content['annotations'][0]['category_id'] = 0
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='names that more than one category has'):
        coco_json.read_annotations(path)


@pytest.mark.parametrize(
    ('categories', 'used', 'repeats'),
    [
        ([(0, 'a'), (1, 'a'), (2, 'b')], {1, 2}, [0]),
        ([(0, 'a'), (1, 'a'), (2, 'b')], {2}, [0]),  # the supercategory comes first
        ([(0, 'a'), (1, 'b')], set(), []),
        ([(0, 'a'), (1, 'a')], {0, 1}, []),
        ([(1, 'a'), (2, 'a'), (3, 'a')], {2}, [1, 3]),
    ],
)
def test_unused_repeats(categories: list[tuple[int, str]], used: set[int], repeats: list[int]):
    entries = [dict(id=key, name=name) for key, name in categories]
    assert [entry['id'] for entry in coco_json.unused_repeats(entries, used)] == repeats
