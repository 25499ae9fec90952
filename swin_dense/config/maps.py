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
    side = _side(config)
    outputs = _outputs(module, (1, int(config.get('in_channels') or 3), side, side), name)
    if not outputs or not all(isinstance(x, Tensor) and x.dim() == 4 and len(x) == 1 for x in outputs):
        raise UserError(f'{name} ({config["type"]}) gives no list of feature maps: it cannot be replaced')
    return [Map(x.size(1), round(side / x.size(3))) for x in outputs]


def _side(config: Mapping[str, Any]) -> int:
    """Of the image to run: some backbones (BEiT, MAE) take their ``img_size`` only."""
    size = config.get('img_size') or SIDE
    return int(size if isinstance(size, int) else size[0])


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


def _outputs(module: nn.Module, shape: tuple[int, int, int, int], name: str) -> list[Any]:
    """The outputs in prediction, on meta tensors or, where a module reads values back, on the CPU.

    Raises:
        UserError: the module fails on both, or gives another number of outputs in training.
    """
    on_meta = copy.deepcopy(module).to('meta')
    images = torch.zeros(shape)
    try:
        outputs = _called(on_meta, images.to('meta'), training=False)
    except Exception:
        try:
            return _called(module, images, training=False)
        except Exception as error:
            raise UserError(f'{name} cannot be run alone: {type(error).__name__}: {error}') from error
    try:
        in_training = len(_called(on_meta, images.to('meta').expand(2, -1, -1, -1), training=True))
    except Exception:  # what a module does in training may need numbers
        return outputs
    if in_training != len(outputs):
        raise UserError(
            f'{name} ({type(module).__name__}) gives {in_training} maps in training and {len(outputs)} in '
            f'prediction: it cannot be replaced'
        )
    return outputs


@torch.no_grad()
def _called(module: nn.Module, images: Tensor, training: bool) -> list[Any]:
    module.train(training)  # some of the hosts' return None
    outputs = module(images)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
