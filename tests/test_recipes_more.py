"""Recipes beyond Mask R-CNN and UPerNet, held against the hosts' files: only the backbone's class differs."""

import pytest
from mmengine import Config

from swin_dense import hosts
from tests.recipes import built, differences, host_name, ours
from tests.recipes import hosts as host_config

hosts.prepare()
INSTANCE = 'mmdet::mask2former/mask2former_swin-{}-p4-w7-224_8xb2-lsj-50e_coco.py'
SEMANTIC = 'mmseg::mask2former/mask2former_swin-{}_ade20k-{}.py'
PANOPTIC = 'mmdet::mask2former/mask2former_swin-{}_coco-panoptic.py'
RECIPES = {
    'mask2former_swin_t': INSTANCE.format('t'),
    'mask2former_swin_s': INSTANCE.format('s'),
    'mask2former_swin_t_semantic': SEMANTIC.format('t_8xb2-160k', '512x512'),
    'mask2former_swin_s_semantic': SEMANTIC.format('s_8xb2-160k', '512x512'),
    'mask2former_swin_b_w12_semantic': SEMANTIC.format('b-in1k-384x384-pre_8xb2-160k', '640x640'),
    'mask2former_swin_b_w12_in22k_semantic': SEMANTIC.format('b-in22k-384x384-pre_8xb2-160k', '640x640'),
    'mask2former_swin_l_w12_in22k_semantic': SEMANTIC.format('l-in22k-384x384-pre_8xb2-160k', '640x640'),
    'maskformer_swin_t_semantic': 'mmseg::maskformer/maskformer_swin-t_upernet_8xb2-160k_ade20k-512x512.py',
    'maskformer_swin_s_semantic': 'mmseg::maskformer/maskformer_swin-s_upernet_8xb2-160k_ade20k-512x512.py',
    'mask2former_swin_t_panoptic': PANOPTIC.format('t-p4-w7-224_8xb2-lsj-50e'),
    'mask2former_swin_s_panoptic': PANOPTIC.format('s-p4-w7-224_8xb2-lsj-50e'),
    'mask2former_swin_b_w12_panoptic': PANOPTIC.format('b-p4-w12-384_8xb2-lsj-50e'),
    'mask2former_swin_b_w12_in22k_panoptic': PANOPTIC.format('b-p4-w12-384-in21k_8xb2-lsj-50e'),
    'mask2former_swin_l_w12_in22k_panoptic': PANOPTIC.format('l-p4-w12-384-in21k_16xb1-lsj-100e'),
    'maskformer_swin_l_w12_panoptic': 'mmdet::maskformer/maskformer_swin-l-p4-w12_64xb1-ms-300e_coco.py',
    'dino_swin_l_w12': 'mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py',
    'atss_dyhead_swin_l_w12': 'mmdet::dyhead/atss_swin-l-p4-w12_fpn_dyhead_ms-2x_coco.py',
    'rtmdet_swin_b_w12': 'mmdet::rtmdet/rtmdet_l_swin_b_4xb32-100e_coco.py',
    'knet_swin_t': 'mmseg::knet/knet-s3_swin-t_upernet_8xb2-adamw-80k_ade20k-512x512.py',
    'knet_swin_l': 'mmseg::knet/knet-s3_swin-l_upernet_8xb2-adamw-80k_ade20k-512x512.py',
    'retinanet_swin_t': 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
}
# the host's recipe for another backbone, with ours
OTHER_BACKBONES = {
    'dino_swin_t': ('mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py', [96, 192, 384, 768]),
    'dino_swin_s': ('mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco.py', [96, 192, 384, 768]),
    'deformable_detr_swin_t': (
        'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
        [192, 384, 768],
    ),
}
# helper variables of the base files, the batch rule, and where weights are
FREE = {'backbone', 'channels', 'release', 'weights', 'auto_scale_lr', 'pretrained', 'checkpoint_file'}
BATCHES = {'maskformer_swin_l_w12_panoptic': 64, 'rtmdet_swin_b_w12': 128, 'deformable_detr_swin_t': 32}


def weights(config: Config) -> str:
    """The file name of the weights, without mmseg's date and hash."""
    backbone = config.model.backbone
    address = (backbone.get('init_cfg') or {}).get('checkpoint') or config.model.get('pretrained')
    return address.rpartition('/')[2].removesuffix('.pth').partition('_2022')[0]


@pytest.mark.parametrize('recipe', RECIPES)
def test_only_the_class_and_the_address_of_weights_differ(recipe: str):
    mine, theirs = ours(recipe), host_config(RECIPES[recipe])
    assert mine.model.backbone.type == 'swin_dense.SwinTransformer'
    assert weights(mine) == weights(theirs)
    differing = set(differences(mine.to_dict(), theirs.to_dict()))
    allowed = {path for path in differing if path.split('.')[0] in FREE}
    allowed |= {'model.backbone.type', 'model.pretrained'}
    allowed |= {path for path in differing if path.startswith('model.backbone.init_cfg')}
    assert differing <= allowed


@pytest.mark.parametrize('recipe', [name for name in RECIPES if 'in22k' not in name])
def test_parameters_have_the_hosts_names_and_shapes(recipe: str):
    mine = {host_name(name): p.shape for name, p in built(ours(recipe)).named_parameters()}
    theirs = {name: p.shape for name, p in built(host_config(RECIPES[recipe])).named_parameters()}
    assert mine == theirs


@pytest.mark.parametrize('recipe', OTHER_BACKBONES)
def test_another_backbone_in_the_hosts_recipe(recipe: str):
    host, channels = OTHER_BACKBONES[recipe]
    mine, theirs = ours(recipe), host_config(host)
    assert mine.model.neck.in_channels == channels == built(mine).backbone.out_channels
    differing = set(differences(mine.to_dict(), theirs.to_dict()))
    assert {path for path in differing if path.split('.')[0] not in FREE} <= {
        path for path in differing if path.startswith(('model.backbone.', 'model.neck.in_channels'))
    }


@pytest.mark.parametrize('recipe', [*RECIPES, *OTHER_BACKBONES])
def test_the_learning_rate_follows_the_batch(recipe: str):
    assert ours(recipe).auto_scale_lr == {'enable': True, 'base_batch_size': BATCHES.get(recipe, 16)}
