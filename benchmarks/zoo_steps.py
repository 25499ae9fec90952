"""Build a model of a stock config, take a training step and predict, on tiny made-up inputs."""

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmdet.structures import DetDataSample, ReIDDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.testing import demo_track_inputs
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from benchmarks.zoo_language import use_bert

SIDE = 128  # of the images in pixels
FIXED_SIDE = ('BEiT', 'MAE')  # backbones that take images of their img_size only
# fewer of what only costs time; the structure stays
FEWER = {'num_queries': 100, 'num_points': 256}  # 100: as many as are decoded


class Tried(NamedTuple):
    """A model with the batches that it takes."""

    model: nn.Module
    batch: Callable[[bool], dict[str, Any]]


def build(config: Config, bert: Path) -> Tried:
    """The model of a config.

    Args:
        config: of the zoo; changed in place.
        bert: a folder with a language model, in the place of the published one.
    """
    use_bert(config.model, bert)
    warnings.simplefilter('ignore')
    os.environ.setdefault('HF_HUB_OFFLINE', '1')
    init_default_scope(config.get('default_scope', 'mmdet'))
    torch.manual_seed(0)
    hub = MessageHub.get_instance('zoo')  # where a runner says how far it is
    for name, value in {'iter': 1, 'epoch': 0, 'max_iters': 100, 'max_epochs': 1}.items():
        hub.update_info(name, value)
    model = revert_sync_batchnorm(MODELS.build(_small(config.model, _side(config))))
    model.init_weights()
    return Tried(model, _batch(config, model))


def loss(tried: Tried) -> None:
    """Take a training step, less the optimizer's part."""
    model, batch = tried
    model.train()
    data = model.data_preprocessor(batch(True), True)
    total, _ = model.parse_losses(model(**data, mode='loss'))
    total.backward()
    if not any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters()):
        raise RuntimeError('no parameter has a gradient')


@torch.no_grad()
def predict(tried: Tried) -> None:
    """Predict once."""
    model, batch = tried
    model.eval()
    data = model.data_preprocessor(batch(False), False)
    if len(model(**data, mode='predict')) < 1:
        raise RuntimeError('no prediction')


def _side(config: Config) -> int:
    """Height and width of the images in pixels: small, but not too small for the model."""
    backbone = config.model.get('backbone') or {}
    if backbone.get('type') in FIXED_SIDE:
        size = backbone.img_size
        return int(size if isinstance(size, int) else size[0])
    head = config.model.get('bbox_head')
    if 'SSD' in str(backbone.get('type')) and isinstance(head, dict):
        return int(head.anchor_generator.input_size)
    return 512 if 'LRASPPHead' in str(config.model.get('decode_head')) else SIDE  # its pooling spans 49 cells


def _small(model: ConfigDict, side: int) -> ConfigDict:
    """The model with fewer queries and points, and without weights to fetch."""
    model = copy.deepcopy(model)

    def visit(node: object) -> None:
        if isinstance(node, dict):
            for key, value in list(node.items()):
                if key in ('pretrained', 'teacher_ckpt') or (
                    key == 'init_cfg' and 'checkpoint' in str(value)
                ):
                    node[key] = None
                elif key in FEWER and isinstance(value, int) and value > FEWER[key]:
                    node[key] = FEWER[key]
                else:
                    visit(value)
        elif isinstance(node, (list, tuple)):
            for value in node:
                visit(value)

    visit(model)
    _keep_small(model.get('data_preprocessor') or {}, side)
    return model


def _keep_small(processor: dict, side: int) -> None:
    """Let a preprocessor and its augmentations neither pad nor enlarge images."""
    for sized in (processor, *(processor.get('batch_augments') or ())):
        for name in ('size', 'random_size_range'):
            if sized.get(name) is not None:
                sized[name] = (side, side)


def _batch(config: Config, model: nn.Module) -> Callable[[bool], dict[str, Any]]:
    classes = _classes(config.model)
    if config.get('default_scope') == 'mmseg':
        return lambda training: _segmentor_batch(config, classes, _side(config))
    processor = config.model.get('data_preprocessor') or {}
    if 'TrackDataPreprocessor' in str(processor.get('type')):
        frames_alone = bool(processor.get('use_det_processor'))
        return lambda training: (
            _detector_batch(config, classes, True) if training and frames_alone else _track_batch(training)
        )
    if 'ReID' in type(model).__name__ or 'Classifier' in type(model).__name__:
        kind = ReIDDataSample if 'ReID' in type(model).__name__ else DataSample
        return lambda training: _classifier_batch(kind, classes)
    return lambda training: _detector_batch(config, classes, training)


def _classes(node: object) -> int:
    """The least number of classes that a part of the model states."""
    found: list[int] = []

    def visit(part: object) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                if key in ('num_classes', 'num_things_classes') and isinstance(value, int) and value > 0:
                    found.append(value)
                visit(value)
        elif isinstance(part, (list, tuple)):
            for value in part:
                visit(value)

    visit(node)
    return min(found, default=2)


def _image(side: int, channels: int = 3) -> Tensor:
    return torch.randint(0, 256, (channels, side, side), dtype=torch.uint8)


def _meta(i: int, side: int) -> dict[str, Any]:
    return dict(
        img_id=i,
        img_path='demo.png',
        img_shape=(side, side),
        ori_shape=(side, side),
        pad_shape=(side, side),
        batch_input_shape=(side, side),
        scale_factor=(1.0, 1.0),
        flip=False,
        flip_direction=None,
        border=np.array([0, side, 0, side], dtype=np.float32),
        text=('person', 'car', 'dog', 'kite'),  # as many as there are labels
        custom_entities=True,
        caption_prompt=None,
    )


def _segmentor_batch(config: Config, classes: int, side: int) -> dict[str, list]:
    channels = int((config.model.get('backbone') or {}).get('in_channels', 3) or 3)
    inputs, samples = [], []
    for i in range(2):
        inputs.append(_image(side, channels))
        sample = SegDataSample(metainfo=_meta(i, side))
        labels = torch.arange(side * side).view(1, side, side) // 999 % classes
        sample.gt_sem_seg = PixelData(data=labels)
        sample.gt_edge_map = PixelData(data=labels % 2)
        sample.gt_depth_map = PixelData(data=torch.rand(1, side, side) * 5 + 0.1)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def _detector_batch(config: Config, classes: int, training: bool) -> dict[str, Any]:
    # one at a time in prediction, as the hosts' loaders have it: some models take no more
    pipeline = str(config.get('train_dataloader'))
    with_masks = "'with_mask': True" in pipeline or 'LoadPanopticAnnotations' in pipeline
    side = _side(config)
    samples = [_detector_sample(i, classes, with_masks, side) for i in range(2 if training else 1)]
    if str(config.model.type).endswith('FastRCNN'):  # the others propose for themselves
        for sample in samples:
            boxes = sample.gt_instances.bboxes
            sample.proposals = InstanceData(bboxes=boxes + 2, scores=torch.rand(len(boxes)))
    batch: dict[str, Any] = dict(inputs=[_image(side) for _ in samples], data_samples=samples)
    if not training or 'semi_train_cfg' not in config.model:
        return batch
    branches = ('sup', 'unsup_teacher', 'unsup_student')
    return dict(
        inputs={branch: list(batch['inputs']) for branch in branches},
        data_samples={branch: [_with_homography(sample) for sample in samples] for branch in branches},
    )


def _with_homography(sample: DetDataSample) -> DetDataSample:
    sample = copy.deepcopy(sample)
    sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    return sample


def _detector_sample(i: int, classes: int, with_masks: bool, side: int) -> DetDataSample:
    sample = DetDataSample(metainfo=_meta(i, side))
    boxes = torch.tensor([[8, 10, 70, 60], [40, 30, 120, 110], [5, 80, 40, 125], [64, 8, 100, 40.0]])
    masks = np.zeros((len(boxes), side, side), dtype=np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(len(boxes)) % max(1, classes),
        positive_maps=torch.eye(256)[: len(boxes)],
        text_token_mask=torch.ones(len(boxes), 256, dtype=torch.bool),
    )
    if with_masks:
        instances.masks = BitmapMasks(masks, side, side)
    sample.gt_instances = instances
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    stuff = torch.arange(side * side).view(1, side, side) // 999 % max(1, classes)
    sample.gt_sem_seg = PixelData(sem_seg=stuff)
    return sample


def _classifier_batch(kind: type, classes: int) -> dict[str, list]:
    """Images of whole persons or things, twice as high as wide."""
    samples = []
    for i in range(4):
        sample = kind(metainfo=dict(_meta(i, SIDE), img_shape=(2 * SIDE, SIDE), num_classes=classes))
        samples.append(sample.set_gt_label(i % 2))
    images = [torch.randint(0, 256, (3, 2 * SIDE, SIDE), dtype=torch.uint8) for _ in samples]
    return dict(inputs=images, data_samples=samples)


def _track_batch(training: bool) -> dict[str, Any]:
    frames = demo_track_inputs(
        batch_size=1,
        num_frames=2,
        image_shapes=(3, SIDE, SIDE),
        num_items=[4],
        key_frames_inds=[0] if training else None,
        with_mask=True,
    )
    if not training:
        for sample in frames['data_samples']:
            sample.set_metainfo(dict(ori_video_length=2))
    return frames
