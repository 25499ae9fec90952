"""The rule: when a faster way stands in for a formula.

The other modules here state the formulas of the papers. The decorators below stand above them. Where the rule
allows it, they compute the same with ``swin_dense.kernels``, which is exact in real arithmetic and faster:

1. The operations compute numbers at once, on the CPU, without autocast, in single or double precision
   (``computes_on_cpu``), and the weights have the same precision.
2. The module is as its class makes it (``is_as_made``). A part that somebody replaced, a hook on a part, or a
   part in another mode must have its effect.
3. The kernel computes the gradient, if one may be wanted, and dropout, if there is any. ``blocked`` computes
   neither (``suits_inference``), ``blocked_training`` the gradient of v1 (``suits_training``).
4. The kernel was measured to be faster at these sizes (``winograd.is_faster``).

Everywhere else, on other devices, under autocast, in captured graphs, on fake tensors and in the transforms
of ``torch.func``, the formula is computed as it is written. Only ``attention`` has a wider rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from swin_dense.kernels import blocked, blocked_training, linear, resized_conv, winograd
from swin_dense.kernels.blocked import BlockConfig
from swin_dense.kernels.eager import is_eager, is_transformed

if TYPE_CHECKING:
    from mmcv.cnn import ConvModule

    from swin_dense.models.swin import SwinBlock, SwinStage
    from swin_dense.models.uper_head import UPerHead

Module = TypeVar('Module', bound=nn.Module)
Block = TypeVar('Block', bound='SwinBlock')
Linear = TypeVar('Linear', bound=nn.Linear)
Conv = TypeVar('Conv', bound=nn.Conv2d)
Forward = Callable[[Module, Tensor], Tensor]
ConvForward = Callable[[Conv, Tensor, Tensor, Tensor | None], Tensor]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor, float, float | None], Tensor]

# the layers of torch in our modules
LAYERS = (
    nn.Linear,
    nn.Conv2d,
    nn.LayerNorm,
    nn.ReLU,
    nn.Sequential,
    nn.Dropout,
    StochasticDepth,
    nn.Identity,
)


def computes_on_cpu(x: Tensor) -> bool:
    """Whether operations on x compute numbers now, on the CPU, in x's single or double precision."""
    return (
        x.device.type == 'cpu'
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled('cpu')
        and type(x) in (Tensor, nn.Parameter)
        and is_eager()
    )


def is_as_made(module: nn.Module) -> bool:
    """Whether no part is of a foreign class, has another eps or mode, or, inside the module, a hook."""
    return all(_is_ours(part) and part.training == module.training for part in module.modules()) and not any(
        has_hooks(part) for child in module.children() for part in child.modules()
    )


def _is_ours(part: nn.Module) -> bool:
    is_known = type(part) in LAYERS or type(part).__module__.startswith('swin_dense.')
    has_eps = not isinstance(part, nn.LayerNorm) or part.eps == blocked.EPS
    return is_known and has_eps and 'forward' not in part.__dict__


def has_hooks(module: nn.Module) -> bool:
    """Whether something is to be called when the module is, or when its gradient passes."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def wants_gradient(module: nn.Module, x: Tensor) -> bool:
    """Whether a backward pass may come through the module; not if it and all before it are frozen."""
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in module.parameters()))


def suits_inference(module: nn.Module, x: Tensor) -> bool:
    """Whether a kernel without a gradient and without dropout may stand in for ``module(x)``."""
    return not module.training and _suits(module, x) and not wants_gradient(module, x)


def suits_training(module: SwinBlock, x: Tensor) -> bool:
    """Whether the kernel with a gradient may stand in for ``module(x)``: v1 without dropout."""
    dropout = module.mlp.drop.p or module.attn.proj_drop.p or module.attn.attn_drop
    return (
        module.pre_norm
        and not (module.training and dropout)
        and _suits(module, x)
        and wants_gradient(module, x)
    )


def _suits(module: nn.Module, x: Tensor) -> bool:
    return (
        computes_on_cpu(x)
        and x.dtype == next(module.parameters()).dtype
        and x.numel() > 0
        and is_as_made(module)
    )


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)``, computed again in the backward pass, if there is one, instead of stored."""
    return checkpoint(module, x, use_reentrant=False) if torch.is_grad_enabled() else module(x)


def block(forward: Forward[Block]) -> Forward[Block]:
    """For a block: a few rows of windows at a time."""

    @functools.wraps(forward)
    def call(self: Block, x: Tensor) -> Tensor:
        if suits_inference(self, x):
            return _infer([self], x)
        if suits_training(self, x):
            return _train(self, x)
        return forward(self, x)

    return call


def stage(of: type[SwinBlock]) -> Callable[[Forward[SwinStage]], Forward[SwinStage]]:
    """For a stage of such blocks: all in one map, unless somebody wants to see the map of a single block."""

    def decorate(forward: Forward[SwinStage]) -> Forward[SwinStage]:
        @functools.wraps(forward)
        def call(self: SwinStage, x: Tensor) -> Tensor:
            blocks = [part for part in self.blocks if isinstance(part, of) and not has_hooks(part)]
            if len(blocks) == len(self.blocks) and all(suits_inference(part, x) for part in blocks):
                return _infer(blocks, x)
            return forward(self, x)

        return call

    return decorate


def by_bands(rows: int, stride: int) -> Callable[[Forward[Module]], Forward[Module]]:
    """For a layer that computes each row of its output from ``stride`` rows of its input: a few at a time.

    Args:
        rows: the input's dimension of the rows; in the output (B, H, W, C) it is 1.
        stride: rows of the input to a row of the output.
    """

    def decorate(forward: Forward[Module]) -> Forward[Module]:
        @functools.wraps(forward)
        def call(self: Module, x: Tensor) -> Tensor:
            if suits_inference(self, x):
                return torch.cat([forward(self, band) for band in blocked.bands(x, rows, stride)], dim=1)
            return forward(self, x)

        return call

    return decorate


def linear_layer(forward: Forward[Linear]) -> Forward[Linear]:
    """For a linear layer: the faster one of the libraries of torch."""

    @functools.wraps(forward)
    def call(self: Linear, x: Tensor) -> Tensor:
        if computes_on_cpu(x) and x.dtype == self.weight.dtype and x.dim() > 1:
            return linear.differentiable_linear(x, self.weight, self.bias)
        return forward(self, x)

    return call


def conv3x3(forward: ConvForward[Conv]) -> ConvForward[Conv]:
    """For a convolution: the algorithm of Winograd, if it is 3x3, dense and padded to keep the size."""

    @functools.wraps(forward)
    def call(self: Conv, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        keeps_size = (self.padding_mode, self.padding, self.stride) == ('zeros', (1, 1), (1, 1))
        is_dense = (self.groups, self.dilation) == (1, (1, 1))
        if (
            keeps_size
            and is_dense
            and x.dim() == 4
            and computes_on_cpu(x)
            and x.dtype == weight.dtype
            and winograd.is_faster(x.shape, weight.shape)
        ):
            return winograd.conv3x3(x, weight, bias)
        return forward(self, x, weight, bias)

    return call


ResizedForward = Callable[['UPerHead', 'ConvModule', Sequence[Tensor]], Tensor]


def conv_of_resized(forward: ResizedForward) -> ResizedForward:
    """For a convolution of maps that are enlarged to the first one's size: each at its own size."""

    @functools.wraps(forward)
    def call(self: UPerHead, module: ConvModule, maps: Sequence[Tensor]) -> Tensor:
        if not (_is_conv_norm_activation(module) and computes_on_cpu(maps[0]) and maps[0].numel() > 0):
            return forward(self, module, maps)
        x = resized_conv.conv_of_resized(maps, module.conv.weight, self.align_corners)
        if module.conv.bias is not None:
            x = x + module.conv.bias.view(-1, 1, 1)
        if module.with_norm:
            x = module.norm(x)
        return module.activate(x) if module.with_activation else x

    return call


def _is_conv_norm_activation(module: ConvModule) -> bool:
    """Whether it is as ``conv_cfg=None`` makes it: a convolution that keeps sizes, a norm, an activation."""
    conv = module.conv
    return (
        type(conv) is nn.Conv2d
        and module.order == ('conv', 'norm', 'act')
        and not module.with_explicit_padding
        and (conv.padding_mode, conv.groups, conv.stride, conv.dilation) == ('zeros', 1, (1, 1), (1, 1))
        and conv.padding == (conv.kernel_size[0] // 2, conv.kernel_size[1] // 2)
        and not has_hooks(module)
        and not has_hooks(conv)
    )


def attention(formula: Attention) -> Attention:
    """For softmax(scale * q k^T + bias) v: torch's fused attention, on every device and in every precision.

    It has neither forward-mode nor batched derivatives, so the transforms of ``torch.func`` get the formula.
    """

    @functools.wraps(formula)
    def call(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor, drop: float, scale: float | None
    ) -> Tensor:
        if is_transformed():
            return formula(query, key, value, bias, drop, scale)
        return F.scaled_dot_product_attention(query, key, value, bias, dropout_p=drop, scale=scale)

    return call


def _infer(blocks: Sequence[SwinBlock], x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same shape, through one block after the other, in a single copy of x."""
    x = x.clone(memory_format=torch.contiguous_format)
    for module in blocks:
        blocked.block_(x, module.weights(), module.biases(), _config(module))
    return x


def _train(module: SwinBlock, x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same shape."""
    keep = None
    if module.training and module.drop_path.p:
        ones = x.new_ones(x.size(0), 1)
        keep = module.drop_path(ones), module.drop_path(ones)
    return blocked_training.block(x, module.weights(), module.biases(), _config(module), keep)


def _config(module: SwinBlock) -> BlockConfig:
    return BlockConfig(module.window_size, module.shift, module.attn.num_heads, module.pre_norm)
