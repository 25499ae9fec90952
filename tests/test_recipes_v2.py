"""The Swin V2 recipes: their v1 counterparts with another backbone, and the weights that it is made for."""

import pytest
import timm
import torch

from tests.recipes import OWN_KEYS, built, differences, ours, parameter_groups

# recipe: the v1 recipe that it follows, and timm's model with the same backbone
RECIPES = {
    'mask_rcnn_swinv2_t': ('mask_rcnn_swin_t_3x', 'swinv2_tiny_window8_256'),
    'mask_rcnn_swinv2_s': ('mask_rcnn_swin_s', 'swinv2_small_window8_256'),
    'upernet_swinv2_t': ('upernet_swin_t', 'swinv2_tiny_window8_256'),
    'upernet_swinv2_s': ('upernet_swin_s', 'swinv2_small_window8_256'),
    'upernet_swinv2_b': ('upernet_swin_b', 'swinv2_base_window8_256'),
    'upernet_swinv2_b_w16_in22k': ('upernet_swin_b', 'swinv2_base_window12to16_192to256'),
    'upernet_swinv2_l': ('upernet_swin_l', 'swinv2_large_window12to16_192to256'),
}
UNDECAYED = ('cpb_mlp', 'logit_scale')  # Microsoft's no_weight_decay_keywords
# side of a classifier's window in the four stages: not larger than the map, image / 4, 8, 16, 32
WINDOWS = {256: {8: (8, 8, 8, 8), 16: (16, 16, 16, 8)}, 192: {12: (12, 12, 12, 6)}}

every_recipe = pytest.mark.parametrize('recipe', RECIPES)


@every_recipe
def test_it_is_the_v1_recipe_with_another_backbone(recipe: str):
    mine, v1 = ours(recipe).to_dict(), ours(RECIPES[recipe][0]).to_dict()
    differing = {p for p in differences(mine, v1) if p.split('.')[0] not in OWN_KEYS}
    rule = 'optim_wrapper.paramwise_cfg.custom_keys.'
    kept = {p for p in differing if not p.startswith(('model.backbone.', rule))}
    assert kept == set()
    assert {p.removeprefix(rule) for p in differing if p.startswith(rule)} == set(UNDECAYED)
    changed = {p.split('.')[2] for p in differing if p.startswith('model.backbone.')}
    assert changed <= {'type', 'window_size', 'pretrained_window_sizes', 'init_cfg'}
    assert mine['model']['backbone']['type'] == 'swin_dense.SwinTransformerV2'


@every_recipe
def test_it_has_as_many_parameters_as_timms(recipe: str):
    backbone = built(ours(recipe)).backbone
    with torch.device('meta'):
        reference = timm.create_model(RECIPES[recipe][1], num_classes=0)
    counts = [sum(p.numel() for p in module.parameters()) for module in (backbone, reference)]
    # timm's classifier norms C5 only
    extra = sum(p.numel() for i in range(3) for p in getattr(backbone, f'norm{i}').parameters())
    assert counts[0] - extra == counts[1]


@every_recipe
def test_what_v2_adds_has_no_weight_decay(recipe: str):
    groups = parameter_groups(built(ours(recipe)), ours(recipe))
    groups.pop('optimizer')
    decay = 0.01 if 'upernet' in recipe else 0.05
    seen = set()
    for name, settings in groups.items():
        added = [key for key in UNDECAYED if f'.{key}' in name]
        spared = added or ('norm' in name and name.startswith('backbone.'))
        if 'backbone.' in name:
            assert settings['weight_decay'] == (0 if spared else decay), name
        seen.update(added)
    assert seen == set(UNDECAYED)


@pytest.mark.parametrize('size', ['tiny', 'small', 'base', 'large'])
def test_windows_are_those_of_the_pretraining(size: str):
    """In each stage the bias MLP is told the window that the file's name, and the map there, imply."""
    base = ours(f'_base_/swinv2_{size}')
    variants = [base.backbone, *(dict(base.backbone, **choice) for choice in base.weights.values())]
    assert len(variants) > 1
    for backbone in variants:
        name = backbone['init_cfg']['checkpoint'].rsplit('/', 1)[1].removesuffix('.pth')
        window, image = name.split('_window')[1].removesuffix('_22k').removesuffix('_22kto1k_ft').split('_')
        (before, _, after), (pixels, _, _) = window.partition('to'), image.partition('to')
        assert backbone['window_size'] == int(after or before), name
        told = backbone.get('pretrained_window_sizes') or (backbone['window_size'],) * 4
        assert tuple(told) == WINDOWS[int(pixels)][int(before)], name
