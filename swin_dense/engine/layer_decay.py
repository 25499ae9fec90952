"""Layer-wise decay of the learning rate, as in Swin's fine-tuning (SimMIM, https://arxiv.org/abs/2111.09886)."""

import re
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from swin_dense.errors import UserError
from swin_dense.models.swin import SwinBlock, SwinTransformer
from swin_dense.registry import OPTIM_WRAPPER_CONSTRUCTORS

BLOCK = re.compile(r'layers\.(\d+)\.blocks\.(\d+)\.')
MERGING = re.compile(r'layers\.(\d+)\.downsample\.')
START = ('patch_embed.', 'absolute_pos_embed')


def depth_of(name: str, depths: list[int]) -> int:
    """The depth of a backbone's parameter: 0 for the patch embedding, then the number of the block.

    Blocks are counted across the stages. A merging has the depth of the block before it. The output norms,
    which no pretrained file has, lie with the heads behind the last block.

    Args:
        name: of the parameter, without ``'backbone.'``.
        depths: blocks in each stage.
    """
    if name.startswith(START):
        return 0
    if block := BLOCK.match(name):
        return sum(depths[: int(block[1])]) + int(block[2]) + 1
    if merging := MERGING.match(name):
        return sum(depths[: int(merging[1]) + 1])
    return sum(depths) + 1


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecay(DefaultOptimWrapperConstructor):
    """Learning rates that fall from the heads to the patch embedding, for Swin v1 and v2.

    In a config: ``optim_wrapper=dict(constructor='swin_dense.LayerDecay',
    paramwise_cfg=dict(decay_rate=0.8, ...))``. A parameter at depth d of n blocks has the rate times
    ``decay_rate ** (n + 1 - d)``; everything outside of the backbone keeps its rate. All else of
    ``paramwise_cfg`` (``custom_keys``, ``norm_decay_mult``, ...) has its meaning in mmengine.

    Raises:
        UserError: ``decay_rate`` is missing, or does not lie above 0 and at most 1; or the model has no Swin
            of ours.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        rate = (self.paramwise_cfg or {}).get('decay_rate')
        if not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise UserError(f'optim_wrapper.paramwise_cfg.decay_rate={rate!r} must lie above 0 and at most 1')
        self.decay_rate = float(rate)

    def add_params(
        self,
        params: list[dict[str, Any]],
        module: nn.Module,
        prefix: str = '',
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Add a group for each parameter, as mmengine does, and lower the rates of the backbone's."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:  # mmengine calls this for each part of the model, too
            return
        depths = backbone_depths(module)
        names = {parameter: name for name, parameter in module.named_parameters()}
        for group in params:
            name = names[group['params'][0]]
            depth = depth_of(name.removeprefix('backbone.'), depths)
            if name.startswith('backbone.') or module is _backbone(module):
                scale = self.decay_rate ** (sum(depths) + 1 - depth)
                group['lr'] = float(group.get('lr') or self.base_lr or 0.0) * scale
                group['depth'] = depth


def backbone_depths(model: nn.Module) -> list[int]:
    """Blocks in each stage of a model's backbone.

    Raises:
        UserError: it is not ours.
    """
    backbone = _backbone(model)
    if not isinstance(backbone, SwinTransformer):
        raise UserError(
            f'optim_wrapper.constructor=swin_dense.LayerDecay needs a Swin of swin_dense as model.backbone, '
            f'not {type(backbone).__name__}'
        )
    return [sum(isinstance(part, SwinBlock) for part in stage.modules()) for stage in backbone.layers]


def _backbone(model: nn.Module) -> nn.Module:
    backbone: nn.Module = getattr(model, 'backbone', model)
    return backbone


def summary(groups: list[dict[str, Any]]) -> str | None:
    """The learning rate of each depth in one line, for the header; None where no group has a depth."""
    rates: dict[int, float] = {}
    for group in groups:
        if 'depth' in group:
            rates[group['depth']] = max(rates.get(group['depth'], 0.0), group.get('initial_lr', group['lr']))
    if not rates:
        return None
    last = max(rates)
    blocks = ', '.join(f'{rates[depth]:.2g}' for depth in sorted(rates) if 0 < depth < last)
    return f'patch embedding {rates.get(0, 0.0):.2g}; blocks {blocks}; output norms {rates[last]:.2g}'
