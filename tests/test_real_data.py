"""The recipes on real data, as a user runs them. Long: ``make test-all`` runs these."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def majority_miou(labels: Path, classes: int) -> float:
    """mIoU of predicting the most frequent class everywhere; label 0 is unlabelled."""
    counts = np.zeros(classes + 1, np.int64)
    for path in labels.glob('*.png'):
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=classes + 1)
    return counts[1:].max() / counts[1:].sum() / np.count_nonzero(counts[1:])


def test_nuclei(shared: Callable[[str], Path], tmp_path: Path):
    metrics = train('configs/demo/mask_rcnn_swin_nano.py', shared('nuclei'), tmp_path)
    assert metrics['segm_mAP_50'] >= 0.65, metrics


def test_dubai(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('dubai')
    metrics = train('configs/demo/upernet_swin_nano.py', data, tmp_path)
    assert metrics['mIoU'] >= majority_miou(data / 'annotations' / 'validation', 5) + 0.25, metrics


def test_full_size_mask_rcnn(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('coco-mini')
    metrics = train('configs/mask_rcnn_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_EPOCH_BATCHES)
    assert set(metrics) >= {'bbox_mAP', 'segm_mAP'}


def test_full_size_upernet(shared: Callable[[str], Path], tmp_path: Path):
    data = shared('ade20k-sample')
    metrics = train('configs/upernet_swin_t.py', data, tmp_path, NO_DOWNLOAD, *TWO_ITERATIONS)
    assert 0 <= metrics['mIoU'] <= 1
