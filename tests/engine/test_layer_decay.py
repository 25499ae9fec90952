"""Layer-wise decay of the learning rate, against the formula of SimMIM's fine-tuning."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from swin_dense import hosts
from swin_dense.engine import layer_decay
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer, SwinTransformerV2

hosts.prepare()
SMALL = dict(embed_dims=8, depths=(2, 1, 3, 1), num_heads=(1, 2, 4, 8))
CONFIG = dict(
    constructor='swin_dense.LayerDecay',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    paramwise_cfg=dict(
        decay_rate=0.5,
        norm_decay_mult=0.0,
        custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)},
    ),
)


class Detector(nn.Module):
    """A backbone and a head."""

    def __init__(self, network: type[SwinTransformer]) -> None:
        super().__init__()
        self.backbone = network(**SMALL)
        self.neck = nn.Conv2d(8, 4, 1)


def reference(name: str) -> float:
    """SimMIM's ``get_swin_layer`` and scales by hand: 7 blocks, so that heads have number 8."""
    if not name.startswith('backbone.'):
        return 0.001
    numbers = {
        'patch_embed': 0,
        'layers.0.blocks.0': 1,
        'layers.0.blocks.1': 2,
        'layers.0.downsample': 2,
        'layers.1.blocks.0': 3,
        'layers.1.downsample': 3,
        'layers.2.blocks.0': 4,
        'layers.2.blocks.1': 5,
        'layers.2.blocks.2': 6,
        'layers.2.downsample': 6,
        'layers.3.blocks.0': 7,
        'norm': 8,
    }
    number = next(value for key, value in numbers.items() if name.removeprefix('backbone.').startswith(key))
    return 0.001 * 0.5 ** (8 - number)


@pytest.mark.parametrize('network', [SwinTransformer, SwinTransformerV2])
def test_rates_and_weight_decay(network: type[SwinTransformer]):
    model = Detector(network)
    groups = build_optim_wrapper(model, CONFIG).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    assert sum(len(group['params']) for group in groups) == len(names)
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    for group in groups:
        name = names[group['params'][0]]
        assert group['lr'] == pytest.approx(reference(name), rel=1e-12), name
        undecayed = id(group['params'][0]) in norms or 'relative_position_bias_table' in name
        assert group['weight_decay'] == (0.0 if undecayed else 0.05), name
    text = layer_decay.summary(groups)
    assert text == (
        'patch embedding 3.9e-06; blocks 7.8e-06, 1.6e-05, 3.1e-05, 6.3e-05, 0.00013, 0.00025, 0.0005; '
        'output norms 0.001'
    )


def test_a_backbone_alone():
    model = SwinTransformer(**SMALL)
    groups = build_optim_wrapper(model, CONFIG).optimizer.param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in groups:
        assert group['lr'] == pytest.approx(reference('backbone.' + names[group['params'][0]]))


def test_without_it_the_header_has_no_row():
    optimizer = torch.optim.AdamW(Detector(SwinTransformer).parameters(), lr=0.1)
    assert layer_decay.summary(optimizer.param_groups) is None


@pytest.mark.parametrize('rate', [None, 0, 1.2, 'x'])
def test_a_wrong_rate(rate: object):
    config = dict(CONFIG, paramwise_cfg=dict(decay_rate=rate))
    with pytest.raises(UserError, match=r'decay_rate=.* must lie above 0'):
        build_optim_wrapper(Detector(SwinTransformer), config)


def test_another_backbone():
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 4, 1)
    with pytest.raises(UserError, match=r'needs a Swin of swin_dense as model\.backbone, not Conv2d'):
        build_optim_wrapper(model, CONFIG)
