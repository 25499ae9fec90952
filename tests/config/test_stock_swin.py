"""The hosts' Swin configs with ``--backbone ours``: the same numbers from the same weights, for many heads.

In float64: random heads amplify the last digits of float32 beyond what a test can tell from an error.
"""

import copy
import warnings
from collections.abc import Iterator

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

from swin_dense import hosts
from swin_dense.checkpoints.load import load_weights
from swin_dense.config import with_backbone
from swin_dense.hosts.configs import stock_config

hosts.prepare()
SIDE = 128
CONFIGS = [
    'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
    'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
    'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco-panoptic.py',
    'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py',
    'mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py',
    'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py',
    'mmdet::rtmdet/rtmdet_l_swin_b_p6_4xb16-100e_coco.py',  # five stages
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    'mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py',
    'mmseg::knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py',
    'mmseg::maskformer/maskformer_swin-t_upernet_8xb2-160k_ade20k-512x512.py',
]


def built(config: Config) -> nn.Module:
    init_default_scope(config.default_scope)
    config = copy.deepcopy(config)
    config.model.backbone.init_cfg = None
    config.model.pop('pretrained', None)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        model = revert_sync_batchnorm(MODELS.build(config.model))
    model.eval()
    return model


def tensors(node: object) -> Iterator[Tensor]:
    """All tensors of what a model returns."""
    if isinstance(node, Tensor):
        yield node
    elif isinstance(node, dict):
        for key in sorted(node):
            yield from tensors(node[key])
    elif isinstance(node, (list, tuple)):
        for each in node:
            yield from tensors(each)
    elif hasattr(node, 'all_items'):
        yield from tensors(dict(node.all_items()))


def answers(model: nn.Module, image: Tensor) -> object:
    """What the heads make of an image, before it is decoded."""
    meta = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (SIDE, SIDE))
    meta['scale_factor'] = (1.0, 1.0)
    if hasattr(model, 'encode_decode'):
        return model.encode_decode(image, [meta])
    return model(image, [DetDataSample(metainfo=meta)], mode='tensor')


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS, ids=lambda name: name.rpartition('/')[2].split('-p')[0])
def test_the_same_outputs_from_the_same_weights(name: str):
    config = stock_config(name)
    theirs, ours = built(config), built(with_backbone(config, 'ours'))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # fresh models have equal norms, biases of 0, and memory that nobody has set
        for parameter in theirs.parameters():
            parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-2, 2)
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    report = load_weights(ours, theirs.state_dict(), name, adapt=False, partial=False)
    assert report.filled == 1.0, report.lines()
    image = torch.randn(1, 3, SIDE, SIDE, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        results = [list(tensors(answers(model.double(), image))) for model in (ours, theirs)]
    assert len(results[0]) == len(results[1]) > 0
    for mine, reference in zip(*results, strict=True):
        assert mine.dtype == reference.dtype
        scale = float(reference.abs().max()) if reference.numel() else 0.0
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5 * scale)
