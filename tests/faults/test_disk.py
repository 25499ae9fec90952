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
# an evaluation every two iterations, and a learning rate at which most of them find a better model
BEST = (
    'train_cfg.val_interval=2',
    'train_cfg.val_begin=1',
    'default_hooks.checkpoint.save_best=aAcc',
    'optim_wrapper.optimizer.lr=0.02',
)


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


@pytest.fixture(scope='module')
def improving(site: Site) -> Training:
    """An uninterrupted run that replaced its best checkpoint."""
    run = site.new('segmentation', options=BEST).complete()
    assert len({name for _, point, _, name in run.points() if point == 'renamed' and is_best(name)}) > 1
    return run


def is_best(name: str) -> bool:
    return name.startswith('best_')


@pytest.mark.parametrize('point', ['write', 'half', 'fsync', 'rename', 'renamed', 'unlink', 'unlinked'])
def test_a_kill_while_the_best_checkpoint_is_replaced(site: Site, improving: Training, point: str):
    reached = [name for _, kind, file, name in improving.points() if (kind, file) == (point, CHECKPOINT)]
    best = [number for number, name in enumerate(reached, 1) if is_best(name)]
    replaced = best[0] if point.startswith('unlink') else best[1]
    run = site.new('segmentation', options=BEST)
    assert_fine(run.start(point=(point, CHECKPOINT, replaced)).wait(), KILLED)
    left = list(run.work_dir.glob('best_*.pth'))
    assert left
    for path in left:
        torch.load(path, weights_only=False)
    run.complete('--resume')
    names = [sorted(path.name for path in one.work_dir.glob('best_*.pth')) for one in (run, improving)]
    assert names[0] == names[1]
    assert len(names[1]) == 1
    assert differences(run, improving) == []
