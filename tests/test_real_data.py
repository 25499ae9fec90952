"""The recipes on real data, as a user runs them. Long: ``make test-all`` runs these."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.report import chromium
from tests.tools.runs import estimate_errors, measured, rows

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NO_DOWNLOAD = 'model.backbone.init_cfg=None'
TWO_EPOCH_BATCHES = ('train_cfg.max_epochs=1', 'train_dataloader.num_batch_per_epoch=2')
TWO_ITERATIONS = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2')


class Run(NamedTuple):
    """What a run left in its work directory, what it took, and what ``--dry-run`` said before it."""

    metrics: dict[str, float]
    work_dir: Path
    seconds: float
    peak: float  # GB of the process without its loaders
    estimate: dict[str, str]


def train(config: str, data: Path, work_dir: Path, *options: str) -> tuple[dict[str, float], float, float]:
    """Run tools/train.py: the metrics of its last evaluation, seconds and peak GB."""
    _, seconds, peak = measured(train_command(config, data, work_dir, *options))
    assert (work_dir / 'predictions.png').is_file()
    return json.loads((work_dir / 'metrics.json').read_text()), seconds, peak


def train_command(config: str, data: Path, work_dir: Path, *options: str) -> list[str]:
    command = [sys.executable, 'tools/train.py', config, '--data', str(data), '--work-dir', str(work_dir)]
    return [*command, '--seed', '0', *(('--cfg-options', *options) if options else ())]


def train_after_dry_run(config: str, data: Path, work_dir: Path) -> Run:
    out, _, _ = measured([*train_command(config, data, work_dir), '--dry-run'])
    metrics, seconds, peak = train(config, data, work_dir)
    return Run(metrics, work_dir, seconds, peak, rows(out))


@pytest.fixture(scope='module')
def nuclei(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    work_dir = tmp_path_factory.mktemp('runs') / 'nuclei'
    return train_after_dry_run('configs/demo/mask_rcnn_swin_nano.py', shared('nuclei'), work_dir)


@pytest.fixture(scope='module')
def dubai(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    work_dir = tmp_path_factory.mktemp('runs') / 'dubai'
    return train_after_dry_run('configs/demo/upernet_swin_nano.py', shared('dubai'), work_dir)


def majority_miou(labels: Path, classes: int) -> float:
    """mIoU of predicting the most frequent class everywhere; label 0 is unlabelled."""
    counts = np.zeros(classes + 1, np.int64)
    for path in labels.glob('*.png'):
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=classes + 1)
    return counts[1:].max() / counts[1:].sum() / np.count_nonzero(counts[1:])


def test_nuclei(nuclei: Run):
    assert nuclei.metrics['segm_mAP_50'] >= 0.65, nuclei.metrics


def test_dubai(dubai: Run, shared: Callable[[str], Path]):
    labels = shared('dubai') / 'annotations' / 'validation'
    assert dubai.metrics['mIoU'] >= majority_miou(labels, 5) + 0.25, dubai.metrics


@pytest.mark.parametrize('name', ['nuclei', 'dubai'])
def test_the_dry_run_was_right_within_30_percent(name: str, request: pytest.FixtureRequest):
    done: Run = request.getfixturevalue(name)
    assert max(map(abs, estimate_errors(done.estimate, done.seconds, done.peak))) < 0.3


@chromium.needs_chromium
@pytest.mark.parametrize(
    ('name', 'a_class', 'images'), [('nuclei', 'brightfield_nucleus', 48), ('dubai', 'class_5', 16)]
)
def test_report(name: str, a_class: str, images: int, request: pytest.FixtureRequest, tmp_path: Path):
    """As ``tools/report.py WORK_DIR`` writes it, on a desk and on a phone."""
    done: Run = request.getfixturevalue(name)
    metrics, work_dir = done.metrics, done.work_dir
    page = tmp_path / 'report.html'
    command = [sys.executable, 'tools/report.py', str(work_dir), '--out', str(page)]
    measured(command)
    with chromium.chromium(tmp_path / 'profile') as driver:
        for width in (1280, 390):
            chromium.show(driver, page, width)
            assert chromium.texts(driver, 'h1') == [work_dir.name]
            assert len(chromium.find(driver, '#training-charts svg')) >= 2  # loss and learning rate
            assert a_class in chromium.texts(driver, '#tables td:first-child')
            main = metrics['segm_mAP'] if name == 'nuclei' else metrics['mIoU']
            assert f'{main:.3f}' in chromium.texts(driver, '.figure b')
            everything = chromium.names(driver)
            assert len(everything) == images
            chromium.click(driver, '[data-value=worst]')
            assert set(chromium.names(driver)) < set(everything)
            assert chromium.broken_images(driver) == 0
            assert chromium.too_wide(driver) == []
        assert driver.get_log('browser') == []


def test_full_size_mask_rcnn(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('coco-mini')
    metrics, _, _ = train('configs/mask_rcnn_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_EPOCH_BATCHES)
    assert set(metrics) >= {'bbox_mAP', 'segm_mAP'}


def test_full_size_upernet(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('ade20k-sample')
    metrics, _, _ = train('configs/upernet_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_ITERATIONS)
    assert 0 <= metrics['mIoU'] <= 1
