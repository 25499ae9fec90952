"""COCO scores: pycocotools' own, the published ones, and what mmdet reports in a run."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmengine.config import Config
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from swin_dense.data.coco import find_annotations
from swin_dense.errors import UserError
from swin_dense.evaluate import coco, offline
from tests.evaluate import scenes

ONLINE = coco.Rules(limits=(100, 300, 1000))


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return scenes.write(tmp_path_factory.mktemp('scenes'))


def by_pycocotools(truth: Path, predictions: Path, kind: str, **params: list) -> COCOeval:
    """Its own evaluation, with nothing of ours."""
    dropped = 'bbox' if kind == 'segm' else 'segmentation'
    entries = [{k: v for k, v in e.items() if k != dropped} for e in json.loads(predictions.read_text())]
    with redirect_stdout(io.StringIO()):
        api = COCO(str(truth))
        evaluation = COCOeval(api, api.loadRes(entries), kind)
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def scored(files: tuple[Path, Path], rules: coco.Rules | None = None) -> dict[str, coco.Scores]:
    return {found.kind: found for found in coco.evaluate(coco.load_truth(files[0]), files[1], rules)}


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_published_scores(shared: Callable[[str], Path], kind: str):
    """With the limits of mmdet's configs too: no image of this set has more than 100 detections."""
    folder = shared('eval') / 'cocoapi-fake100'
    published = json.loads((folder / 'expected.json').read_text())
    expected = {f'{kind}_{name}': value for name, value in zip(coco.SCORES, published[kind], strict=True)}
    predictions = folder / f'instances_val2014_fake{kind}100_results.json'
    for rules in (None, ONLINE):
        found = coco.score(find_annotations(folder, 'val'), predictions, rules)
        assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_the_standard_scores_are_pycocotools_own(files: tuple[Path, Path], kind: str):
    reference = by_pycocotools(*files, kind)
    found = scored(files)[kind].metrics()
    assert list(found.values()) == reference.stats.tolist(), 'not even rounding differs'
    assert len(set(found.values())) > 9, 'the set tells the values apart'


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_the_scores_of_a_run_count_more_detections(files: tuple[Path, Path], kind: str):
    reference = by_pycocotools(*files, kind, maxDets=[100, 300, 1000])
    scores = scored(files, ONLINE)[kind]
    assert list(scores.metrics().values())[:6] == reference.stats[:6].tolist()
    standard = by_pycocotools(*files, kind)
    assert list(scores.metrics(limit=100).values()) == standard.stats.tolist()
    assert scores.metrics()[f'{kind}_mAP_50'] != standard.stats[1]
    note = coco.limit_note([scores])
    assert 'up to 1000 detections an image (proposal_nums), pycocotools' in note
    assert f'{kind}_mAP_50 {standard.stats[1]:.3f}' in note
    assert f'{kind}_mAP ' not in note
    assert coco.limit_note(list(scored(files).values())) == ''


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_each_class_alone(files: tuple[Path, Path], kind: str):
    scores = scored(files)[kind]
    rows = scores.per_class()
    truth = COCO(str(files[0]))
    for row in rows:
        category = scenes.IDS[scenes.NAMES.index(row['name'])]
        alone = by_pycocotools(*files, kind, catIds=[category])
        columns = ('AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l')
        expected = [None if value == -1 else value for value in alone.stats.tolist()]
        assert [row[name] for name in columns] == expected[:6]
        assert row['AR@100'] == expected[8]
        annotations = truth.loadAnns(truth.getAnnIds(catIds=category))
        assert row['objects'] == sum(not a['iscrowd'] for a in annotations) < len(annotations)
        assert row['detections'] == sum(
            e['category_id'] == category for e in json.loads(files[1].read_text())
        )
        curve = scores.curves()[rows.index(row)]
        assert curve.mean() == pytest.approx(row['AP50'], abs=1e-12)
        assert (np.diff(curve) <= 0).all()


def test_counts(files: tuple[Path, Path]):
    counts = scored(files)['bbox'].counts()
    content = json.loads(files[0].read_text())
    crowds = sum(a['iscrowd'] for a in content['annotations'])
    assert crowds > 0
    assert counts == dict(
        images=8,
        objects=len(content['annotations']) - crowds,
        crowds=crowds,
        detections=len(json.loads(files[1].read_text())),
        images_without_predictions=2,
    )


def test_some_of_the_classes(files: tuple[Path, Path]):
    rules = coco.Rules(classes=('zebra', 'dog'))
    reference = by_pycocotools(*files, 'segm', catIds=[1, 7])
    scores = scored(files, rules)['segm']
    assert scores.names == ('dog', 'zebra')
    assert list(scores.metrics().values()) == reference.stats.tolist()
    assert scores.counts()['objects'] < scored(files)['segm'].counts()['objects']


def samples(truth: Path, predictions: Path) -> list[dict]:
    """Data samples as a model gives them to mmdet's metric."""
    content, entries = json.loads(truth.read_text()), json.loads(predictions.read_text())
    labels = {category['id']: i for i, category in enumerate(content['categories'])}
    found = []
    for image in content['images']:
        mine = [entry for entry in entries if entry['image_id'] == image['id']]
        boxes = torch.tensor([entry['bbox'] for entry in mine], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = [rle.decode(entry['segmentation']) for entry in mine]
        instances = dict(
            bboxes=boxes,
            scores=torch.tensor([entry['score'] for entry in mine]),
            labels=torch.tensor([labels[entry['category_id']] for entry in mine], dtype=torch.long),
            masks=torch.tensor(np.array(masks, bool).reshape(-1, scenes.SIDE, scenes.SIDE)),
        )
        shape = (image['height'], image['width'])
        found.append(dict(img_id=image['id'], ori_shape=shape, pred_instances=instances))
    return found


def test_offline_equals_mmdet_online_to_the_last_digit(files: tuple[Path, Path], tmp_path: Path):
    metric = CocoMetric(str(files[0]), metric=['bbox', 'segm'], outfile_prefix=str(tmp_path / 'predictions'))
    metric.dataset_meta = dict(classes=scenes.NAMES)
    metric.process({}, samples(*files))
    online = metric.evaluate(8)
    offline_scores = coco.score(files[0], tmp_path, ONLINE)
    for name in (f'{kind}_{item}' for kind in ('bbox', 'segm') for item in coco.SCORES[:6]):
        assert round(offline_scores[name], 3) == online[f'coco/{name}']


def changed(files: tuple[Path, Path], folder: Path, change: Callable[[dict], None]) -> tuple[Path, Path]:
    """The set with something done to its annotation file."""
    content = json.loads(files[0].read_text())
    change(content)
    (folder / 'changed.json').write_text(json.dumps(content))
    return folder / 'changed.json', files[1]


def each(content: dict, change: Callable[[dict], object]) -> None:
    for annotation in content['annotations']:
        change(annotation)


HARMLESS = {
    'annotation id 0': lambda content: each(content, lambda a: a.update(id=a['id'] - 1)),
    'no iscrowd where it is 0': lambda content: each(content, lambda a: a['iscrowd'] or a.pop('iscrowd')),
    'info and licenses': lambda content: content.update(info={}, licenses=[]),
}


@pytest.mark.parametrize('what', HARMLESS)
def test_files_that_pycocotools_scores_wrongly_or_not_at_all(
    files: tuple[Path, Path], tmp_path: Path, what: str
):
    other = changed(files, tmp_path, HARMLESS[what])
    before = other[0].read_bytes()
    assert {k: s.metrics() for k, s in scored(other).items()} == {
        k: s.metrics() for k, s in scored(files).items()
    }
    assert other[0].read_bytes() == before, "the user's file stays as it is"


REFUSED = {
    "annotations: the field 'id'": lambda content: each(content, lambda a: a.pop('id')),
    'annotations.id: ids that more': lambda content: each(content, lambda a: a.update(id=a['id'] // 2)),
    "annotations: the field 'area'": lambda content: each(content, lambda a: a.pop('area')),
}


@pytest.mark.parametrize('message', REFUSED)
def test_files_that_could_mean_several_things(files: tuple[Path, Path], tmp_path: Path, message: str):
    with pytest.raises(UserError, match=message):
        scored(changed(files, tmp_path, REFUSED[message]))


def test_pycocotools_alone_takes_annotation_0_for_no_match(files: tuple[Path, Path], tmp_path: Path):
    """What the numbers are for: without them this would be AP 0."""
    box = dict(image_id=1, category_id=1, bbox=[10, 10, 50, 50])
    content = dict(
        images=[dict(id=1, file_name='1.png', height=90, width=90)],
        annotations=[box | dict(id=0, area=2500, iscrowd=0)],
        categories=[dict(id=1, name='cat')],
    )
    (tmp_path / 'zero.json').write_text(json.dumps(content))
    (tmp_path / 'perfect.json').write_text(json.dumps([box | dict(score=1.0)]))
    assert by_pycocotools(tmp_path / 'zero.json', tmp_path / 'perfect.json', 'bbox').stats[0] == 0
    assert coco.score(tmp_path / 'zero.json', tmp_path / 'perfect.json')['bbox_mAP'] == pytest.approx(1)


def test_crowds_are_pycocotools_crowds(files: tuple[Path, Path], tmp_path: Path):
    other = changed(files, tmp_path, lambda content: each(content, lambda a: a.update(iscrowd=0)))
    assert scored(other)['bbox'].metrics() != scored(files)['bbox'].metrics()
    assert list(scored(other)['bbox'].metrics().values()) == by_pycocotools(*other, 'bbox').stats.tolist()


@pytest.mark.parametrize('kinds', [('bbox',), ('bbox', 'segm')])
def test_empty_predictions_score_0(files: tuple[Path, Path], tmp_path: Path, kinds: tuple[str, ...]):
    (tmp_path / 'empty.json').write_text('[]')
    found = coco.evaluate(coco.load_truth(files[0]), tmp_path / 'empty.json', coco.Rules(kinds))
    assert [scores.kind for scores in found] == list(kinds)
    for scores in found:
        assert set(scores.metrics().values()) == {0.0}
        assert scores.counts()['images_without_predictions'] == 8
    gathered = offline.of_detections(found)
    assert np.array(gathered.confusion)[:-1, -1].sum() == gathered.counts['objects']


def test_the_rules_of_a_config():
    evaluator = dict(type='CocoMetric', metric=['bbox', 'segm', 'proposal'], proposal_nums=(1, 10, 100))
    loader = dict(dataset=dict(type='CocoDataset', metainfo=dict(classes=('cat', 'dog'))))
    config = Config(dict(test_evaluator=evaluator, test_dataloader=loader))
    assert coco.rules(config) == coco.Rules(('bbox', 'segm'), (1, 10, 100), ('cat', 'dog'))
    config = Config(dict(test_evaluator=[dict(type='CocoMetric')], test_dataloader=dict(dataset={})))
    assert coco.rules(config) == coco.Rules(('bbox',), (100, 300, 1000), None)
    config.test_evaluator[0].iou_thrs = [0.5]
    with pytest.raises(UserError, match='iou_thrs'):
        coco.rules(config)


@pytest.mark.parametrize(
    ('key', 'field'),
    [('images', 'id'), ('categories', 'id'), ('annotations', 'bbox'), ('annotations', 'image_id')],
)
def test_fields_that_a_score_needs(files: tuple[Path, Path], tmp_path: Path, key: str, field: str):
    other = changed(files, tmp_path, lambda content: content[key][0].pop(field))
    with pytest.raises(UserError, match=f"{key}: the field '{field}' is missing"):
        coco.load_truth(other[0])
