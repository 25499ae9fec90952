"""A disk that another process fills, and a best checkpoint that is replaced."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.faults.kill import KILLED
from tests.faults.plan import CHECKPOINT
from tests.faults.runs import Site, Training, assert_fine, differences
from tests.faults.server import Server

pytestmark = pytest.mark.slow
# an evaluation after 4, 8 and 12 iterations, each of which may find a better model
BEST = (
    'train_cfg.val_interval=1',
    'train_cfg.val_begin=1',
    'default_hooks.checkpoint.save_best=coco/bbox_mAP',
    'default_hooks.checkpoint.interval=4',
)
SECOND_BEST = 3  # checkpoints: the first regular one, the best one, the second regular one, the new best one


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Server() as server:
        yield Site(server, tmp_path_factory.mktemp('disk'))


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A folder on a disk of its own."""
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('only root can mount a small disk')
    try:
        yield
    finally:
        subprocess.run(['umount', '--lazy', str(folder)], check=True)


def fill(run: Training) -> Path:
    """Fill the disk of a run once it has a checkpoint."""
    for _ in range(600):
        if list(run.work_dir.glob('iter_*.pth')):
            break
        time.sleep(0.05)
    filler = run.work_dir / 'filler'
    with filler.open('wb', buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return filler
    raise AssertionError('the disk has no end')


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_a_disk_that_another_process_fills(site: Site, task: str):
    reference = site.new(task).complete()
    size = 6 * (reference.work_dir / 'iter_12.pth').stat().st_size
    run = site.new(task)
    with small_disk(run.work_dir, size):
        process = run.start(slow=0.2)
        filler = fill(run)
        ended = process.wait()
        assert_fine(ended, 74)
        assert ended.err.count('\n') == 1
        assert 'the disk is full' in ended.err
        assert 'bytes wanted' in ended.err
        assert run.loadable() > 0
        assert not list(run.work_dir.glob('*.partial'))
        filler.unlink()
        run.complete('--resume')
        assert differences(run, reference) == []


@pytest.mark.parametrize('point', ['write', 'half', 'fsync', 'rename', 'renamed', 'unlink', 'unlinked'])
def test_a_kill_while_the_best_checkpoint_is_replaced(site: Site, point: str):
    reference = site.new('detection', options=BEST).complete()
    best = list(reference.work_dir.glob('best_*.pth'))
    assert len(best) == 1
    steps = [
        name
        for _, kind_point, kind, name in reference.points()
        if (kind_point, kind) == ('renamed', CHECKPOINT)
    ]
    number = 1 + next(i for i, name in enumerate(steps) if name.startswith('best_'))
    run = site.new('detection', options=BEST)
    assert_fine(run.start(point=(point, CHECKPOINT, number)).wait(), KILLED)
    for path in run.work_dir.glob('best_*.pth'):
        torch.load(path, weights_only=False)
    run.complete('--resume', 'auto')
    assert [path.name for path in run.work_dir.glob('best_*.pth')] == [path.name for path in best]
    assert differences(run, reference) == []
