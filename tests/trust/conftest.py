"""A small segmentor and a small detector as checkpoints, and canaries to put into their configs."""

import copy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.tools.running import in_process
from tests.trust.canaries import Canaries, served

BACKBONE = dict(
    type='swin_dense.SwinTransformer',
    embed_dims=8,
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 1, 1),
    window_size=2,
)
SEGMENTATION = dict(
    default_scope='mmseg',
    model=dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True),
        pretrained=None,
        backbone=BACKBONE,
        decode_head=dict(
            type='FCNHead',
            in_channels=64,
            in_index=3,
            channels=4,
            num_convs=1,
            num_classes=3,
            norm_cfg=dict(type='BN', requires_grad=True),
            act_cfg=dict(type='ReLU'),
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    ),
    test_dataloader=dict(
        dataset=dict(
            type='BaseSegDataset',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[
                dict(type='LoadImageFromFile', backend_args=None),
                dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='LoadAnnotations'),
                dict(type='PackSegInputs'),
            ],
        )
    ),
)
DETECTION = dict(
    default_scope='mmdet',
    model=dict(
        type='RetinaNet',
        data_preprocessor=dict(type='DetDataPreprocessor', mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True),
        backbone=BACKBONE,
        neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1, num_outs=5),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1,
                strides=[8, 16, 32, 64, 128],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        test_cfg=dict(nms_pre=20, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
    ),
    test_dataloader=dict(
        dataset=dict(
            type='CocoDataset',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[
                dict(type='LoadImageFromFile', backend_args=None),
                dict(type='Resize', scale=(64, 64), keep_ratio=True),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
            ],
        )
    ),
)  # fmt: skip
CONFIGS = {'segmentation': SEGMENTATION, 'detection': DETECTION}
Write = Callable[[str, Callable[[Config], None]], Path]


def config_of(task: str) -> Config:
    """A config of its own to change."""
    return Config(copy.deepcopy(CONFIGS[task]))


@pytest.fixture(scope='session')
def weights() -> dict[str, dict]:
    found = {}
    for task, config in CONFIGS.items():
        with DefaultScope.overwrite_default_scope(config['default_scope']):
            found[task] = MODELS.build(copy.deepcopy(config['model'])).state_dict()
    return found


@pytest.fixture
def checkpoint(
    weights: dict[str, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[Config], None]], Path]:
    """``checkpoint(task, change)`` saves a model with a changed config, as mmengine saves it."""
    # prettifying takes longer than all the rest
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **style: (text, True))

    def write(task: str, change: Callable[[Config], None]) -> Path:
        config = config_of(task)
        change(config)
        meta = dict(cfg=config.pretty_text, dataset_meta=dict(classes=('a', 'b', 'c')))
        torch.save(dict(meta=meta, state_dict=weights[task]), tmp_path / 'received.pth')
        return tmp_path / 'received.pth'

    return write


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canaries]:
    """Fresh ones; their package is on the path, and the downloads' folder is empty."""
    folder = tmp_path / 'canaries'
    folder.mkdir()
    made = Canaries(folder)
    made.write()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    with served(made):
        yield made
    for name in [name for name in sys.modules if name.partition('.')[0] == 'stranger']:
        del sys.modules[name]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable:
    """``tool('predict', ...)`` does what tools/predict.py does."""
    return in_process(monkeypatch, capfd)
