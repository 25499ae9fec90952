"""Our backbone in the hosts' stock configs, plugged in as a user does it: a base file and one line."""

import copy
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mmdet.registry
import mmdet.utils
import mmengine.registry
import mmseg.registry
import mmseg.utils
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope, Registry
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

import swin_dense.registry
from swin_dense.models import SwinTransformer

for host in (mmdet.utils, mmseg.utils):  # so that the registries are full when we look into them
    host.register_all_modules(init_default_scope=False)

SWIN_TINY = Path(__file__).parents[1] / 'configs' / '_base_' / 'swin_tiny.py'
HOST_REGISTRIES = [mmdet.registry, mmseg.registry, mmengine.registry]
IMAGES = [(128, 160), (96, 150)]  # height, width; the originals are twice as large


class Stock(NamedTuple):
    """A stock config and what a user's config says after ``_base_``."""

    file: str
    override: str


TWO_STAGE = 'model = dict(backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))'
# The necks of one-stage detectors start at C3. A C2 that nothing uses would leave norm0 without a
# gradient, and DistributedDataParallel stops at that.
ONE_STAGE = (
    'model = dict(backbone=dict(_base_.backbone, out_indices=(1, 2, 3)), '
    'neck=dict(in_channels=_base_.channels[1:], start_level=0))'
)
# The stock FCOS expects Caffe's pixel values; our weights expect ImageNet's mean and deviation, RGB.
FCOS = ONE_STAGE[:-1] + (
    ', data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True))'
)
# C4 for the auxiliary head, C5 for the other
LAST_TWO = (
    'model = dict(pretrained=None, backbone=dict(_base_.backbone, out_indices=(2, 3)), '
    'decode_head=dict(in_channels=768, in_index=1), auxiliary_head=dict(in_channels=384, in_index=0))'
)
UPERNET = (
    'model = dict(pretrained=None, backbone=_base_.backbone, '
    'decode_head=dict(in_channels=_base_.channels), auxiliary_head=dict(in_channels=384))'
)
DEEPLAB = (
    'model = dict(pretrained=None, backbone=dict(_base_.backbone, out_indices=(0, 2, 3)), '
    'decode_head=dict(in_channels=768, in_index=2, c1_in_channels=96), '
    'auxiliary_head=dict(in_channels=384, in_index=1))'
)
SEMANTIC_FPN = (
    'model = dict(pretrained=None, backbone=_base_.backbone, neck=dict(in_channels=_base_.channels))'
)
STOCK = {
    'Mask R-CNN': Stock('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', TWO_STAGE),
    'Cascade Mask R-CNN': Stock('mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py', TWO_STAGE),
    'Faster R-CNN': Stock('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', TWO_STAGE),
    'RetinaNet': Stock('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', ONE_STAGE),
    'ATSS': Stock('mmdet::atss/atss_r50_fpn_1x_coco.py', ONE_STAGE),
    'FCOS': Stock('mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', FCOS),
    'UPerNet': Stock('mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py', UPERNET),
    'PSPNet': Stock('mmseg::pspnet/pspnet_r50-d8_4xb4-160k_ade20k-512x512.py', LAST_TWO),
    'FCN': Stock('mmseg::fcn/fcn_r50-d8_4xb4-160k_ade20k-512x512.py', LAST_TWO),
    'DeepLabV3+': Stock('mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-160k_ade20k-512x512.py', DEEPLAB),
    'Semantic FPN': Stock('mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py', SEMANTIC_FPN),
}


class Plugged(NamedTuple):
    """A user's config, resolved, and its model."""

    config: Config
    model: BaseModel


def read_user_config(folder: Path, stock: Stock) -> Config:
    """Write the config that a user writes, and read it."""
    file = folder / 'mine.py'
    file.write_text(f'_base_ = [{stock.file!r}, {SWIN_TINY.as_posix()!r}]\n{stock.override}\n')
    return Config.fromfile(file)


def build(config: Config) -> BaseModel:
    """The model with random weights, set to be quick and to report boxes although it knows nothing."""
    model = copy.deepcopy(config.model)
    model.backbone = dict(model.backbone, init_cfg=None, drop_path_rate=0.0)
    if config.default_scope == 'mmseg':
        model.data_preprocessor = dict(model.data_preprocessor, size=IMAGES[0])
    elif 'rpn' in model.test_cfg:
        model.train_cfg.rpn_proposal.max_per_img = 64
        model.test_cfg.rpn.max_per_img = 32
        model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=8)
    else:
        model.test_cfg.update(score_thr=0.0, max_per_img=8)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return revert_sync_batchnorm(MODELS.build(model))


@pytest.fixture(scope='module', params=STOCK)
def plugged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugged]:
    torch.manual_seed(0)
    config = read_user_config(tmp_path_factory.mktemp('user'), STOCK[request.param])
    model = build(config)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        yield Plugged(config, model)


def batch(scope: str) -> dict:
    """Two images of different sizes with labels, as the host's pipeline packs them.

    For detection the second has no objects; for segmentation a part of it is to be ignored.
    """
    generator = torch.Generator().manual_seed(0)
    pack = {'mmdet': detection_sample, 'mmseg': segmentation_sample}[scope]
    inputs = [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in IMAGES]
    samples = [pack(size, empty) for size, empty in zip(IMAGES, (False, True), strict=True)]
    for sample, (height, width) in zip(samples, IMAGES, strict=True):
        sample.set_metainfo({'img_shape': (height, width), 'ori_shape': (2 * height, 2 * width)})
        sample.set_metainfo({'scale_factor': (0.5, 0.5)})
    return {'inputs': inputs, 'data_samples': samples}


def detection_sample(size: tuple[int, int], empty: bool) -> DetDataSample:
    boxes = torch.tensor([[10.0, 20, 60, 90], [70, 8, 150, 120]])[: 0 if empty else 2]
    masks = np.zeros((len(boxes), *size), dtype=np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.tensor([3, 17])[: len(boxes)]
    objects = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, *size))
    return DetDataSample(gt_instances=objects)


def segmentation_sample(size: tuple[int, int], empty: bool) -> SegDataSample:
    height, width = size
    labels = (torch.arange(height)[:, None] + torch.arange(width)[None, :]) // 40
    if empty:
        labels[: height // 2] = 255
    return SegDataSample(gt_sem_seg=PixelData(data=labels[None]))


def train_once(model: BaseModel, scope: str) -> None:
    """Take one loss of the batch, and its gradients."""
    model.train().zero_grad()
    data = model.data_preprocessor(batch(scope), training=True)
    loss, parts = model.parse_losses(model(**data, mode='loss'))
    assert all(torch.isfinite(part) for part in parts.values()), parts
    assert loss > 0
    loss.backward()


def without_gradient(model: BaseModel) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


def test_nothing_of_the_stock_backbone_is_left(plugged: Plugged):
    backbone = plugged.config.model.backbone
    assert set(backbone) <= {'type', *inspect.signature(SwinTransformer).parameters}
    assert type(plugged.model.backbone) is SwinTransformer
    assert plugged.config.model.get('pretrained') is None
    assert plugged.model.backbone.out_channels == [
        plugged.config.channels[i] for i in plugged.model.backbone.out_indices
    ]
    if plugged.model.with_neck:
        assert type(plugged.model.neck).__module__.split('.')[0] == plugged.config.default_scope


def test_pixels_are_normalised_as_the_weights_expect(plugged: Plugged):
    settings = plugged.config.model.data_preprocessor
    assert settings.mean == [123.675, 116.28, 103.53]
    assert settings.std == [58.395, 57.12, 57.375]
    assert settings.bgr_to_rgb


def test_a_loss_reaches_every_parameter(plugged: Plugged):
    model = plugged.model
    train_once(model, plugged.config.default_scope)
    assert without_gradient(model) == set()
    tables = {name: p.grad for name, p in model.backbone.named_parameters() if name.endswith('bias_table')}
    assert len(tables) == 12
    for name, gradient in tables.items():
        assert torch.isfinite(gradient).all(), name
        assert gradient.any(), name


def test_predictions_are_well_formed(plugged: Plugged):
    scope = plugged.config.default_scope
    check = {'mmdet': check_instances, 'mmseg': check_segmentation}[scope]
    images = batch(scope)
    batches = [images]
    if scope == 'mmseg':  # it takes no images of different sizes together
        batches = [{key: [values[i]] for key, values in images.items()} for i in range(len(IMAGES))]
    with torch.no_grad():
        results = [result for part in batches for result in plugged.model.eval().test_step(part)]
    assert len(results) == len(IMAGES)
    for result, (height, width) in zip(results, IMAGES, strict=True):
        check(result, 2 * height, 2 * width, plugged)


def check_instances(result: DetDataSample, height: int, width: int, plugged: Plugged) -> None:
    found = result.pred_instances
    count = len(found)
    assert 0 < count <= 8
    assert found.bboxes.shape == (count, 4)
    assert torch.isfinite(found.bboxes).all()
    assert (found.bboxes[:, :2] <= found.bboxes[:, 2:]).all()
    assert found.bboxes.min() >= 0
    assert (found.bboxes.amax(0)[2:] <= torch.tensor([width, height]) + 1e-3).all()
    assert found.scores.shape == found.labels.shape == (count,)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert ((found.labels >= 0) & (found.labels < 80)).all()
    assert ('masks' in found) == ('mask_head' in plugged.config.model.get('roi_head', {}))
    if 'masks' in found:
        assert found.masks.shape == (count, height, width)
        assert found.masks.dtype == torch.bool


def check_segmentation(result: SegDataSample, height: int, width: int, plugged: Plugged) -> None:
    classes = plugged.config.model.decode_head.num_classes
    assert classes == 150
    assert result.seg_logits.data.shape == (classes, height, width)
    assert torch.isfinite(result.seg_logits.data).all()
    assert result.pred_sem_seg.data.shape == (1, height, width)
    assert torch.equal(result.pred_sem_seg.data, result.seg_logits.data.argmax(0, keepdim=True))


def test_the_example_in_the_backbones_file_works(tmp_path: Path):
    comments = [line[1:].strip() for line in SWIN_TINY.read_text().splitlines() if line.startswith('#')]
    (base,) = [line for line in comments if line.startswith('_base_')]
    override = '\n'.join(line for line in comments if line.startswith('model ='))
    (stock,) = re.findall(r"'(mm\w+::[^']+)'", base)
    config = read_user_config(tmp_path, Stock(stock, override))
    model = build(config)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        train_once(model, config.default_scope)
    assert without_gradient(model) <= {'backbone.norm0.weight', 'backbone.norm0.bias'}


def registries(module: object) -> list[Registry]:
    return [value for value in vars(module).values() if isinstance(value, Registry)]


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_an_unprefixed_name_stays_the_hosts(host: str):
    with DefaultScope.overwrite_default_scope(host), MODELS.switch_scope_and_registry(None) as registry:
        assert registry.scope == host
        for name in ('SwinTransformer', 'FPN'):
            assert registry.get(name).__module__.startswith(f'{host}.models.')
            assert registry.get(f'swin_dense.{name}').__module__.startswith('swin_dense.models.')
        assert registry.get('swin_dense.SwinTransformer') is SwinTransformer


@pytest.mark.parametrize('host', HOST_REGISTRIES, ids=lambda host: host.__name__)
def test_nothing_of_ours_is_in_a_hosts_registry(host: object):
    assert registries(host)
    for registry in registries(host):
        for name, kind in registry.module_dict.items():
            assert not kind.__module__.startswith('swin_dense'), (registry, name)


def test_nothing_of_a_hosts_is_in_our_registries():
    ours = [registry for registry in registries(swin_dense.registry) if registry.scope == 'swin_dense']
    assert ours
    for registry in ours:
        for name, kind in registry.module_dict.items():
            assert kind.__module__.startswith('swin_dense.'), (registry, name)
