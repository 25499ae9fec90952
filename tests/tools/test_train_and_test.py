"""Training, evaluating and resuming both tasks, as a person does: real processes on a tiny set."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from swin_dense.demo.shapes import CLASSES
from swin_dense.evaluate import coco
from tests.tools.runs import (
    DETECTION,
    EPOCHS,
    ITERS,
    SEGMENTATION,
    SMALL_DETECTION,
    SMALL_SEGMENTATION,
    Run,
    assert_left_behind,
    epochs,
    iterations,
    one_line,
    rows,
    run,
)


def test_training_a_detector(detection: Run):
    header = rows(detection.output)
    assert header['config'].startswith(DETECTION)
    assert header['model'].startswith('MaskRCNN: SwinTransformer > FPN > StandardRoIHead')
    assert header['train'].startswith('8 images, ')
    assert header['classes'] == '5: circle, triangle, rectangle, star, ring'
    assert header['device'].startswith('cpu')
    assert header['precision'] == 'fp32'
    assert header['batch'].startswith('2 images a step')
    assert header['schedule'] == f'{EPOCHS} epochs of 4 iterations'
    assert f'epoch {EPOCHS}/{EPOCHS}  4/4  loss ' in detection.output
    assert set(detection.metrics) == {
        f'{kind}_{name}' for kind in ('bbox', 'segm') for name in coco.SCORES[:6]
    }
    assert all(value is None or 0 <= value <= 1 for value in detection.metrics.values())
    assert detection.metrics['bbox_mAP_50'] > 0
    assert_left_behind(detection)
    assert len(detection.losses()) == 4 * EPOCHS
    assert (detection.folder / f'epoch_{EPOCHS}.pth').is_file()


def test_training_a_segmentor(segmentation: Run):
    header = rows(segmentation.output)
    assert header['model'].startswith('EncoderDecoder: SwinTransformer > UPerHead')
    assert header['classes'] == '6: background, circle, triangle, rectangle, star, ring'
    assert header['schedule'] == f'{ITERS} iterations'
    assert f'iterations 1-{ITERS // 2}  {ITERS // 2}/{ITERS // 2}  loss ' in segmentation.output
    assert f'iterations {ITERS // 2 + 1}-{ITERS}  {ITERS // 2}/{ITERS // 2}  loss ' in segmentation.output
    assert set(segmentation.metrics) == {'aAcc', 'mIoU', 'mAcc'}
    assert all(0 < value <= 1 for value in segmentation.metrics.values())
    assert_left_behind(segmentation)
    assert len(segmentation.losses()) == ITERS


def evaluations(finished: Run) -> list[dict]:
    lines = max(finished.folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if 'val/loss' in entry]


def test_the_validation_loss_of_a_detector(detection: Run):
    """It is evaluated on what it is trained on: the loss is near that of the last epoch."""
    (found,) = evaluations(detection)
    parts = {'rpn_cls', 'rpn_bbox', 'cls', 'bbox', 'mask'}
    assert {name for name in found if name.startswith('val/')} == {
        'val/loss',
        *(f'val/loss_{name}' for name in parts),
    }
    assert found['val/loss'] == pytest.approx(sum(found[f'val/loss_{name}'] for name in parts), rel=1e-4)
    assert found['val/loss'] == pytest.approx(np.mean(detection.losses()[-4:]), rel=0.5)
    assert '│ val/loss ' in detection.output
    assert f'val/loss: {found["val/loss"]:.4f}' in detection.log()


def test_the_validation_loss_of_a_segmentor(segmentation: Run):
    first, second = evaluations(segmentation)
    assert {'val/loss', 'val/decode.loss_ce', 'val/aux.loss_ce'} <= set(second)
    assert second['val/loss'] != first['val/loss']
    assert 'val/decode.acc_seg' not in second
    assert segmentation.output.count('│ val/loss ') == 2


@pytest.mark.parametrize('task', [pytest.param('detection', marks=pytest.mark.slow), 'segmentation'])
def test_mixed_precision(task: str, data: Path, tmp_path: Path):
    config, folder = (DETECTION, 'coco') if task == 'detection' else (SEGMENTATION, 'ade')
    options = epochs(1) if task == 'detection' else [*iterations(2), 'train_cfg.val_interval=2']
    arguments = ['--data', data / folder, '--work-dir', tmp_path, '--device', 'cpu', '--amp', 'bf16']
    done = run('tools/train.py', config, *arguments, '--cfg-options', *options)
    assert rows(done.stdout)['precision'] == 'bf16 autocast'
    finished = Run(tmp_path, done.stdout, data / folder)
    assert np.isfinite(finished.losses()).all()
    assert 'bbox_mAP' in finished.metrics if task == 'detection' else 0 < finished.metrics['aAcc'] <= 1


def test_tensorboard_shows_what_the_log_has(segmentation: Run):
    accumulators = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    folder = next(segmentation.folder.glob('*/vis_data'))
    events = accumulators.EventAccumulator(str(folder))
    events.Reload()
    losses = events.Scalars('loss')
    assert [event.step for event in losses] == list(range(1, ITERS + 1))
    assert [event.value for event in losses] == pytest.approx(segmentation.losses())
    expected = [entry['val/loss'] for entry in evaluations(segmentation)]
    assert [event.value for event in events.Scalars('val/loss')] == pytest.approx(expected)
    assert events.Scalars('mIoU')[-1].value / 100 == pytest.approx(segmentation.metrics['mIoU'], abs=1e-4)


@pytest.fixture(scope='session')
def tested_detection(detection: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('tests') / 'detection'
    arguments = ['--data', detection.data, '--work-dir', folder, '--device', 'cpu']
    checkpoint, out = detection.folder / f'epoch_{EPOCHS}.pth', folder / 'new' / 'results.json'
    options = ['--out', out, '--cfg-options', *SMALL_DETECTION]
    done = run('tools/test.py', DETECTION, checkpoint, *arguments, *options)
    assert done.stderr == ''
    assert f'predictions written to {out}' in done.stdout
    return Run(folder, done.stdout, detection.data)


@pytest.fixture(scope='session')
def tested_segmentation(segmentation: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp('tests') / 'segmentation'
    arguments = ['--data', segmentation.data, '--work-dir', folder, '--device', 'cpu']
    checkpoint = segmentation.folder / f'iter_{ITERS}.pth'
    options = ['--out', folder / 'maps', '--cfg-options', *SMALL_SEGMENTATION]
    done = run('tools/test.py', SEGMENTATION, checkpoint, *arguments, *options)
    assert done.stderr == ''
    return Run(folder, done.stdout, segmentation.data)


def test_evaluating_a_detector(detection: Run, tested_detection: Run):
    """The metrics of the run's own last evaluation."""
    header = rows(tested_detection.output)
    assert header['weights'] == str(detection.folder / f'epoch_{EPOCHS}.pth')
    assert header['test'].startswith('8 images, ')
    assert tested_detection.metrics == pytest.approx(detection.metrics, abs=1e-3, nan_ok=True)
    assert (tested_detection.folder / 'predictions.png').is_file()


def test_evaluating_a_segmentor(segmentation: Run, tested_segmentation: Run):
    assert tested_segmentation.metrics == pytest.approx(segmentation.metrics, abs=1e-4)
    assert (tested_segmentation.folder / 'predictions.png').is_file()


def test_saved_label_maps_have_the_reported_score(segmentation: Run, tested_segmentation: Run):
    counts = np.zeros((7, 7), int)
    for truth in sorted((segmentation.data / 'annotations' / 'validation').glob('*.png')):
        labels = cv2.imread(str(truth), cv2.IMREAD_UNCHANGED)
        predicted = cv2.imread(str(tested_segmentation.folder / 'maps' / truth.name), cv2.IMREAD_UNCHANGED)
        assert predicted.shape == labels.shape
        np.add.at(counts, (labels, predicted), 1)
    assert counts[:, 0].sum() == 0, 'written in the numbers of the label maps'
    labelled = counts[1:, 1:]
    hit = np.diag(labelled)
    union = labelled.sum(0) + labelled.sum(1) - hit
    assert (hit[union > 0] / union[union > 0]).mean() == pytest.approx(segmentation.metrics['mIoU'], abs=1e-4)


def test_saved_detections_have_the_reported_score(
    detection: Run, tested_detection: Run, in_process: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    predictions = tested_detection.folder / 'new' / 'results.json'
    entries = json.loads(predictions.read_text())
    assert set(entries[0]) == {'image_id', 'bbox', 'score', 'category_id', 'segmentation'}
    arguments = ['--predictions', predictions, '--data', detection.data, '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    assert set(scored) == {f'{kind}_{name}' for kind in ('bbox', 'segm') for name in coco.SCORES}
    rounded = {name: None if value is None else round(value, 3) for name, value in scored.items()}
    assert {name: rounded[name] for name in tested_detection.metrics} == tested_detection.metrics
    assert 'AR_l@100' in capsys.readouterr().out
    evaluation = json.loads((tmp_path / 'evaluation.json').read_text())
    assert [row['name'] for row in evaluation['classes']['masks']] == list(CLASSES)


def test_a_run_leaves_predictions_with_its_score(detection: Run, in_process: Callable, tmp_path: Path):
    """Scored from the work directory of the training run, boxes and masks each from their own file."""
    arguments = ['--predictions', detection.folder, '--data', detection.data, '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    rounded = {name: None if value is None else round(value, 3) for name, value in scored.items()}
    assert {name: rounded[name] for name in detection.metrics} == detection.metrics


def test_label_maps_that_a_run_leaves_have_its_score(
    segmentation: Run, tested_segmentation: Run, in_process: Callable, tmp_path: Path
):
    kept = segmentation.folder / 'predictions'
    arguments = ['--predictions', kept, '--data', segmentation.data, '--work-dir', tmp_path]
    in_process('test', SEGMENTATION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    rounded = {name: round(value, 4) for name, value in segmentation.metrics.items()}  # 16.67 / 100
    assert {name: round(value, 4) for name, value in scored.items()} == rounded
    for path in kept.glob('*.png'):
        assert (tested_segmentation.folder / 'maps' / path.name).is_file()


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_a_report_of_a_run(task: str, request: pytest.FixtureRequest, in_process: Callable, tmp_path: Path):
    finished: Run = request.getfixturevalue(task)
    in_process('report', finished.folder, '--out', tmp_path / 'page.html')
    text = (tmp_path / 'page.html').read_text()
    content = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    shown = {item['label']: item['value'] for item in content['headlines']}
    name, label = ('segm_mAP', 'mask mAP') if task == 'detection' else ('mIoU', 'mIoU')
    assert shown[label] == pytest.approx(finished.metrics[name], abs=6e-4)
    assert {'loss', 'learning rate', 'metrics'} == set(content['history'])
    assert content['gallery']['total'] == len(content['gallery']['items']) == content['counts']['images']


def test_empty_predictions_score_0(data: Path, in_process: Callable, tmp_path: Path):
    (tmp_path / 'empty.json').write_text('[]')
    arguments = ['--predictions', tmp_path / 'empty.json', '--data', data / 'coco', '--work-dir', tmp_path]
    in_process('test', DETECTION, *arguments)
    scored = json.loads((tmp_path / 'metrics.json').read_text())
    assert scored['bbox_mAP'] == scored['segm_mAP'] == 0
    assert json.loads((tmp_path / 'evaluation.json').read_text())['counts']['images_without_predictions'] == 8


def test_predictions_that_are_not_finite(
    data: Path, in_process: Callable, tmp_path: Path, capfd: pytest.CaptureFixture
):
    entry = dict(image_id=1, category_id=1, score=float('nan'), bbox=[1, 2, 3, 4])
    (tmp_path / 'nan.json').write_text(json.dumps([entry]))
    arguments = ['--predictions', tmp_path / 'nan.json', '--data', data / 'coco', '--work-dir', tmp_path]
    with pytest.raises(SystemExit) as ended:
        in_process('test', DETECTION, *arguments)
    assert ended.value.code == 4
    out, err = capfd.readouterr()
    assert 'entry 0 (image_id 1): score is nan: no AP' in one_line(err)
    assert 'mAP' not in out
    assert not (tmp_path / 'metrics.json').exists()


def copied(finished: Run, folder: Path) -> Path:
    """A run to continue that nothing else uses."""
    shutil.copytree(finished.folder, folder)
    newest = Path((folder / 'last_checkpoint').read_text())
    (folder / 'last_checkpoint').write_text(str(folder / newest.name))
    return folder


def test_resuming_the_newest_checkpoint(detection: Run, tmp_path: Path):
    folder = copied(detection, tmp_path / 'run')
    arguments = ['--data', detection.data, '--work-dir', folder, '--device', 'cpu', '--resume']
    more = ['--cfg-options', *epochs(EPOCHS + 1)]
    refused = one_line(run('tools/train.py', DETECTION, *arguments, *more, status=2).stderr)
    assert f'schedule was {EPOCHS} epochs, and is {EPOCHS + 1} epochs' in refused
    done = run('tools/train.py', DETECTION, *arguments, '--resume-anyway', *more)
    assert 'not exact any longer: schedule was' in done.stdout
    resumed = Run(folder, done.stdout, detection.data)
    before = 4 * EPOCHS
    assert rows(done.stdout)['schedule'] == f'{EPOCHS + 1} epochs of 4 iterations, resumed after {before}'
    assert f'resumed epoch: {EPOCHS}, iter: {before}' in resumed.log()
    assert f'epoch {EPOCHS + 1}/{EPOCHS + 1}  4/4' in done.stdout
    assert f'epoch {EPOCHS}/' not in done.stdout
    meta = torch.load(folder / f'epoch_{EPOCHS + 1}.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (EPOCHS + 1, before + 4)
    assert len(resumed.losses()) == 4
    assert max(resumed.losses()) < detection.losses()[0], 'it goes on where it was'
    assert f'evaluation after {before + 4} iterations' in done.stdout


@pytest.mark.slow
def test_resuming_a_named_checkpoint_in_bfloat16(segmentation: Run, tmp_path: Path):
    folder, more = tmp_path / 'run', ITERS + ITERS // 2
    checkpoint = segmentation.folder / f'iter_{ITERS}.pth'
    arguments = ['--data', segmentation.data, '--work-dir', folder, '--device', 'cpu', '--amp', 'bf16']
    options = ['--resume', checkpoint, '--resume-anyway', '--cfg-options', *iterations(more)]
    done = run('tools/train.py', SEGMENTATION, *arguments, *options)
    resumed = Run(folder, done.stdout, segmentation.data)
    header = rows(done.stdout)
    assert header['schedule'] == f'{more} iterations, resumed after {ITERS}'
    assert header['precision'] == 'bf16 autocast'
    assert f'iterations {ITERS + 1}-{more}  {more - ITERS}/{more - ITERS}  loss ' in done.stdout
    assert len(resumed.losses()) == more - ITERS
    assert_left_behind(resumed)
    content = torch.load(folder / f'iter_{more}.pth', weights_only=True)
    assert content['meta']['iter'] == more
    assert {value.dtype for value in content['state_dict'].values()} <= {torch.float32, torch.int64}
    assert 0 < resumed.metrics['mIoU'] <= 1
