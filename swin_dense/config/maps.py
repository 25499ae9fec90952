"""The feature maps that a backbone of a config gives: found by running it."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from swin_dense.console.terminal import quiet_hosts
from swin_dense.errors import UserError

SIDE = 256  # of the image in pixels: a multiple of all strides


class Map(NamedTuple):
    """One of the maps, by its channels and its stride in pixels of the image."""

    channels: int
    stride: int


def maps_of(backbone: Mapping[str, Any], scope: str, name: str) -> list[Map]:
    """The maps of a backbone, in its order.

    Args:
        backbone: its config.
        scope: the host, ``'mmdet'`` or ``'mmseg'``.
        name: where the config has it, for messages: ``'model.backbone'``.

    Raises:
        UserError: it cannot be built or run, or it gives no feature maps.
    """
    config = copy.deepcopy(dict(backbone))
    for weights in ('pretrained', 'init_cfg'):
        config.pop(weights, None)
    module = _built(config, scope, name)
    channels = int(config.get('in_channels') or 3)
    outputs = _run(module, channels, name)
    maps: list[Any] = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if not maps or not all(isinstance(x, Tensor) and x.dim() == 4 and len(x) == 1 for x in maps):
        raise UserError(f'{name} ({config["type"]}) gives no list of feature maps: it cannot be replaced')
    in_training = _count_in_training(module, channels)
    if in_training not in (None, len(maps)):
        raise UserError(
            f'{name} ({config["type"]}) gives {in_training} maps in training and {len(maps)} in '
            f'prediction: it cannot be replaced'
        )
    return [Map(x.size(1), round(SIDE / x.size(3))) for x in maps]


def _built(config: dict[str, Any], scope: str, name: str) -> nn.Module:
    try:
        with quiet_hosts(), warnings.catch_warnings(), DefaultScope.overwrite_default_scope(scope):
            warnings.simplefilter('ignore')
            module: nn.Module = MODELS.build(config)
        return module
    except Exception as error:  # whatever a host's class raises for its arguments
        raise UserError(
            f'{name}: {config["type"]} cannot be built: {type(error).__name__}: {error}'
        ) from error


def _count_in_training(module: nn.Module, channels: int) -> int | None:
    """How many outputs there are in training; None if that cannot be found on meta tensors."""
    try:
        outputs = (
            copy.deepcopy(module).to('meta').train()(torch.zeros(2, channels, SIDE, SIDE, device='meta'))
        )
    except Exception:  # what a module does in training may need numbers
        return None
    return len(outputs) if isinstance(outputs, (list, tuple)) else 1


def _run(module: nn.Module, channels: int, name: str) -> object:
    """The outputs on meta tensors; on the CPU where a module reads values back."""
    module.eval()
    failure: Exception | None = None
    for device in ('meta', 'cpu'):
        try:
            with torch.no_grad():
                image = torch.zeros(1, channels, SIDE, SIDE, device=device)
                outputs: object = (copy.deepcopy(module).to('meta') if device == 'meta' else module)(image)
            return outputs
        except Exception as error:
            failure = error
    raise UserError(f'{name} cannot be run alone: {type(failure).__name__}: {failure}') from failure
