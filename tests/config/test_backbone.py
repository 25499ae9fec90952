"""Stock configs take our backbone: channels and strides follow, and what cannot be replaced is one line."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from swin_dense import hosts
from swin_dense.config import with_backbone
from swin_dense.config.backbone import replace
from swin_dense.engine.config import load_config
from swin_dense.engine.runner import Runner
from swin_dense.errors import UserError
from swin_dense.hosts.configs import stock_config
from swin_dense.models.channels import check_channels

hosts.prepare()
MASK_RCNN = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
META = dict(img_shape=(96, 128), ori_shape=(96, 128), batch_input_shape=(96, 128), pad_shape=(96, 128))
PSPNET = 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'


def stock(name: str) -> Config:
    return copy.deepcopy(stock_config(name))


def built(config: Config) -> nn.Module:
    init_default_scope(config.default_scope)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return revert_sync_batchnorm(MODELS.build(config.model)).eval()


# each: the config, the levels of ours, and the fields that follow
CASES: dict[str, tuple[tuple[int, ...], dict[str, object]]] = {
    MASK_RCNN: ((0, 1, 2, 3), {'neck.in_channels': [24, 48, 96, 192]}),
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': (
        (0, 1, 2, 3),
        {'neck.in_channels': [24, 48, 96, 192], 'neck.start_level': 1},
    ),
    'mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py': ((1, 2, 3), {'neck.in_channels': [192, 96, 48]}),
    'mmdet::yolox/yolox_s_8xb8-300e_coco.py': ((1, 2, 3), {'neck.in_channels': [48, 96, 192]}),
    'mmdet::detr/detr_r50_8xb2-150e_coco.py': ((3,), {'neck.in_channels': [192]}),
    'mmdet::solo/solo_r50_fpn_1x_coco.py': ((0, 1, 2, 3), {'neck.in_channels': [24, 48, 96, 192]}),
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': (
        (0, 1, 2, 3),
        {'panoptic_head.in_channels': [24, 48, 96, 192], 'panoptic_head.strides': [4, 8, 16, 32]},
    ),
    'mmdet::maskformer/maskformer_r50_ms-16xb1-75e_coco.py': (
        (0, 1, 2, 3),
        {'panoptic_head.in_channels': [24, 48, 96, 192]},
    ),
    PSPNET: ((0, 1, 2, 3), {'decode_head.in_channels': 192, 'auxiliary_head.in_channels': 96}),
    'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py': (
        (0, 1, 2, 3),
        {'decode_head.in_channels': 192, 'decode_head.c1_in_channels': 24},
    ),
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py': (
        (0, 1, 2, 3),
        {'decode_head.in_channels': [24, 48, 96, 192], 'decode_head.in_index': [0, 1, 2, 3]},
    ),
    'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py': (
        (0, 1, 2, 3),
        {'decode_head.kernel_generate_head.in_channels': [24, 48, 96, 192]},
    ),
    'mmseg::hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py': (
        (0, 1, 2, 3),
        {'decode_head.in_channels': [24, 48, 96, 192]},
    ),
    'mmseg::fastfcn/fastfcn_r50-d32_jpu_aspp_4xb2-80k_cityscapes-512x1024.py': (
        (1, 2, 3),
        {'neck.in_channels': (48, 96, 192)},
    ),
    'mmseg::dmnet/dmnet_r50-d8_4xb4-80k_ade20k-512x512.py': ((0, 1, 2, 3), {'decode_head.in_channels': 192}),
}


@pytest.fixture(scope='module')
def narrow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base file with a backbone of few channels."""
    path = tmp_path_factory.mktemp('bases') / 'swin_narrow.py'
    path.write_text(
        "backbone = dict(type='swin_dense.SwinTransformer', embed_dims=24, depths=(1, 1, 1, 1), "
        'num_heads=(1, 2, 4, 8), window_size=7)'
    )
    return str(path)


@pytest.mark.parametrize('name', CASES, ids=lambda name: Path(name).stem.split('_')[0])
def test_what_reads_the_maps_follows(name: str, narrow: str):
    levels, fields = CASES[name]
    before = stock(name)
    config = with_backbone(before, narrow)
    assert before.model.backbone.type != 'swin_dense.SwinTransformer', 'the given config stays'
    assert tuple(config.model.backbone.out_indices) == levels
    for field, expected in fields.items():
        node: Any = config.model
        for part in field.split('.'):
            node = node[part]
        assert (list(node) if isinstance(expected, list) else node) == expected, field
    model = built(config)
    image = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        maps = model.extract_feat(image)
        for head in ('decode_head', 'auxiliary_head'):
            if hasattr(model, head):
                assert getattr(model, head)(maps) is not None
        if hasattr(model, 'panoptic_head'):
            assert model.panoptic_head(maps, [DetDataSample(metainfo=META)])


def test_maps_of_a_dilated_network_are_told():
    notes = replace(stock(PSPNET), 'swin_t').notes
    assert notes[0] == 'model.backbone: maps of strides 8 to 16, 8 to 32'


def test_the_header_tells_what_a_resnet_recipe_has_and_swin_schedule_takes_swins():
    caffe = stock('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py')
    note = replace(caffe, 'swin_t').notes[-1]
    assert note.startswith("not as in Swin's recipes: SGD with lr 0.01; images normalised by mean [102.9801")
    assert '--swin-schedule' in note
    replaced = replace(caffe, 'swin_t', swin_schedule=True)
    assert replaced.notes == []
    config = replaced.config
    assert config.optim_wrapper.optimizer.type == 'AdamW'
    assert config.optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult == 0
    assert config.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert config.model.data_preprocessor.bgr_to_rgb is True
    warmup, steps = config.param_scheduler
    assert (warmup.type, warmup.end) == ('LinearLR', 1000)
    assert (steps.type, steps.milestones) == ('MultiStepLR', [8, 11])


def test_swin_schedule_of_a_segmentor():
    config = replace(stock(PSPNET), 'swin_t', swin_schedule=True).config
    warmup, poly = config.param_scheduler
    assert (warmup.type, warmup.end) == ('LinearLR', 1500)
    assert (poly.type, poly.power, poly.begin, poly.end) == ('PolyLR', 1.0, 1500, 80000)
    assert config.optim_wrapper.optimizer.lr == 0.00006


@pytest.mark.parametrize(
    ('name', 'backbone', 'message'),
    [
        (MASK_RCNN, 'swim_t', 'no such backbone; did you mean swin_t'),
        (MASK_RCNN, 'zzz', 'there are swin_b, swin_l, swin_nano, swin_s, swin_t, swinv2_b'),
        (MASK_RCNN, 'missing/base.py', 'no such backbone'),
        (MASK_RCNN, 'ours', r'has no Swin of mmdet or mmseg \(ResNet\): name a backbone'),
        (
            'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
            'swin_t',
            r'roi_head.shared_head \(ResLayer\) is the last stage of the ResNet in model.backbone',
        ),
        (
            'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
            'swin_t',
            r'\(UNet\) gives maps of strides 16, 8, 4, 2, 1; ours have 4, 8, 16, 32',
        ),
        (
            'mmdet::cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py',
            'swin_t',
            r'\(HourglassNet\) gives maps of strides 4, 4',
        ),
        (
            'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
            'swin_t',
            r'\(PIDNet\) gives 3 maps in training and 1 in prediction',
        ),
        (
            'mmseg::setr/setr_vit-l_mla_8xb1-80k_cityscapes-768x768.py',
            'swin_t',
            r'\(VisionTransformer\) gives maps of strides 16, 16, 16, 16',
        ),
    ],
)
def test_what_cannot_be_replaced_is_one_line(name: str, backbone: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        with_backbone(stock(name), backbone)
    assert '\n' not in str(caught.value)


def test_all_names_of_bases_and_their_weights():
    for name in ('swin_t', 'swin_b', 'swin_l', 'swinv2_s', 'swin_nano', 'swin_tiny'):
        backbone = with_backbone(stock(MASK_RCNN), name).model.backbone
        assert backbone.type.startswith('swin_dense.SwinTransformer')
        assert backbone.embed_dims in (32, 96, 128, 192)
        assert '_delete_' not in backbone
    assert backbone.init_cfg.checkpoint.endswith('swin_tiny_patch4_window7_224.pth')


def test_ours_keeps_the_values_of_the_hosts_swin():
    name = 'mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py'
    before, config = stock(name), with_backbone(stock(name), 'ours')
    assert config.model.backbone.pop('type') == 'swin_dense.SwinTransformer'
    assert before.model.backbone.pop('type') == 'SwinTransformer'
    assert config.model == before.model
    other = stock(name)
    other.model.backbone.patch_norm = False
    with pytest.raises(UserError, match=r'^model\.backbone\.patch_norm=False is not supported'):
        with_backbone(other, 'ours')


def test_options_name_fields_of_the_new_backbone():
    config = load_config(MASK_RCNN, ['model.backbone.drop_path_rate=0.4'], 'swin_t')
    assert config.model.backbone.drop_path_rate == 0.4
    with pytest.raises(UserError, match='write mmdet::FILE or mmseg::FILE'):
        load_config('mmpose::a.py')
    with pytest.raises(UserError, match=r'mmdet has no a\.py'):
        load_config('mmdet::a.py')


def test_the_runner_takes_a_neck_that_lists_the_deepest_map_first(narrow: str):
    config = with_backbone(stock('mmdet::yolo/yolov3_d53_8xb8-320-273e_coco.py'), narrow)
    model = built(config)
    assert list(model.neck.in_channels) == [192, 96, 48]
    check_channels(model)
    model.neck.in_channels = [192, 48, 96]
    with pytest.raises(UserError, match=r'model\.neck\.in_channels=\[192, 48, 96\]'):
        check_channels(model)


def test_weights_of_a_whole_model_are_not_loaded_by_name():
    config = with_backbone(stock(MASK_RCNN), 'swin_t')
    config.model.init_cfg = dict(type='Pretrained', checkpoint='detector.pth')
    runner = Runner.__new__(Runner)
    runner.cfg = config
    with pytest.raises(UserError, match=r'model\.init_cfg would load by names.*--checkpoint detector\.pth'):
        runner.build_model(config.model)
