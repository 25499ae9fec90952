"""Every command of the README is run, in its order, on small data: what it says is what works."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swin_dense.demo import shapes
from swin_dense.models import SwinTransformer

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
COMMANDS = [
    line.strip()
    for block in re.findall(r'```bash\n(.*?)```', README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
# the recipes as they are, but for fewer and smaller images, fewer blocks and random weights
SMALLER = 'model.backbone.init_cfg=None model.backbone.depths=1,1,1,1 train_dataloader.num_workers=0 '
DETECTION = SMALLER + (
    'train_cfg.max_epochs=1 train_dataloader.num_batch_per_epoch=2 val_dataloader.num_workers=0 '
    'train_dataloader.dataset.pipeline.2.scale=(160,160) val_dataloader.dataset.pipeline.1.scale=(160,160) '
    'test_dataloader.dataset.pipeline.1.scale=(160,160) test_dataloader.num_workers=0 '
    'model.test_cfg.rcnn.score_thr=0.0'
)
SEGMENTATION = SMALLER + (
    'train_cfg.max_iters=1 train_cfg.val_interval=1 default_hooks.checkpoint.interval=1 '
    'train_dataloader.batch_size=2 '
    'val_dataloader.num_workers=0 test_dataloader.num_workers=0 model.decode_head.channels=32 '
    'val_dataloader.dataset.pipeline.1.scale=(256,64) test_dataloader.dataset.pipeline.1.scale=(256,64)'
)
BANDS = (
    'train_cfg.max_iters=1 train_cfg.val_interval=1 train_dataloader.num_workers=0 '
    'train_dataloader.batch_size=2 val_dataloader.num_workers=0 test_dataloader.num_workers=0'
)
# what the training commands leave after their full schedules
LEFT = {
    'work_dirs/mask_rcnn_swin_t/epoch_12.pth': 'epoch_1.pth',
    'work_dirs/upernet_swin_t/iter_160000.pth': 'iter_1.pth',
}


@pytest.fixture(scope='module')
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a clone, with a small data set where the README's data lies."""
    folder = tmp_path_factory.mktemp('checkout')
    for name in ('configs', 'tools', 'swin_dense', 'setup.cfg', 'pyproject.toml', 'README.md'):
        (folder / name).symlink_to(ROOT / name)
    shapes.write(folder / 'data', train=12, val=3)  # two batches of two processes and some to spare
    weights = SwinTransformer(out_indices=(3,)).state_dict()
    torch.save({'model': weights}, folder / 'swin_tiny_patch4_window7_224.pth')
    return folder


def as_run(command: str, folder: Path) -> list[str]:
    """The command with this interpreter, and smaller where it trains or evaluates a full recipe."""
    words = shlex.split(command)
    if words[0] == 'torchrun':
        words[0:1] = [sys.executable, '-m', 'torch.distributed.run', '--standalone']
    elif words[0] == 'python':
        words[0] = sys.executable
    elif words[0] == 'pip':
        words = [sys.executable, '-m', *words, '--dry-run', '--no-build-isolation']
    runs = {'tools/train.py', 'tools/test.py'} & set(words)
    detectors = {'configs/mask_rcnn_swin_t.py', 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'}
    if runs and detectors & set(words) and '--predictions' not in words:
        words += ['--cfg-options', *DETECTION.split()]
    if runs and 'configs/upernet_swin_t.py' in words:
        words += ['--cfg-options', *SEGMENTATION.split()]
    if 'swin_dense.demo.bands' in words:
        words += ['--train', '4', '--val', '2']
    if 'configs/demo/upernet_swin_nano_4band.py' in words:
        words += ['--cfg-options', *BANDS.split()]
    for path, source in LEFT.items():
        if path in words:
            shutil.copyfile((folder / path).with_name(source), folder / path)
    return words


def test_the_readme_has_commands():
    assert len(COMMANDS) >= 10
    assert COMMANDS[:2] == ['make demo', 'make test']


@pytest.mark.parametrize('target', [c.split()[1] for c in COMMANDS if c.startswith('make ')])
def test_make_targets_exist(target: str):
    done = subprocess.run(['make', '-n', target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'python' in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize('command', [c for c in COMMANDS if not c.startswith('make ')])
def test_command(command: str, checkout: Path):
    done = subprocess.run(as_run(command, checkout), cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.slow
def test_make_demo(tmp_path: Path):
    """The first command, in the environment that make made."""
    venv = Path(sys.prefix)
    if not (venv / '.ready').is_file():
        pytest.skip('not in an environment that make set up')
    done = subprocess.run(['make', 'demo', f'VENV={venv}'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ('metrics.json', 'detection.png', 'segmentation.png'):
        assert (ROOT / 'work_dirs' / 'demo' / name).is_file()


def test_internal_links_and_files_exist():
    for path in re.findall(r'`((?:configs|tools|tests|swin_dense)/[\w/.]+)`', README):
        assert (ROOT / path).exists(), path
