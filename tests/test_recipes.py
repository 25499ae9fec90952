"""Our recipes held against the hosts' own Swin configs: every setting, parameter group, size and cost."""

import copy
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

CONFIGS = Path(__file__).parents[1] / 'configs'
RECIPES = {
    'mask_rcnn_swin_t': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mask_rcnn_swin_t_3x': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
    'upernet_swin_t': 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
}
MODELS_OF_RECIPES = ('mask_rcnn_swin_t', 'upernet_swin_t')  # 1x and 3x train the same model

# top-level names that a recipe may have or change: helper variables, the batch rule, addresses of weights
OWN_KEYS = {'backbone', 'channels', 'auto_scale_lr', 'pretrained', 'checkpoint_file'}
# what the hosts let a config choose and our backbone always does
FIXED = {
    'patch_size': 4,
    'strides': (4, 2, 2, 2),
    'qk_scale': None,
    'patch_norm': True,
    'use_abs_pos_embed': False,
    'act_cfg': {'type': 'GELU'},
}
# the architecture of Swin-T and how it is trained; a backbone that says nothing has these by default
SWIN_T = {
    'embed_dims': 96,
    'depths': (2, 2, 6, 2),
    'num_heads': (3, 6, 12, 24),
    'window_size': 7,
    'mlp_ratio': 4,
    'out_indices': (0, 1, 2, 3),
    'in_channels': 3,
    'qkv_bias': True,
    'drop_rate': 0,
    'attn_drop_rate': 0,
    'frozen_stages': -1,
}
FORBIDDEN = '.'.join(['download', 'openmmlab', 'com'])

every_recipe = pytest.mark.parametrize('recipe', RECIPES)
every_model = pytest.mark.parametrize('recipe', MODELS_OF_RECIPES)


@cache
def ours(recipe: str) -> Config:
    return Config.fromfile(CONFIGS / f'{recipe}.py')


@cache
def hosts(recipe: str) -> Config:
    return Config.fromstring(f'_base_ = {RECIPES[recipe]!r}', '.py')


@cache
def built(config: Config) -> nn.Module:
    """The config's model with random weights, on the meta device: it has shapes and no values."""
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(model).to('meta').eval()


def differences(a: object, b: object, path: str = '') -> Iterator[str]:
    """The dotted paths at which two nested settings differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            here = f'{path}.{key}' if path else str(key)
            if key in a and key in b:
                yield from differences(a[key], b[key], here)
            else:
                yield here
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f'{path}[{i}]')
    elif type(a) is not type(b) or a != b:
        yield path


def strings(node: object) -> Iterator[str]:
    """Every string in nested settings, keys included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(key)
            yield from strings(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def arguments(config: Config) -> dict:
    """What the backbone is built with: the constructor's defaults under the config's values."""
    given = config.model.backbone.to_dict()
    kind = type(built(config).backbone)
    values = {p.name: p.default for p in inspect.signature(kind).parameters.values()}
    values.update({key: value for key, value in given.items() if key != 'type'})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def host_name(name: str) -> str:
    """The name that a host gives to our parameter."""
    if not name.startswith('backbone.'):
        return name
    for mine, theirs in (
        ('backbone.layers.', 'backbone.stages.'),
        ('.patch_embed.proj.', '.patch_embed.projection.'),
        ('.attn.', '.attn.w_msa.'),
        ('.mlp.fc1.', '.ffn.layers.0.0.'),
        ('.mlp.fc2.', '.ffn.layers.1.'),
    ):
        name = name.replace(mine, theirs)
    return name


def parameter_groups(model: nn.Module, config: Config) -> dict[str, dict]:
    """The optimizer's settings for each parameter by name, as mmengine builds them."""
    with DefaultScope.overwrite_default_scope(config.default_scope):
        optimizer = build_optim_wrapper(model, config.optim_wrapper.to_dict()).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {}
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ('params', 'param_names')}
        groups.update({names[id(parameter)]: settings for parameter in group['params']})
    return {'optimizer': {'type': type(optimizer)}, **groups}


def flops(model: nn.Module, height: int, width: int) -> int:
    """Two for each multiply-add of a forward pass; detection with 1000 boxes and 100 masks."""
    image = torch.empty(1, 3, height, width, device='meta')
    attention = sdpa_kernel(SDPBackend.MATH)  # two matrix products, which the counter knows
    with torch.no_grad(), attention, FlopCounterMode(display=False) as counter:
        if not model.with_neck:
            model(image, mode='tensor')
        else:
            model.rpn_head(model.extract_feat(image))
            model.roi_head.bbox_head(torch.empty(1000, 256, 7, 7, device='meta'))
            model.roi_head.mask_head(torch.empty(100, 256, 14, 14, device='meta'))
    return counter.get_total_flops()


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
    assert differing <= allowed
    # nor does a difference hide in what is allowed to differ
    assert mine['model']['backbone'] == {
        **{key: value for key, value in mine['backbone'].items() if key != '_delete_'},
        'drop_path_rate': theirs['model']['backbone']['drop_path_rate'],
    }
    assert mine['auto_scale_lr'] == {'enable': True, 'base_batch_size': 16}
    assert theirs.get('auto_scale_lr', {}).get('base_batch_size', 16) == 16


@every_recipe
def test_the_backbones_arguments_agree(recipe: str):
    mine, theirs = arguments(ours(recipe)), arguments(hosts(recipe))
    for name, value in SWIN_T.items():
        assert mine[name] == theirs[name] == value, name
    assert mine['drop_path_rate'] == theirs['drop_path_rate'] == (0.3 if 'upernet' in recipe else 0.2)
    for name, value in FIXED.items():
        assert theirs[name] == value, name
    assert mine['pretrain_img_size'] is None  # no absolute position embedding
    assert theirs['norm_cfg']['type'] == 'LN'
    assert not mine['with_cp']
    assert not theirs['with_cp']
    assert set(mine) - set(theirs) == set()
    compared = {*SWIN_T, *FIXED, 'drop_path_rate', 'pretrain_img_size', 'norm_cfg', 'with_cp'}
    # which weights to load, and whether the host has to rename them
    assert set(theirs) - compared <= {'init_cfg', 'convert_weights', 'pretrained'}


@every_model
def test_stochastic_depth_and_norms_agree(recipe: str):
    mine, theirs = built(ours(recipe)).backbone, built(hosts(recipe)).backbone
    rates = [block.drop_path.p for layer in mine.layers for block in layer.blocks]
    host_rates = [block.ffn.dropout_layer.drop_prob for stage in theirs.stages for block in stage.blocks]
    assert rates == pytest.approx(host_rates)
    assert len(rates) == 12
    eps = {module.eps for model in (mine, theirs) for module in model.modules() if hasattr(module, 'eps')}
    assert eps == {1e-5}


@every_recipe
def test_a_dumped_recipe_is_read_back_unchanged(recipe: str, tmp_path: Path):
    ours(recipe).dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == ours(recipe).to_dict()


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
    assert len(undecayed) == 2 * (24 + 1 + 3 + 4)  # blocks, patch embedding, mergings, outputs
    undecayed |= {name for name, _ in model.named_parameters() if name.endswith('bias_table')}
    assert len(undecayed) == 2 * 32 + 12
    rate, decay = (6e-5, 0.01) if 'upernet' in recipe else (1e-4, 0.05)
    for name, _ in model.named_parameters():
        settings = groups[name]
        assert settings['lr'] == rate, name
        assert settings['betas'] == (0.9, 0.999), name
        assert settings['weight_decay'] == (0 if name in undecayed else decay), name
    assert groups['backbone.layers.0.blocks.0.attn.qkv.bias']['weight_decay'] == decay


@every_model
def test_an_absolute_position_embedding_has_no_weight_decay(recipe: str):
    backbone = dict(type='swin_dense.SwinTransformer', embed_dims=8, depths=(1,), num_heads=(1,))
    backbone.update(out_indices=(0,), pretrain_img_size=32)
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
def test_parameter_counts_are_the_hosts_and_the_published(recipe: str, millions: float, parts: set[str]):
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
    ('recipe', 'size', 'published'),
    [
        ('mask_rcnn_swin_t', (800, 1280), 267),
        ('upernet_swin_t', (512, 512), None),
        ('upernet_swin_t', (512, 2048), 945),
    ],
)
def test_flops_are_the_hosts_and_the_published(recipe: str, size: tuple[int, int], published: int | None):
    mine = flops(built(ours(recipe)), *size)
    assert mine == flops(built(hosts(recipe)), *size)
    if published:
        # in 1e9 multiply-adds; the published counts also have norms and resizing, which ours leaves out
        assert mine / 2e9 == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize('file', [str(path.relative_to(CONFIGS)) for path in sorted(CONFIGS.rglob('*.py'))])
def test_no_config_names_the_hosts_download_server(file: str):
    assert FORBIDDEN not in (CONFIGS / file).read_text(encoding='utf-8')
    assert [text for text in strings(Config.fromfile(CONFIGS / file).to_dict()) if FORBIDDEN in text] == []
