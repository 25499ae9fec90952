"""The batch of an iteration whose loss or gradient was not finite, as a file to repeat it from.

Nothing in the file is a pickle of a class: it opens with ``torch.load(path, weights_only=True)``. What mmdet
and mmseg pack into a batch is written as dicts that name the class, and only the classes named here are
built again.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from swin_dense.engine import run_state
from swin_dense.errors import UserError
from swin_dense.storage import atomic

KIND = '__kind__'  # key of a dict that stands for something else
ELEMENTS = {
    'BaseDataElement': 'mmengine.structures',
    'InstanceData': 'mmengine.structures',
    'LabelData': 'mmengine.structures',
    'PixelData': 'mmengine.structures',
    'DetDataSample': 'mmdet.structures',
    'ReIDDataSample': 'mmdet.structures',
    'TrackDataSample': 'mmdet.structures',
    'SegDataSample': 'mmseg.structures',
}
MASKS = ('BitmapMasks', 'PolygonMasks')


@dataclass
class Repeated:
    """The outputs for the batch.

    Attributes:
        losses: mean of each loss that the model returns, and their sum as ``loss``.
        gradient_norm: of all parameters, of this batch alone.
    """

    losses: dict[str, float]
    gradient_norm: float


def reproduce(path: Path, model: BaseModel) -> Repeated:
    """Forward and backward pass of the batch, with the weights and the random states that it met.

    Args:
        path: a ``nan_batch.pt``.
        model: built from the run's config, on the device of that run; its weights are replaced.

    Raises:
        UserError: the file cannot be read, or is not of this model.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        model.load_state_dict(content['state_dict'])
        batch, autocast = plain_to_batch(content['batch']), content['autocast']
        run_state.set_random_states(content['random_states'])
    except (OSError, RuntimeError, UnpicklingError, KeyError, TypeError, ValueError, EOFError) as error:
        raise UserError(f'{path} cannot be repeated: {error}') from error
    model.train()
    model.zero_grad()
    kind, dtype = autocast or (device_of(model).type, None)
    with torch.autocast(kind, dtype=dtype and getattr(torch, dtype), enabled=autocast is not None):
        losses = model._run_forward(model.data_preprocessor(batch, True), mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    values = {name: float(value) for name, value in loss_values(losses).items()}
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    return Repeated({**values, 'loss': float(total.detach())}, norm)


def write(
    path: Path,
    model: nn.Module,
    batch: object,
    random_states: Mapping[str, Any],
    autocast: tuple[str, str] | None,
    facts: Mapping[str, Any],
) -> None:
    """Write the file whole or not at all.

    Args:
        path: the file.
        model: its weights and buffers are those that the batch met.
        batch: as the data loader gave it.
        random_states: of ``run_state.random_states``, before the forward pass.
        autocast: device and type of a forward pass in mixed precision, as ('cuda', 'bfloat16').
        facts: plain values that go in beside it: iteration, image files, losses.

    Raises:
        UserError: as ``atomic.replacing``.
    """
    content = dict(
        facts,
        batch=batch_to_plain(batch),
        state_dict={name: value.detach().cpu() for name, value in model.state_dict().items()},
        random_states=random_states,
        autocast=autocast,
    )
    atomic.write_with(path, lambda file: torch.save(content, file))


def loss_values(losses: Mapping[str, Tensor | list[Tensor]]) -> dict[str, Tensor]:
    """A scalar for each loss that a model returns, as mmengine sums and logs them; no accuracies."""
    values = {}
    for name, value in losses.items():
        if 'loss' in name:
            parts = [value] if isinstance(value, Tensor) else value
            means = [part.detach() if part.ndim == 0 else part.detach().mean() for part in parts]
            values[name] = means[0] if len(means) == 1 else sum(means)
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def image_files(batch: object) -> list[str]:
    """Paths of the images of a batch; empty where its samples name none."""
    named = (sample.get('img_path') for sample in _samples(batch))
    return [str(path) for path in named if path is not None]


def device_of(model: nn.Module) -> torch.device:
    """Where its parameters are."""
    return next((parameter.device for parameter in model.parameters()), torch.device('cpu'))


def batch_to_plain(value: Any) -> Any:  # noqa: ANN401
    """Dicts, lists, tensors and plain values that stand for a batch."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()  # a view would take all of its storage along
    if isinstance(value, np.ndarray):
        return {KIND: 'array', 'values': torch.from_numpy(np.ascontiguousarray(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, BaseDataElement):
        parts = dict(metainfo=dict(value.metainfo_items()), data=dict(value.items()))
        return {KIND: type(value).__name__, **batch_to_plain(parts)}
    if isinstance(value, Mapping):
        return {key: batch_to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [batch_to_plain(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value).__name__ in MASKS:
        parts = dict[str, Any](masks=value.masks, height=int(value.height), width=int(value.width))
        return {KIND: type(value).__name__, **batch_to_plain(parts)}
    if type(value).__name__ == 'HorizontalBoxes':
        return {KIND: 'HorizontalBoxes', 'values': batch_to_plain(value.tensor)}
    return str(value)


def plain_to_batch(value: Any) -> Any:  # noqa: ANN401
    """The batch from its plain form: the inverse of ``batch_to_plain``.

    Raises:
        ValueError: it names a class that no batch holds.
    """
    if isinstance(value, list | tuple):
        return type(value)(map(plain_to_batch, value))
    if not isinstance(value, dict):
        return value
    items = {key: plain_to_batch(item) for key, item in value.items() if key != KIND}
    kind = value.get(KIND)
    if kind is None:
        return items
    if kind == 'array':
        return items['values'].numpy()
    if kind == 'HorizontalBoxes':
        return importlib.import_module('mmdet.structures.bbox').HorizontalBoxes(items['values'])
    if kind in MASKS:
        return getattr(importlib.import_module('mmdet.structures.mask'), kind)(**items)
    if kind in ELEMENTS:
        element = getattr(importlib.import_module(ELEMENTS[kind]), kind)(metainfo=items['metainfo'])
        for name, item in items['data'].items():
            setattr(element, name, item)
        return element
    raise ValueError(f'{kind} is no part of a batch')


def _samples(value: object) -> Iterator[BaseDataElement]:
    if isinstance(value, BaseDataElement):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _samples(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _samples(item)
