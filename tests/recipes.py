"""Configs read, compared and built, for the tests that hold ours against the hosts'."""

import copy
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from unittest import mock

import torch
from mmengine import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope
from torch import nn

CONFIGS = Path(__file__).parents[1] / 'configs'
# top-level names that a recipe may have or change: helper variables, the batch rule, addresses of weights
OWN_KEYS = {
    'backbone', 'channels', 'release', 'weights', 'no_decay', 'heads', 'stages',
    'auto_scale_lr', 'pretrained', 'checkpoint_file',
}  # fmt: skip


@cache
def ours(recipe: str) -> Config:
    """A recipe by the name of its file in configs."""
    return Config.fromfile(CONFIGS / f'{recipe}.py')


@cache
def hosts(path: str) -> Config:
    """A config that a host ships, by ``mmdet::`` or ``mmseg::`` and its path."""
    return Config.fromstring(f'_base_ = {path!r}', '.py')


@cache
def built(config: Config) -> nn.Module:
    """The config's model on the meta device: it has shapes and no values."""
    model = copy.deepcopy(config.model)
    model.backbone.init_cfg = None
    # the hosts' Swin reads the values of a linspace back
    linspace = mock.patch('torch.linspace', partial(torch.linspace, device='cpu'))
    with DefaultScope.overwrite_default_scope(config.default_scope), torch.device('meta'), linspace:
        return MODELS.build(model).to('meta').eval()


def differences(a: object, b: object, path: str = '') -> Iterator[str]:
    """The dotted paths at which two nested settings differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            here = f'{path}.{key}' if path else str(key)
            if key in a and key in b:
                yield from differences(a[key], b[key], here)
            else:
                yield here
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f'{path}[{i}]')
    elif type(a) is not type(b) or a != b:
        yield path


def strings(node: object) -> Iterator[str]:
    """Every string in nested settings, keys included."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from strings(key)
            yield from strings(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from strings(value)
    elif isinstance(node, str):
        yield node


def host_name(name: str) -> str:
    """The name that a host gives to our parameter."""
    if not name.startswith('backbone.'):
        return name
    for mine, theirs in (
        ('backbone.layers.', 'backbone.stages.'),
        ('.patch_embed.proj.', '.patch_embed.projection.'),
        ('.attn.', '.attn.w_msa.'),
        ('.mlp.fc1.', '.ffn.layers.0.0.'),
        ('.mlp.fc2.', '.ffn.layers.1.'),
    ):
        name = name.replace(mine, theirs)
    return name


def parameter_groups(model: nn.Module, config: Config) -> dict[str, dict]:
    """The optimizer's settings for each parameter by name, as mmengine builds them."""
    wrapper = dict(config.optim_wrapper.to_dict(), type='OptimWrapper')  # fp16's needs a GPU
    with DefaultScope.overwrite_default_scope(config.default_scope):
        optimizer = build_optim_wrapper(model, wrapper).optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = {}
    for group in optimizer.param_groups:
        settings = {key: value for key, value in group.items() if key not in ('params', 'param_names')}
        groups.update({names[id(parameter)]: settings for parameter in group['params']})
    return {'optimizer': {'type': type(optimizer)}, **groups}
