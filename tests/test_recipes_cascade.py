"""Cascade Mask R-CNN: mmdet's model and schedule, and the box heads that Swin's authors published."""

import copy
import re

import pytest
import torch
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from swin_dense.engine.prepare import set_precision
from tests.recipes import OWN_KEYS, built, differences, hosts, ours, parameter_groups
from tests.test_plugging_in import batch, train_once, without_gradient

MODEL = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
SCHEDULE = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py'
# size: drop path rate of the authors' config, and parameters in millions as published
SIZES = {'t': (0.2, 86), 's': (0.2, 107), 'b': (0.3, 145)}
# from configs/swin/cascade_mask_rcnn_swin_*_giou_4conv1f_adamw_3x_coco.py of
# SwinTransformer/Swin-Transformer-Object-Detection, the same for all three sizes
HEAD = {
    'type': 'ConvFCBBoxHead',
    'num_shared_convs': 4,
    'num_shared_fcs': 1,
    'in_channels': 256,
    'conv_out_channels': 256,
    'fc_out_channels': 1024,
    'roi_feat_size': 7,
    'num_classes': 80,
    'reg_class_agnostic': False,
    'reg_decoded_bbox': True,
    'norm_cfg': {'type': 'SyncBN', 'requires_grad': True},
    'loss_cls': {'type': 'CrossEntropyLoss', 'use_sigmoid': False, 'loss_weight': 1.0},
    'loss_bbox': {'type': 'GIoULoss', 'loss_weight': 10.0},
}
STDS = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]

every_size = pytest.mark.parametrize('size', SIZES)


def cascade(size: str) -> Config:
    return ours(f'cascade_mask_rcnn_swin_{size}')


@every_size
def test_the_model_is_mmdets_but_for_backbone_neck_and_box_heads(size: str):
    mine, theirs = cascade(size).model.to_dict(), hosts(MODEL).model.to_dict()
    differing = {re.sub(r'\[\d\]', '[]', path) for path in differences(mine, theirs)}
    differing = {path for path in differing if not path.startswith('backbone.')}
    differing -= {'neck.type', 'neck.in_channels[]'}
    assert mine['neck']['type'] == 'swin_dense.FPN'
    heads = {'type', 'num_shared_convs', 'num_shared_fcs', 'conv_out_channels', 'reg_class_agnostic'}
    heads |= {'reg_decoded_bbox', 'norm_cfg', 'loss_bbox.type', 'loss_bbox.beta', 'loss_bbox.loss_weight'}
    assert differing == {f'roi_head.bbox_head[].{name}' for name in heads}


@every_size
def test_the_box_heads_are_the_authors(size: str):
    heads = cascade(size).model.roi_head.to_dict()['bbox_head']
    coder = {'type': 'DeltaXYWHBBoxCoder', 'target_means': [0.0] * 4}
    assert heads == [{**HEAD, 'bbox_coder': {**coder, 'target_stds': stds}} for stds in STDS]


@every_size
def test_all_but_the_model_is_the_3x_recipe(size: str):
    mine, theirs = cascade(size).to_dict(), hosts(SCHEDULE).to_dict()
    differing = {path.split('.')[0] for path in differences(mine, theirs)}
    assert differing <= {'model', *OWN_KEYS}
    assert mine['auto_scale_lr'] == {'enable': True, 'base_batch_size': 16}
    assert mine['train_cfg']['max_epochs'] == 36
    assert mine['param_scheduler'][1]['milestones'] == [27, 33]


@every_size
def test_the_backbone_is_the_bases_with_the_authors_drop_path(size: str):
    config = cascade(size)
    base = {key: value for key, value in config.backbone.to_dict().items() if key != '_delete_'}
    assert config.model.backbone.to_dict() == base
    assert config.model.backbone.drop_path_rate == SIZES[size][0]
    assert config.model.neck.in_channels == config.channels


@every_size
def test_the_parameters_are_as_many_as_published(size: str):
    assert round(sum(p.numel() for p in built(cascade(size)).parameters()) / 1e6) == SIZES[size][1]


def test_weight_decay_spares_norms_and_bias_tables_only_in_the_backbone():
    config = cascade('t')
    groups = parameter_groups(built(config), config)
    assert groups.pop('optimizer') == {'type': torch.optim.AdamW}
    assert {settings['lr'] for settings in groups.values()} == {1e-4}
    spared = {name for name, settings in groups.items() if settings['weight_decay'] == 0}
    assert {settings['weight_decay'] for name, settings in groups.items() if name not in spared} == {0.05}
    # mmdet calls the batch norms of the heads bn, which the authors' rule does not name either
    assert all(name.startswith('backbone.') for name in spared)
    assert sum(name.endswith('bias_table') for name in spared) == 12


def test_mixed_precision_is_the_command_lines():
    config = copy.deepcopy(cascade('t'))
    assert config.optim_wrapper.type == 'OptimWrapper'
    set_precision(config, 'fp16', 'cuda')
    assert config.optim_wrapper.type == 'AmpOptimWrapper'


@pytest.mark.slow
def test_a_loss_reaches_every_parameter_and_predictions_come_out():
    config = cascade('t')
    model = copy.deepcopy(config.model)
    model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    model.train_cfg.rpn_proposal.max_per_img = 64
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=8)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = revert_sync_batchnorm(MODELS.build(model))
        train_once(detector, 'mmdet')
        assert without_gradient(detector) == set()
        with torch.no_grad():
            results = detector.eval().test_step(batch('mmdet'))
    assert all(0 < len(result.pred_instances) <= 8 for result in results)
