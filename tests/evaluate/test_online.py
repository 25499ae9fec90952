"""The metrics of a run: what mmdet's and mmseg's get wrong, and that ours agree with them elsewhere."""

import errno
import json
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric as MMDetCocoMetric
from mmengine.config import Config
from mmseg.evaluation import IoUMetric as MMSegIoUMetric

from swin_dense.errors import DiskFullError, NotFiniteError
from swin_dense.evaluate import coco, online
from swin_dense.registry import METRICS
from tests.evaluate import scenes
from tests.evaluate.test_coco import ONLINE, samples


def evaluated(metric: MMDetCocoMetric, found: list[dict]) -> dict[str, float]:
    metric.dataset_meta = dict(classes=scenes.NAMES)
    metric.process({}, found)
    return metric.evaluate(len(found))


def numbers(found: dict[str, object]) -> dict[str, float]:
    return {name: value for name, value in found.items() if not isinstance(value, str)}


def test_detections_score_as_in_mmdet(tmp_path: Path):
    truth, predictions = scenes.write(tmp_path)
    arguments = dict(ann_file=str(truth), metric=['bbox', 'segm'])
    ours, theirs = (
        METRICS.build(dict(type='swin_dense.CocoMetric', **arguments)),
        MMDetCocoMetric(**arguments),
    )
    found = evaluated(ours, samples(truth, predictions))
    assert numbers(found) == numbers(evaluated(theirs, samples(truth, predictions)))
    assert 0.1 < found['coco/segm_mAP'] < 0.9


def test_annotation_0_counts(tmp_path: Path):
    truth, predictions = scenes.write(tmp_path)
    content = json.loads(truth.read_text())
    for annotation in content['annotations']:
        annotation['id'] -= 1
        del annotation['area']
        if not annotation['iscrowd']:
            del annotation['iscrowd']
    (tmp_path / 'zero.json').write_text(json.dumps(content))
    files = (tmp_path / 'zero.json', truth)
    found = [evaluated(online.CocoMetric(str(file)), samples(truth, predictions)) for file in files]
    assert found[0] == found[1]


@pytest.mark.parametrize('name', ['bboxes', 'scores'])
@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_no_score_of_what_is_not_finite(tmp_path: Path, name: str, value: float):
    truth, predictions = scenes.write(tmp_path)
    found = samples(truth, predictions)
    found[3]['pred_instances'][name][0] = value
    with pytest.raises(NotFiniteError, match=rf'image 4 .*: {name} are NaN or infinite: no AP'):
        evaluated(online.CocoMetric(str(truth)), found)


def test_no_detections_score_0_as_offline(tmp_path: Path, capsys: pytest.CaptureFixture):
    """And what no object defines stays undefined."""
    truth, predictions = scenes.write(tmp_path)
    content = json.loads(truth.read_text())
    content['annotations'] = [a for a in content['annotations'] if a['area'] < 96**2]
    truth.write_text(json.dumps(content))
    predictions.write_text('[]')
    metric = online.CocoMetric(
        str(truth), metric=['bbox', 'segm'], outfile_prefix=str(tmp_path / 'predictions')
    )
    found = evaluated(metric, samples(truth, predictions))
    assert len(found) == 12
    scored = coco.score(truth, tmp_path, ONLINE)
    assert found == {f'coco/{name}': scored[name] for name in (key.removeprefix('coco/') for key in found)}
    assert (found['coco/segm_mAP'], found['coco/segm_mAP_l']) == (0, -1)


def test_masks_of_another_model_do_not_stay(tmp_path: Path):
    truth, predictions = scenes.write(tmp_path)
    prefix = tmp_path / 'predictions'
    for kinds in (['bbox', 'segm'], ['bbox']):
        found = samples(truth, predictions)
        if len(kinds) == 1:
            for sample in found:
                del sample['pred_instances']['masks']
        evaluated(online.CocoMetric(str(truth), metric=kinds, outfile_prefix=str(prefix)), found)
        assert (tmp_path / 'predictions.bbox.json').is_file()
        assert (tmp_path / 'predictions.segm.json').is_file() == (len(kinds) == 2)


def areas(kind: type[MMSegIoUMetric], truth: torch.Tensor, predicted: torch.Tensor) -> list[list[float]]:
    return [a.tolist() for a in kind.intersect_and_union(predicted, truth, 3, 255)]


def test_pixels_are_counted_as_in_mmseg():
    truth, predicted = torch.randint(0, 4, (60, 70)), torch.randint(0, 3, (60, 70))  # 3 is no class
    truth[:9] = 255
    expected = areas(MMSegIoUMetric, truth, predicted)
    assert areas(online.IoUMetric, truth, predicted) == expected
    assert areas(online.IoUMetric, truth.byte(), predicted.byte()) == expected


def test_sums_above_2_to_the_24_are_exact():
    """A class that fills one image of 4096x4096 pixels and has one pixel in each of three others."""
    full, single = torch.zeros(4096, 4096, dtype=torch.uint8), torch.ones(4, 4, dtype=torch.uint8)
    single[0, 0] = 0
    totals = {}
    for kind in (MMSegIoUMetric, online.IoUMetric):
        metric = kind()
        metric.dataset_meta = dict(classes=('a', 'b'))
        for image in (full, single, single, single):
            data = dict(data=image[None])
            metric.process({}, [dict(gt_sem_seg=data, pred_sem_seg=data)])
        totals[kind] = sum(result[3] for result in metric.results)[0].item()
        assert metric.evaluate(4)['mIoU'] == 100
    assert totals == {MMSegIoUMetric: 2**24, online.IoUMetric: 2**24 + 3}


@pytest.mark.parametrize('scope', ['', 'mmdet.'])
def test_every_evaluator_leaves_its_predictions(tmp_path: Path, scope: str):
    dump = dict(type='DumpResults', out_file_path='a.pkl')
    config = Config(
        dict(
            val_evaluator=dict(type=f'{scope}CocoMetric'),
            test_evaluator=[dict(type='CocoMetric', outfile_prefix='mine'), dict(dump)],
        )
    )
    online.keep_predictions(config, tmp_path)
    assert config.val_evaluator == dict(
        type='swin_dense.CocoMetric', outfile_prefix=str(tmp_path / 'predictions')
    )
    assert config.test_evaluator[0] == dict(type='swin_dense.CocoMetric', outfile_prefix='mine')
    assert config.test_evaluator[1] == dump
    assert online.output(config) == Path('mine')
    config = Config(dict(test_evaluator=dict(type='IoUMetric')))
    online.keep_predictions(config, tmp_path)
    assert config.test_evaluator == dict(
        type='swin_dense.IoUMetric', output_dir=str(tmp_path / 'predictions')
    )
    assert online.output(Config(dict(test_evaluator=dump))) is None


def test_accuracy_is_a_plain_number():
    """Of float32 sums 80 % would be 0.800000011920929."""
    metric = online.IoUMetric()
    metric.dataset_meta = dict(classes=('a', 'b'))
    truth = torch.tensor([0] * 8 + [1] * 2)[None, None]
    sample = dict(gt_sem_seg=dict(data=truth), pred_sem_seg=dict(data=torch.zeros_like(truth)))
    metric.process({}, [sample])
    assert metric.evaluate(1) == dict(aAcc=80.0, mIoU=40.0, mAcc=50.0)


@pytest.mark.parametrize('what', ['dump', 'rename'])
def test_detections_appear_whole_or_not_at_all(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch):
    """A disk that fills while they are written leaves those of the evaluation before."""
    truth, predictions = scenes.write(tmp_path)
    prefix = tmp_path / 'out' / 'predictions'
    metric = online.CocoMetric(str(truth), metric=['bbox', 'segm'], outfile_prefix=str(prefix))
    evaluated(metric, samples(truth, predictions))
    before = {path.name: path.read_bytes() for path in prefix.parent.iterdir()}
    assert sorted(before) == ['predictions.bbox.json', 'predictions.segm.json']

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    if what == 'dump':
        monkeypatch.setattr('mmengine.fileio.backends.local_backend.LocalBackend.put_text', full)
    else:
        monkeypatch.setattr('swin_dense.storage.atomic.os.replace', full)
    found = samples(truth, predictions)[:3]
    with pytest.raises(DiskFullError) as caught:
        evaluated(online.CocoMetric(str(truth), outfile_prefix=str(prefix)), found)
    assert f'{prefix}.bbox.json cannot be written: the disk is full' in str(caught.value)
    assert {path.name: path.read_bytes() for path in prefix.parent.iterdir()} == before
