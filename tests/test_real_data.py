"""The recipes on real data, as a user runs them. Long: ``make test-all`` runs these."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.report import chromium

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
NO_DOWNLOAD = 'model.backbone.init_cfg=None'
TWO_EPOCH_BATCHES = ('train_cfg.max_epochs=1', 'train_dataloader.num_batch_per_epoch=2')
TWO_ITERATIONS = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2')


def train(config: str, data: Path, work_dir: Path, *options: str) -> dict[str, float]:
    """Run tools/train.py; returns the metrics of its last evaluation."""
    command = [sys.executable, 'tools/train.py', config, '--data', str(data), '--work-dir', str(work_dir)]
    if options:
        command += ['--cfg-options', *options]
    done = subprocess.run([*command, '--seed', '0'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (work_dir / 'predictions.png').is_file()
    return json.loads((work_dir / 'metrics.json').read_text())


Run = tuple[dict[str, float], Path]


@pytest.fixture(scope='module')
def nuclei(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Metrics and work directory."""
    work_dir = tmp_path_factory.mktemp('runs') / 'nuclei'
    return train('configs/demo/mask_rcnn_swin_nano.py', shared('nuclei'), work_dir), work_dir


@pytest.fixture(scope='module')
def dubai(shared: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Metrics and work directory."""
    work_dir = tmp_path_factory.mktemp('runs') / 'dubai'
    return train('configs/demo/upernet_swin_nano.py', shared('dubai'), work_dir), work_dir


def majority_miou(labels: Path, classes: int) -> float:
    """mIoU of predicting the most frequent class everywhere; label 0 is unlabelled."""
    counts = np.zeros(classes + 1, np.int64)
    for path in labels.glob('*.png'):
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=classes + 1)
    return counts[1:].max() / counts[1:].sum() / np.count_nonzero(counts[1:])


def test_nuclei(nuclei: Run):
    metrics, _ = nuclei
    assert metrics['segm_mAP_50'] >= 0.65, metrics


def test_dubai(dubai: Run, shared: Callable[[str], Path]):
    metrics, _ = dubai
    labels = shared('dubai') / 'annotations' / 'validation'
    assert metrics['mIoU'] >= majority_miou(labels, 5) + 0.25, metrics


@chromium.needs_chromium
@pytest.mark.parametrize(
    ('name', 'a_class', 'images'), [('nuclei', 'brightfield_nucleus', 48), ('dubai', 'class_5', 16)]
)
def test_report(name: str, a_class: str, images: int, request: pytest.FixtureRequest, tmp_path: Path):
    """As ``tools/report.py WORK_DIR`` writes it, on a desk and on a phone."""
    metrics, work_dir = request.getfixturevalue(name)
    page = tmp_path / 'report.html'
    command = [sys.executable, 'tools/report.py', str(work_dir), '--out', str(page)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
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
    metrics = train('configs/mask_rcnn_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_EPOCH_BATCHES)
    assert set(metrics) >= {'bbox_mAP', 'segm_mAP'}


def test_full_size_upernet(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('ade20k-sample')
    metrics = train('configs/upernet_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_ITERATIONS)
    assert 0 <= metrics['mIoU'] <= 1
