"""Mask R-CNN and UPerNet, of our recipe and of the host's config with the same weights, and their inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.ops import RoIAlign
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from benchmarks.backbones import exported, fill, randomise
from benchmarks.settings import ARCHITECTURES, OURS, Setting
from swin_dense.models.layout import connect

RECIPES = Path(__file__).parents[1] / 'configs'
# our recipe and the config that it replaces; other sizes of Swin go into the same two
CONFIGS = {
    'mask_rcnn': ('mask_rcnn_swin_t.py', 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'),
    'upernet': (
        'upernet_swin_t.py',
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    ),
}
STRIDE = 32  # detectors' images are padded to its multiples
ORIGINAL = 0.6  # of an original COCO image's side to that of the resized one, as 480 to 800
OBJECTS = 7  # of an image of COCO, on average
COMMON = 3.5  # logit of a class that every box then has a score of 0.3 for, among 80 others
CLASSES = {'mask_rcnn': 80, 'upernet': 150}
# the parts that take tensors and return tensors, which torch.compile can take as they are
TENSOR_PARTS = ('backbone', 'neck', 'rpn_head', 'decode_head', 'auxiliary_head')


def config(setting: Setting, who: str) -> Config:
    """Our recipe or the host's config, for the setting's size of Swin; nothing is to be downloaded."""
    recipe, hosts = CONFIGS[setting.model]
    loaded = (
        Config.fromfile(RECIPES / recipe) if who == OURS else Config.fromstring(f'_base_ = {hosts!r}', '.py')
    )
    swin = ARCHITECTURES[setting.variant]
    model = loaded.model
    model.backbone.update(swin._asdict(), init_cfg=None, drop_path_rate=0.0)
    channels = [swin.embed_dims * 2**i for i in range(4)]
    if setting.model == 'mask_rcnn':
        model.neck.in_channels = channels
    else:
        model.decode_head.in_channels, model.auxiliary_head.in_channels = channels, channels[2]
        model.data_preprocessor.size = (setting.height, setting.width)
    return loaded


def ours(setting: Setting) -> BaseModel:
    """Our model, with random weights."""
    torch.manual_seed(0)
    model = _built(config(setting, OURS))
    randomise(model.backbone)
    if setting.model == 'mask_rcnn':
        # a trained detector fills the places that it has for objects; random scores leave them empty
        with torch.no_grad():
            model.roi_head.bbox_head.fc_cls.bias[0] = COMMON
    return model


def peer(name: str, setting: Setting, mine: BaseModel) -> BaseModel:
    """The host's model with the weights of ours.

    RoIAlign is torchvision's, which works as mmcv's compiled one does. Ours would stand in for that.
    """
    model = _built(config(setting, name))
    fill(model, exported(mine, name))
    for module in model.modules():
        if isinstance(module, RoIAlign):
            module.use_torchvision = True
    return model


def _built(loaded: Config) -> BaseModel:
    with DefaultScope.overwrite_default_scope(loaded.default_scope):
        return connect(revert_sync_batchnorm(MODELS.build(loaded.model)))


def batch(setting: Setting, device: str) -> tuple[Tensor, list[BaseDataElement]]:
    """Images as the host's preprocessor leaves them, with labels.

    Returns:
        (B, 3, H, W), and a data sample for each. H and W are padded for detection.
    """
    generator = torch.Generator().manual_seed(1)
    height, width = setting.height, setting.width
    image = torch.randn((setting.batch, 3, height, width), generator=generator)
    if setting.model == 'upernet':
        return image.to(device), [_segmentation(setting, generator, device) for _ in image]
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    image = torch.nn.functional.pad(image, padding)
    size = tuple(image.shape[2:])
    return image.to(device), [_detection(setting, size, generator, device) for _ in image]


def _segmentation(setting: Setting, generator: torch.Generator, device: str) -> SegDataSample:
    size = (setting.height, setting.width)
    labels = torch.randint(CLASSES['upernet'], (1, *size), generator=generator)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels.to(device)))
    sample.set_metainfo(dict(img_shape=size, ori_shape=size, pad_shape=size, padding_size=[0] * 4))
    return sample


def _detection(
    setting: Setting, padded: tuple[int, int], generator: torch.Generator, device: str
) -> DetDataSample:
    size = (setting.height, setting.width)
    limits = torch.tensor([size[1], size[0]])
    corner = 0.6 * torch.rand((OBJECTS, 2), generator=generator) * limits
    extent = (0.05 + 0.35 * torch.rand((OBJECTS, 2), generator=generator)) * limits
    boxes = torch.cat([corner, corner + extent], dim=1)
    masks = np.zeros((OBJECTS, *padded), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    labels = torch.randint(CLASSES['mask_rcnn'], (OBJECTS,), generator=generator)
    objects = InstanceData(
        bboxes=boxes.to(device), labels=labels.to(device), masks=BitmapMasks(masks, *padded)
    )
    original = tuple(round(ORIGINAL * side) for side in size)
    scale = (size[1] / original[1], size[0] / original[0])
    about = dict(img_shape=size, ori_shape=original, scale_factor=scale, pad_shape=padded)
    return DetDataSample(gt_instances=objects, metainfo=dict(about, batch_input_shape=padded))


def infer(model: BaseModel, image: Tensor, samples: list[BaseDataElement]) -> Any:  # noqa: ANN401
    """From preprocessed images to boxes and masks, or to label maps, in the size of the originals."""
    return model.predict(image, samples)


def train(model: BaseModel, image: Tensor, samples: list[BaseDataElement]) -> Tensor:
    """The loss, with the same choice of proposals each time."""
    torch.manual_seed(0)
    return model.parse_losses(model.loss(image, samples))[0]


def maps(model: BaseModel, image: Tensor, samples: list[BaseDataElement]) -> list[Tensor]:
    """What is compared: logits of a segmentor, the pyramid of a detector, whose boxes need not be stable."""
    if hasattr(model, 'decode_head'):
        return [model.encode_decode(image, [sample.metainfo for sample in samples])]
    return list(model.extract_feat(image))


def detected(samples: list[BaseDataElement]) -> int | None:
    """How many objects a detector found, after ``infer``; None for segmentors."""
    if not all('pred_instances' in sample for sample in samples):
        return None
    return sum(len(sample.pred_instances) for sample in samples)
