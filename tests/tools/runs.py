"""The tools in processes of their own, as a person runs them, and what they leave."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from swin_dense.engine import dry_run

ROOT = Path(__file__).parents[2]
DETECTION = 'configs/demo/mask_rcnn_swin_nano.py'
SEGMENTATION = 'configs/demo/upernet_swin_nano.py'
EPOCHS, ITERS = 10, 8  # of the runs that everything here shares
NO_WORKERS = [f'{split}_dataloader.num_workers=0' for split in ('train', 'val', 'test')]
SMALL_DETECTION = [
    'model.test_cfg.rcnn.max_per_img=100',  # as many as COCO's own scores count
    *NO_WORKERS,
    'train_dataloader.dataset.pipeline.2.scale=(128,128)',
    'train_dataloader.dataset.pipeline.2.ratio_range=(1.0,1.0)',
    'train_dataloader.dataset.pipeline.3.crop_size=(128,128)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(128,128)' for split in ('val', 'test')),
    'optim_wrapper.optimizer.lr=2e-3',
    'param_scheduler.0.end=5',
    'default_hooks.logger.interval=1',
]
SMALL_SEGMENTATION = [
    *NO_WORKERS,
    'model.data_preprocessor.size=(128,128)',
    'train_dataloader.dataset.pipeline.2.scale=(512,128)',
    'train_dataloader.dataset.pipeline.3.crop_size=(128,128)',
    *(f'{split}_dataloader.dataset.pipeline.1.scale=(512,128)' for split in ('val', 'test')),
    'param_scheduler.0.end=2',
    'default_hooks.logger.interval=1',
]


def epochs(count: int) -> list[str]:
    return [*SMALL_DETECTION, f'train_cfg.max_epochs={count}', f'train_cfg.val_interval={count}']


def iterations(count: int) -> list[str]:
    interval = [
        f'{key}={ITERS // 2}' for key in ('train_cfg.val_interval', 'default_hooks.checkpoint.interval')
    ]
    return [*SMALL_SEGMENTATION, f'train_cfg.max_iters={count}', *interval]


def run(*arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    """Run Python with these arguments from the project's root."""
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'COLUMNS': '200'}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == status, f'{done.stdout}\n{done.stderr}'
    return done


def measured(command: list[str]) -> tuple[str, float, float]:
    """What a command prints, its wall-clock seconds, and its peak GB where the system tells."""
    start, peak = time.monotonic(), 0.0
    with (
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
        ThreadPoolExecutor(1) as reader,
    ):
        out = reader.submit(process.stdout.read)
        while process.poll() is None:
            peak = max(peak, dry_run.peak_of(process.pid) / 2**30)
            time.sleep(0.2)
    assert process.returncode == 0, out.result()[-2000:]
    return out.result(), time.monotonic() - start, peak


def clock_seconds(text: str) -> int:
    """Of ``'1:02:03'`` or ``'2:03'``."""
    return sum(int(part) * 60**power for power, part in enumerate(reversed(text.split(':'))))


def estimate_errors(estimate: dict[str, str], seconds: float, peak: float) -> tuple[float, float]:
    """How far a dry run's table was from the run's time and peak GB (0: the system does not tell): shares."""
    time_error = clock_seconds(estimate['total time']) / seconds - 1
    memory = float(estimate['peak memory'].split()[0])
    print(f'{estimate["total time"]} and {memory} GB estimated, {seconds:.0f} s and {peak:.2f} GB taken')
    return time_error, memory / peak - 1 if peak else 0.0


@dataclass
class Run:
    """A finished training run."""

    folder: Path
    output: str
    data: Path

    @property
    def metrics(self) -> dict[str, float | None]:
        return json.loads((self.folder / 'metrics.json').read_text())

    def log(self) -> str:
        return max(self.folder.glob('*/*.log')).read_text()

    def losses(self) -> list[float]:
        lines = max(self.folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
        return [entry['loss'] for entry in map(json.loads, lines) if 'loss' in entry]


def rows(output: str) -> dict[str, str]:
    """The header's names and values."""
    return dict(re.findall(r'^(\S+(?: \S+)?) {2,}(.*\S) *$', output, re.MULTILINE))


def assert_left_behind(finished: Run) -> None:
    picture = cv2.imread(str(finished.folder / 'predictions.png'))
    assert min(picture.shape[:2]) > 200
    assert 'mmengine - INFO' in finished.log()
    assert '\x1b' not in finished.output, 'no terminal, no colours'
    assert 'INFO' not in finished.output
    losses = finished.losses()
    assert losses
    assert np.isfinite(losses).all()


def one_line(err: str) -> str:
    assert err.startswith('error: '), err
    assert err.count('\n') == 1, err
    assert 'Traceback' not in err
    return err
