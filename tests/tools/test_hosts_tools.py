"""mmdet's and mmseg's own tools train our models on mmcv-lite, with one line in the config."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swin_dense.demo import shapes
from swin_dense.demo.shapes import CLASSES
from tests.recipes import CONFIGS

LINE = "custom_imports = dict(imports='swin_dense.hosts.prepared')\n"
DETECTION = (
    LINE
    + """
_base_ = {config!r}
data_root = {root!r}
metainfo = dict(classes={classes!r})
_loader = dict(batch_size=1, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    ),
    **_loader,
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
    ),
    **_loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
param_scheduler = []
"""
)


@pytest.mark.slow
def test_mmdets_train(tmp_path: Path):
    shapes.write(tmp_path / 'data', train=2, val=1)
    config = tmp_path / 'config.py'
    recipe = str(CONFIGS / 'demo' / 'mask_rcnn_swin_nano.py')
    text = DETECTION.format(config=recipe, root=str(tmp_path / 'data' / 'coco'), classes=CLASSES)
    config.write_text(text)
    tool = Path(importlib.import_module('mmdet').__file__).parent / '.mim' / 'tools' / 'train.py'
    command = [sys.executable, str(tool), str(config), '--work-dir', str(tmp_path / 'run')]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ))
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    assert 'coco/segm_mAP' in done.stdout + done.stderr
