"""How Swin is trained in the hosts' recipes: optimizer, decay rules, warmup and normalisation of images."""

import copy
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.hosts.configs import stock_config

# the hosts' recipes that Swin's published figures come from
RECIPES = {
    'mmdet': 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py',
    'mmseg': 'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
}
NORMALISATION = ('mean', 'std', 'bgr_to_rgb')


def differences(config: Config) -> list[str]:
    """What a config trains otherwise than Swin's recipes, for the header of a run."""
    recipe = _recipe(config)
    optimizer, images = _optimizer(config), config.model.get('data_preprocessor') or {}
    parts = []
    if optimizer.get('type') != _optimizer(recipe)['type']:
        parts.append(f'{optimizer.get("type")} with lr {optimizer.get("lr")}')
    if any(images.get(name) != recipe.model.data_preprocessor[name] for name in NORMALISATION):
        parts.append(f'images normalised by mean {images.get("mean")} and std {images.get("std")}')
    return parts


def take(config: Config) -> None:
    """Train as Swin's recipes do; the length of the schedule, its steps and the batch stay the config's.

    Args:
        config: changed in place.
    """
    recipe = _recipe(config)
    config.optim_wrapper = copy.deepcopy(recipe.optim_wrapper)
    warmup, *_ = copy.deepcopy(recipe.param_scheduler)
    rest = [entry for entry in config.get('param_scheduler') or () if not _is_warmup(entry)]
    for entry in rest:  # a schedule by iterations begins when the warmup ends
        if entry.get('type') == 'PolyLR' and not entry.get('by_epoch', True):
            entry.begin, entry.power, entry.eta_min = warmup.end, 1.0, 0.0
    config.param_scheduler = [warmup, *rest]
    for name in NORMALISATION:
        config.model.data_preprocessor[name] = copy.deepcopy(recipe.model.data_preprocessor[name])


def _recipe(config: Config) -> Config:
    return stock_config(RECIPES[config.get('default_scope', 'mmdet')])


def _optimizer(config: Config) -> ConfigDict:
    return (config.get('optim_wrapper') or ConfigDict()).get('optimizer') or ConfigDict()


def _is_warmup(entry: dict[str, Any]) -> bool:
    return entry.get('type') in ('LinearLR', 'ConstantLR') and entry.get('begin', 0) == 0
