"""The loss on the validation images, in the units of training."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import BaseLoop
from mmengine.runner.amp import autocast
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import nn
from torch.nn.functional import pad

from swin_dense.console.terminal import say
from swin_dense.engine.runner import Runner
from swin_dense.formats.label_maps import IGNORED


class ValLossHook(Hook):
    """``val/loss`` and its parts, ``val/loss_cls`` and so on, at each evaluation during training.

    The mean over the validation images, of all processes, of what ``model(..., mode='loss')`` gives in
    evaluation mode. Training goes on as if it had not been computed. It is in the log, in ``scalars.json``
    and in the metrics that ``save_best`` and ``EarlyStoppingHook`` see. Images that a sampler repeats, to
    give every process as many, count as often.
    """

    priority = 'HIGHEST'  # before the hooks that log the metrics

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.images = 0
        self.possible = True

    def before_val_epoch(self, runner: Runner) -> None:
        self.sums, self.images = {}, 0
        logged = runner.message_hub.log_scalars
        for name in [name for name in logged if name.startswith('val/val/')]:
            del logged[name]  # mmengine would log the mean over the last ten evaluations

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        if not self.possible or data_batch is None:
            return
        try:
            with torch.no_grad(), autocast(enabled=runner.val_loop.fp16):
                losses = batch_losses(runner.model, with_annotations(data_batch, runner.val_loop))
        except Exception as error:  # whatever a model's loss makes of it, the evaluation stands
            self.possible = False
            say(f'no validation loss: {type(error).__name__}: {error}')
            runner.logger.info('no validation loss', exc_info=True)
            return
        count = len(data_batch['data_samples'])
        self.images += count
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * count

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        everywhere = all_gather_object((self.possible, self.images, self.sums))
        images = sum(images for _, images, _ in everywhere)
        if not images or not all(possible for possible, _, _ in everywhere):
            return
        names = dict.fromkeys(name for _, _, sums in everywhere for name in sums)
        losses = {
            f'val/{name}': sum(sums.get(name, 0.0) for _, _, sums in everywhere) / images for name in names
        }
        for name, value in losses.items():
            runner.message_hub.update_scalar(f'val/{name}', value)
        if metrics:  # with none at all, save_best would take the loss for the metric that it wants
            metrics.update(losses)


def batch_losses(model: nn.Module, batch: dict) -> dict[str, float]:
    """The loss of a batch and its parts, under the names of training; the model and all random states stay.

    Args:
        model: a detector or segmentor, in evaluation mode.
        batch: as a data loader gives it, the ground truth in the scale of the inputs.
    """
    inner: Any = model.module if isinstance(model, MMDistributedDataParallel) else model
    preprocessor = inner.data_preprocessor
    augments = getattr(preprocessor, 'batch_augments', None)
    with _undisturbed(inner):
        try:
            preprocessor.batch_augments = None
            data = preprocessor(batch, True)  # as in training, it pads the ground truth too
        finally:
            preprocessor.batch_augments = augments
        _, parts = inner.parse_losses(inner(**data, mode='loss'))
    return {name: float(value.detach()) for name, value in parts.items() if 'loss' in name}


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Samplers draw the same each time; random states, and what losses count in buffers, are put back."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            for buffer, before in buffers:
                buffer.copy_(before)


def with_annotations(batch: dict, loop: BaseLoop) -> dict:
    """The batch with its ground truth in the scale of the inputs.

    Raises:
        ValueError: the loop's pipeline loads no annotations.
    """
    dataset = loop.dataloader.dataset
    while not hasattr(dataset, 'pipeline'):
        dataset = dataset.datasets[0] if hasattr(dataset, 'datasets') else dataset.dataset
    names = [type(transform).__name__ for transform in dataset.pipeline.transforms]
    loading = next((i for i, name in enumerate(names) if name.endswith('Annotations')), None)
    if loading is None:
        raise ValueError('the validation pipeline loads no annotations')
    if not any('Resize' in name for name in names[:loading]):
        return batch
    return {**batch, 'data_samples': [in_input_scale(sample) for sample in batch['data_samples']]}


def in_input_scale(sample: BaseDataElement) -> BaseDataElement:
    """A copy of a sample whose boxes, masks and label map follow the image through its resizing.

    The hosts' pipelines for validation load them after it, in the scale of the original: metrics are
    computed there, but the loss in the scale of the input.
    """
    scaled = sample.new()
    for name in ('gt_instances', 'ignored_instances'):
        if name in sample:
            setattr(scaled, name, _scaled_instances(sample.get(name), sample))
    if 'data' in sample.get('gt_sem_seg', ()):
        scaled.gt_sem_seg = PixelData(data=_scaled_labels(sample.gt_sem_seg.data, sample))
    return scaled


def _size(sample: BaseDataElement) -> tuple[int, int]:
    """Height and width of the resized image, before any padding."""
    (height, width), (x, y) = sample.ori_shape[:2], sample.scale_factor
    return round(height * y), round(width * x)


def _scaled_instances(instances: InstanceData, sample: BaseDataElement) -> InstanceData:
    scaled = instances.new()
    if 'bboxes' in instances:
        scaled.bboxes = instances.bboxes.clone()
        scaled.bboxes.rescale_(sample.scale_factor)
        scaled.bboxes.clip_(_size(sample))
    if 'masks' in instances:
        scaled.masks = instances.masks.resize(_size(sample)).pad(sample.img_shape[:2])
    return scaled


def _scaled_labels(labels: torch.Tensor, sample: BaseDataElement) -> torch.Tensor:
    """(1, H, W) as mmseg's Resize would have made it."""
    height, width = _size(sample)
    resized = mmcv.imresize(
        labels[0].numpy().astype(np.int32), (width, height), interpolation='nearest', backend='cv2'
    )
    right, below = sample.img_shape[1] - width, sample.img_shape[0] - height
    return pad(torch.from_numpy(resized)[None].long(), (0, right, 0, below), value=IGNORED)
