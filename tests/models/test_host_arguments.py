"""The hosts' configs name our Swin with their own arguments: one changed line is all that it takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.models.backbones import SwinTransformer as MmdetSwin
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmseg.models.backbones import SwinTransformer as MmsegSwin

from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer
from swin_dense.models.layout import connect
from swin_dense.registry import MODELS

# as mmdet's and mmseg's files have them
STOCK = dict(
    embed_dims=16,
    depths=[1, 1, 1, 1],
    num_heads=[1, 2, 4, 8],
    window_size=7,
    mlp_ratio=4,
    qkv_bias=True,
    qk_scale=None,
    drop_rate=0.0,
    attn_drop_rate=0.0,
    drop_path_rate=0.2,
    patch_norm=True,
    out_indices=(0, 1, 2, 3),
    with_cp=False,
)
MMDET = dict(STOCK, pretrain_img_size=384, convert_weights=True)
MMSEG = dict(
    STOCK,
    pretrain_img_size=224,
    patch_size=4,
    strides=(4, 2, 2, 2),
    use_abs_pos_embed=False,
    act_cfg=dict(type='GELU'),
    norm_cfg=dict(type='LN', requires_grad=True),
)


@pytest.mark.parametrize(('host', 'arguments'), [(MmdetSwin, MMDET), (MmsegSwin, MMSEG)])
def test_the_hosts_arguments_give_the_hosts_network(host: type, arguments: dict[str, Any]):
    theirs = host(**arguments)
    ours = MODELS.build(dict(type='swin_dense.SwinTransformer', **arguments))
    assert ours.absolute_pos_embed is None, 'the size of the pretraining images adds nothing'
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs)]
    assert count[0] == count[1]


def test_an_absolute_position_embedding_of_any_size():
    model = SwinTransformer(**STOCK, use_abs_pos_embed=True, pretrain_img_size=(64, 96))
    assert model.absolute_pos_embed.shape == (1, 16, 16, 24)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('patch_size', 2),
        ('strides', (2, 2, 2, 2)),
        ('qk_scale', 0.5),
        ('patch_norm', False),
        ('norm_cfg', dict(type='BN')),
        ('norm_cfg', dict(type='LN', eps=1e-6)),
        ('act_cfg', dict(type='ReLU')),
    ],
)
def test_another_network_is_refused(name: str, value: object):
    with pytest.raises(ValueError, match=f'^{name}=.* is not supported'):
        SwinTransformer(**{**STOCK, name: value})


@pytest.mark.parametrize('host', [MmdetSwin, MmsegSwin], ids=['mmdet', 'mmseg'])
@pytest.mark.parametrize('how', ['Pretrained', 'mmengine.Pretrained', 'a list', 'pretrained'])
def test_weights_are_loaded_however_they_are_named(how: str, host: type, tmp_path: Path):
    """mmengine's own initializer loads no tensor at all into our backbone."""
    torch.manual_seed(0)
    path = str(tmp_path / 'weights.pth')
    theirs = host(**STOCK)
    theirs.init_weights()
    torch.save({'state_dict': {f'backbone.{name}': x for name, x in theirs.state_dict().items()}}, path)
    entry = dict(type=how, checkpoint=path, prefix='backbone.')
    weights = {
        'pretrained': dict(pretrained=path),
        'a list': dict(init_cfg=[dict(entry, type='Pretrained')]),
    }.get(how, dict(init_cfg=entry))
    ours = MMENGINE_MODELS.build(dict(type='swin_dense.SwinTransformer', **STOCK, **weights))
    ours.init_weights()
    for model in (ours, theirs):
        model.eval()
    image = torch.randn(1, 3, 64, 64)
    for mine, reference in zip(ours(image), theirs(image), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-5)


def test_a_file_of_another_model_is_an_error(tmp_path: Path):
    torch.save({'layer.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    model = SwinTransformer(**STOCK, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'other.pth')))
    with pytest.raises(UserError, match=r'other\.pth'):
        model.init_weights()


def test_two_names_for_weights():
    with pytest.raises(ValueError, match='init_cfg and pretrained both name weights'):
        SwinTransformer(**STOCK, pretrained='a.pth', init_cfg=dict(type='Pretrained', checkpoint='b.pth'))


@pytest.mark.parametrize(
    ('neck', 'channels_last'), [('swin_dense.FPN', True), ('mmdet.FPN', False)], ids=['our neck', "mmdet's"]
)
def test_only_our_parts_get_channels_last_maps(neck: str, channels_last: bool):
    model = torch.nn.Module()
    model.backbone = SwinTransformer(**STOCK)
    model.neck = MODELS.build(dict(type=neck, in_channels=[16, 32, 64, 128], out_channels=8, num_outs=5))
    assert connect(model) is model
    assert model.backbone.channels_last is channels_last
