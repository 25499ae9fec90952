"""Our recipes held against the hosts' own Swin configs: every setting, parameter group, size and cost."""

import inspect
from functools import partial

import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swin_dense.report import model_info
from tests import recipes
from tests.recipes import OWN_KEYS, built, differences, host_name, ours, parameter_groups

UPERNET = 'mmseg::swin/swin-{}-pre_upernet_8xb2-160k_ade20k-512x512.py'
RECIPES = {
    'mask_rcnn_swin_t': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mask_rcnn_swin_t_3x': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
    'mask_rcnn_swin_s': 'mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'upernet_swin_t': UPERNET.format('tiny-patch4-window7-in1k'),
    'upernet_swin_s': UPERNET.format('small-patch4-window7-in1k'),
    'upernet_swin_b': UPERNET.format('base-patch4-window7-in1k'),
    'upernet_swin_b_in22k': UPERNET.format('base-patch4-window7-in22k'),
    'upernet_swin_b_w12': UPERNET.format('base-patch4-window12-in1k-384x384'),
    'upernet_swin_b_w12_in22k': UPERNET.format('base-patch4-window12-in22k-384x384'),
    'upernet_swin_l': UPERNET.format('large-patch4-window7-in22k'),
    'upernet_swin_l_w12': UPERNET.format('large-patch4-window12-in22k-384x384'),
}
# schedules and weights make no model of their own
MODELS_OF_RECIPES = [r for r in RECIPES if not r.endswith(('_3x', '_in22k'))]

# the architecture of each size, by the letter in the recipe's name
SIZES = {
    't': {'embed_dims': 96, 'depths': (2, 2, 6, 2), 'num_heads': (3, 6, 12, 24)},
    's': {'embed_dims': 96, 'depths': (2, 2, 18, 2), 'num_heads': (3, 6, 12, 24)},
    'b': {'embed_dims': 128, 'depths': (2, 2, 18, 2), 'num_heads': (4, 8, 16, 32)},
    'l': {'embed_dims': 192, 'depths': (2, 2, 18, 2), 'num_heads': (6, 12, 24, 48)},
}
# what all sizes share; a backbone that says nothing has these by default
SHARED = {
    'mlp_ratio': 4,
    'out_indices': (0, 1, 2, 3),
    'in_channels': 3,
    'qkv_bias': True,
    'drop_rate': 0,
    'attn_drop_rate': 0,
    'frozen_stages': -1,
}
# what the hosts let a config choose and our backbone always does
FIXED = {
    'patch_size': 4,
    'strides': (4, 2, 2, 2),
    'qk_scale': None,
    'patch_norm': True,
    'use_abs_pos_embed': False,
    'act_cfg': {'type': 'GELU'},
}

every_recipe = pytest.mark.parametrize('recipe', RECIPES)
every_model = pytest.mark.parametrize('recipe', MODELS_OF_RECIPES)


def hosts(recipe: str) -> Config:
    """The host's config for a recipe of ours."""
    return recipes.hosts(RECIPES[recipe])


def architecture(recipe: str) -> dict:
    """What the name of a recipe says of its backbone."""
    size = recipe.split('_swin_')[1][0]
    return {**SHARED, **SIZES[size], 'window_size': 12 if '_w12' in recipe else 7}


def arguments(config: Config) -> dict:
    """What the backbone is built with: the constructor's defaults under the config's values."""
    given = config.model.backbone.to_dict()
    kind = type(built(config).backbone)
    values = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    values.update({key: value for key, value in given.items() if key != 'type'})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@every_recipe
def test_nothing_but_the_backbone_and_the_neck_differs(recipe: str):
    mine, theirs = ours(recipe).to_dict(), hosts(recipe).to_dict()
    differing = set(differences(mine, theirs))
    allowed = {
        path for path in differing if path.split('.')[0] in OWN_KEYS or path.startswith('model.backbone.')
    }
    if 'neck' in mine['model']:
        allowed.add('model.neck.type')
        assert mine['model']['neck']['type'] == 'swin_dense.FPN'
        assert theirs['model']['neck']['type'] == 'FPN'
    if 'decode_head' in mine['model']:
        allowed.add('model.decode_head.type')
        assert mine['model']['decode_head']['type'] == 'swin_dense.UPerHead'
        assert theirs['model']['decode_head']['type'] == 'UPerHead'
    if '_amp-' in RECIPES[recipe]:  # ours leaves the precision to --amp
        allowed.add('optim_wrapper.type')
        assert mine['optim_wrapper']['type'] == 'OptimWrapper'
        assert theirs['optim_wrapper']['type'] == 'AmpOptimWrapper'
    assert differing <= allowed
    assert mine['auto_scale_lr'] == {'enable': True, 'base_batch_size': 16}
    assert theirs.get('auto_scale_lr', {}).get('base_batch_size', 16) == 16


@every_recipe
def test_the_backbones_arguments_agree(recipe: str):
    mine, theirs = arguments(ours(recipe)), arguments(hosts(recipe))
    for name, value in architecture(recipe).items():
        assert mine[name] == theirs[name] == value, name
    assert mine['drop_path_rate'] == theirs['drop_path_rate'] == (0.3 if 'upernet' in recipe else 0.2)
    for name, value in FIXED.items():
        assert theirs[name] == value, name
    assert not mine['use_abs_pos_embed']
    assert theirs['norm_cfg']['type'] == 'LN'
    assert not mine['with_cp']
    assert not theirs['with_cp']
    assert set(mine) - set(theirs) <= {'convert_weights'}
    compared = {*architecture(recipe), *FIXED, 'drop_path_rate', 'pretrain_img_size', 'norm_cfg', 'with_cp'}
    # which weights to load, and whether the host has to rename them
    assert set(theirs) - compared <= {'init_cfg', 'convert_weights', 'pretrained'}


@every_recipe
def test_the_weights_are_the_hosts(recipe: str):
    """mmseg's files are Microsoft's with mmseg's names for the parameters, a date and a hash."""
    mine, theirs = (config.model.backbone.init_cfg.checkpoint for config in (ours(recipe), hosts(recipe)))
    release = 'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    assert mine.startswith(release)
    name = mine.removeprefix(release).removesuffix('.pth')
    assert theirs.rsplit('/', 1)[1] == f'{name}.pth' or theirs.rsplit('/', 1)[1].startswith(f'{name}_2022')


@every_model
def test_stochastic_depth_and_norms_agree(recipe: str):
    mine, theirs = built(ours(recipe)).backbone, built(hosts(recipe)).backbone
    rates = [block.drop_path.p for layer in mine.layers for block in layer.blocks]
    host_rates = [block.ffn.dropout_layer.drop_prob for stage in theirs.stages for block in stage.blocks]
    assert rates == pytest.approx(host_rates)
    assert len(rates) == sum(architecture(recipe)['depths'])
    eps = {module.eps for model in (mine, theirs) for module in model.modules() if hasattr(module, 'eps')}
    assert eps == {1e-5}


@every_model
def test_parameters_have_the_hosts_names_and_shapes(recipe: str):
    mine = {host_name(name): p.shape for name, p in built(ours(recipe)).named_parameters()}
    theirs = {name: p.shape for name, p in built(hosts(recipe)).named_parameters()}
    assert mine == theirs


@every_model
def test_every_parameter_is_optimized_as_in_the_host(recipe: str):
    mine = parameter_groups(built(ours(recipe)), ours(recipe))
    theirs = parameter_groups(built(hosts(recipe)), hosts(recipe))
    assert {host_name(name): group for name, group in mine.items()} == theirs
    assert mine['optimizer'] == {'type': torch.optim.AdamW}


@every_model
def test_norms_and_bias_tables_have_no_weight_decay_and_all_else_has(recipe: str):
    model = built(ours(recipe))
    groups = parameter_groups(model, ours(recipe))
    undecayed = {
        f'{name}.{kind}'
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for kind in ('weight', 'bias')
    }
    blocks = sum(architecture(recipe)['depths'])
    norms = 2 * blocks + 1 + 3 + 4  # blocks, patch embedding, mergings, outputs
    assert len(undecayed) == 2 * norms
    undecayed |= {name for name, _ in model.named_parameters() if name.endswith('bias_table')}
    assert len(undecayed) == 2 * norms + blocks
    rate, decay = (6e-5, 0.01) if 'upernet' in recipe else (1e-4, 0.05)
    for name, _ in model.named_parameters():
        settings = groups[name]
        assert settings['lr'] == rate, name
        assert settings['betas'] == (0.9, 0.999), name
        assert settings['weight_decay'] == (0 if name in undecayed else decay), name
    assert groups['backbone.layers.0.blocks.0.attn.qkv.bias']['weight_decay'] == decay


@pytest.mark.parametrize('recipe', ['mask_rcnn_swin_t', 'upernet_swin_t'])
def test_an_absolute_position_embedding_has_no_weight_decay(recipe: str):
    backbone = dict(type='swin_dense.SwinTransformer', embed_dims=8, depths=(1,), num_heads=(1,))
    backbone.update(out_indices=(0,), use_abs_pos_embed=True, pretrain_img_size=32)
    model = nn.ModuleDict({'backbone': MODELS.build(backbone)})
    groups = parameter_groups(model, ours(recipe))
    assert groups['backbone.absolute_pos_embed']['weight_decay'] == 0
    assert groups['backbone.layers.0.blocks.0.attn.qkv.weight']['weight_decay'] > 0


@pytest.mark.parametrize(
    ('recipe', 'millions', 'parts'),
    [
        ('mask_rcnn_swin_t', 47.79, {'backbone', 'neck', 'rpn_head', 'roi_head'}),
        ('upernet_swin_t', 59.94, {'backbone', 'decode_head', 'auxiliary_head'}),
    ],
)
def test_parameter_counts_are_the_hosts(recipe: str, millions: float, parts: set[str]):
    counts = []
    for config in (ours(recipe), hosts(recipe)):
        model = built(config)
        counted = {
            name: sum(p.numel() for p in part.parameters())
            for name, part in model.named_children()
            if next(part.parameters(), None) is not None
        }
        assert set(counted) == parts  # the auxiliary head is counted
        assert sum(counted.values()) == sum(p.numel() for p in model.parameters())
        counts.append(counted)
    assert counts[0] == counts[1]
    assert round(sum(counts[0].values()) / 1e6, 2) == millions


def test_the_counter_counts_attention():
    query = torch.empty(4, 3, 49, 32, device='meta')
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        nn.functional.scaled_dot_product_attention(query, query, query)
    assert counter.get_total_flops() == 2 * 2 * 4 * 3 * 49 * 49 * 32


@pytest.mark.parametrize(
    ('recipe', 'size'),
    [
        ('mask_rcnn_swin_t', (800, 1280)),
        ('upernet_swin_t', (512, 512)),
        ('upernet_swin_b_w12', (512, 512)),
        ('upernet_swin_l', (640, 2560)),
    ],
)
def test_flops_are_the_hosts(recipe: str, size: tuple[int, int]):
    """Part by part; the published figures are in tests/report/test_papers.py."""
    count = partial(model_info.parts, height=size[0], width=size[1])
    assert count(built(ours(recipe))) == count(built(hosts(recipe)))
