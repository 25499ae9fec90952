"""Parameters and FLOPs by stage and by part, against counts by hand and on the terminal."""

import copy
import io
from collections.abc import Callable

import pytest
import torch
from mmengine import Config
from mmengine.registry import MODELS, DefaultScope
from rich.console import Console
from torch import nn

from swin_dense.console import terminal
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer, SwinTransformerV2
from swin_dense.report import model_info
from swin_dense.report.model_info import Part
from tests.recipes import built, hosts, ours

TRUNK = ['backbone', 'neck', 'rpn_head']


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What ``show`` prints."""

    def show(config: Config, size: tuple[int, int] | None = None) -> str:
        buffer = io.StringIO()
        console = Console(file=buffer, highlight=False, width=160)
        monkeypatch.setattr(terminal, 'console', console)
        monkeypatch.setattr(model_info, 'console', console)
        model_info.show(config, size)
        return buffer.getvalue()

    return show


def by_hand(dim: int, tokens: int, padded: int, window: int, blocks: int) -> int:
    """Multiply-adds of a stage's blocks: equation 2 of the paper, and an MLP of ratio 4.

    The two linear layers around attention see the padded map, the MLP the map.
    """
    attention = 4 * padded * dim**2 + 2 * window**2 * padded * dim
    return blocks * (attention + 8 * tokens * dim**2)


def test_stages_are_counted_as_in_the_paper():
    with torch.device('meta'):
        backbone = SwinTransformer(embed_dims=32, depths=(2, 1), num_heads=(2, 4), out_indices=(0, 1)).to(
            'meta'
        )
    # 16 x 24 tokens, padded to 21 x 28; then 8 x 12, padded to 14 x 14
    first, second = model_info.stages(backbone.eval(), 64, 96)
    assert first.map == (16, 24)
    assert second.map == (8, 12)
    merging = 8 * 12 * 128 * 64
    assert first.flops == by_hand(32, 16 * 24, 21 * 28, 7, 2) + merging
    assert second.flops == by_hand(64, 8 * 12, 14 * 14, 7, 1)
    assert (first.channels, first.blocks, first.heads, first.window) == (32, 2, 2, 7)
    assert (second.channels, second.blocks, second.heads, second.window) == (64, 1, 4, 7)
    block = 12 * 32**2 + 13 * 32 + 13**2 * 2  # matrices, their biases and the norms', bias table
    norms = 2 * 128 + 2 * 32  # merging, output
    assert first.parameters == 2 * block + 128 * 64 + norms


def test_maps_are_those_that_the_backbone_returns():
    with torch.device('meta'):
        backbone = SwinTransformerV2(embed_dims=32, num_heads=(1, 2, 4, 8), window_size=(8, 8, 8, 4))
    backbone = backbone.to('meta').eval()
    stages = list(model_info.stages(backbone, 333, 50))
    maps = backbone(torch.empty(1, 3, 333, 50, device='meta'))
    assert [stage.map for stage in stages] == [tuple(x.shape[2:]) for x in maps]
    assert [stage.channels for stage in stages] == [x.shape[1] for x in maps]
    assert [stage.window for stage in stages] == [8, 8, 8, 4]


@pytest.mark.parametrize('recipe', ['mask_rcnn_swin_t', 'mask_rcnn_swinv2_t'])
def test_stages_and_patch_embedding_are_the_backbone(recipe: str):
    model = built(ours(recipe))
    stages = list(model_info.stages(model.backbone, 800, 1280))
    whole = model_info.parts(model, 800, 1280)[0]
    embedding = model.backbone.patch_embed
    assert sum(stage.flops for stage in stages) + 200 * 320 * 48 * 96 == whole.flops
    assert sum(stage.parameters for stage in stages) + model_info.parameters(embedding) == whole.parameters


@pytest.mark.parametrize(
    ('recipe', 'names'),
    [
        ('mask_rcnn_swin_t', [*TRUNK, 'roi_head.bbox_head', 'roi_head.mask_head']),
        (
            'cascade_mask_rcnn_swin_t',
            [*TRUNK, *(f'roi_head.{kind}_head.{i}' for kind in ('bbox', 'mask') for i in range(3))],
        ),
        ('upernet_swin_t', ['backbone', 'decode_head', 'auxiliary_head']),
    ],
)
def test_parts_are_the_model(recipe: str, names: list[str]):
    model = built(ours(recipe))
    parts = model_info.parts(model, 256, 320)
    assert [part.name for part in parts] == names
    assert sum(part.parameters for part in parts) == model_info.parameters(model)
    assert [part.name for part in parts if part.flops is None] == [n for n in names if n == 'auxiliary_head']
    whole = model_info.total(model, parts)
    assert whole == Part('total', model_info.parameters(model), sum(part.flops or 0 for part in parts))


def test_region_heads_run_at_the_limits_of_test_cfg():
    config = copy.deepcopy(ours('mask_rcnn_swin_t'))
    config.model.test_cfg.rpn.max_per_img = 500
    config.model.test_cfg.rcnn.max_per_img = 25
    halved = {part.name: part.flops for part in model_info.parts(model_info.build(config), 256, 320)}
    full = {part.name: part.flops for part in model_info.parts(built(ours('mask_rcnn_swin_t')), 256, 320)}
    assert halved.pop('roi_head.bbox_head') * 2 == full.pop('roi_head.bbox_head')
    assert halved.pop('roi_head.mask_head') * 4 == full.pop('roi_head.mask_head')
    assert halved == full


@pytest.mark.parametrize(
    'path',
    [
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
        'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py',
        'mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py',
    ],
)
def test_stock_configs_are_taken_as_they_are(path: str):
    model = model_info.build(hosts(path))
    parts = model_info.parts(model, 128, 160)
    assert {p.device.type for p in model.parameters()} == {'meta'}
    assert sum(part.parameters for part in parts) == model_info.parameters(model)
    assert all(part.flops for part in parts if part.name != 'auxiliary_head')


def test_no_weights_are_asked_for():
    config = ours('upernet_swin_l')
    assert model_info.build(config).backbone.init_cfg is None
    assert config.model.backbone.init_cfg.checkpoint.endswith('.pth')  # the config is left as it was


def test_a_model_of_another_kind_is_refused():
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(hosts('mmdet::detr/detr_r50_8xb2-150e_coco.py').model)
    with pytest.raises(UserError, match=r'model.type=DETR: FLOPs are counted for'):
        model_info.parts(model.to('meta'), 128, 128)


def test_a_model_without_a_backbone_is_refused():
    with pytest.raises(UserError, match=r'model\.backbone is missing'):
        model_info.build(Config({'default_scope': 'mmdet', 'model': {'type': 'MaskRCNN'}}))


def test_the_terminal_shows_stages_parts_and_units(shown: Callable[..., str]):
    text = shown(ours('mask_rcnn_swin_t'))
    assert "image: 800 x 1280 (the papers' size; --size H W for another)" in text
    rows = [
        [cell.strip() for cell in line.strip('│ ').split('│')] for line in text.splitlines() if '│' in line
    ]
    assert ['C2', '200 x 320', '96', '2', '3', '7', '0.30 M', '16.67 G'] in rows
    assert ['C5', '25 x 40', '768', '2', '24', '7', '14.19 M', '15.16 G'] in rows
    assert ['total', '47.79 M', '266.55 G'] in rows
    assert 'multiply-adds, each counted once' in text
    assert '1000 boxes and 100 masks' in text


def test_a_size_may_be_given(shown: Callable[..., str]):
    text = shown(ours('upernet_swin_t'), (512, 512))
    assert 'image: 512 x 512 (--size)' in text
    assert 'training only' in text
    assert 'boxes' not in text


@pytest.mark.parametrize('size', [(31, 100), (100, 0), (-64, 64)])
def test_a_size_that_is_too_small_is_refused(shown: Callable[..., str], size: tuple[int, int]):
    with pytest.raises(UserError, match='--size'):
        shown(ours('upernet_swin_t'), size)


def test_a_backbone_of_the_hosts_has_no_stages(shown: Callable[..., str]):
    text = shown(hosts('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'), (128, 128))
    assert 'C2' not in text
    assert 'roi_head.bbox_head' in text


def test_modules_without_multiply_adds_count_zero():
    outputs, flops = model_info.run(nn.ReLU(), torch.empty(2, 3, device='meta'))
    assert outputs.shape == (2, 3)
    assert sum(flops.values()) == 0
