"""A Swin v1 block on the CPU with its gradient, a few rows of windows at a time.

Autograd keeps some 17 tensors of the map's size for each block. This keeps nine: x, q, k, v, the outputs of
the heads, and the hidden layer of the MLP before GELU, which has four times the channels. The norms, GELU
and the attention weights are computed again in the backward pass, group by group. The module builds on
``blocked.py``, and treats q, k, v and pads as it does.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from swin_dense.kernels import blocked
from swin_dense.kernels.blocked import EPS, AttentionWeights, BlockConfig, BlockWeights, LayerWeights
from swin_dense.kernels.eager import Context, Gradients, for_each_gradient
from swin_dense.kernels.linear import linear
from swin_dense.kernels.windows import WindowGroup, window_groups


def block(
    x: Tensor,
    weights: BlockWeights,
    biases: Tensor,
    config: BlockConfig,
    keep: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """Compute a block whose norms come first and whose logits are q k^T / sqrt(d); differentiable once.

    Args:
        x: (B, H, W, C).
        weights: of the block, without ``logit_scale`` and ``norm3``.
        biases: added to the logits, (1, nH, N, N), or (4, nH, N, N) by kind for shifted windows.
        config: of the block.
        keep: (B, 1) factors of the two branches of each sample (stochastic depth), None for 1.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = x.shape
    keep1, keep2 = keep or (None, None)
    if keep1 is not None and keep2 is not None:
        keep1, keep2 = (factor.repeat_interleave(height * width, 0) for factor in (keep1, keep2))
    groups = window_groups(batch, height, width, config.window_size, config.shift, blocked.TOKENS)
    tokens = x.reshape(-1, channels)
    return _Block.apply(tokens, biases, keep1, keep2, config, groups, *_flat(weights)).view(x.shape)


def _flat(weights: BlockWeights) -> list[Tensor | None]:
    """The tensors that ``_Block`` takes, in the order in which they are used."""
    norm1, attention, norm2, fc1, fc2, _ = weights
    qkv = attention.qkv_weight, attention.query_bias, attention.value_bias
    return [*norm1, *qkv, *attention.proj, *norm2, *fc1, *fc2]


def _nested(parameters: Sequence[Tensor | None]) -> BlockWeights:
    """The inverse of ``_flat``."""
    tensors: Iterator[Any] = iter(parameters)

    def layer() -> LayerWeights:
        return LayerWeights(next(tensors), next(tensors))

    def attention() -> AttentionWeights:
        return AttentionWeights(next(tensors), next(tensors), next(tensors), layer(), logit_scale=None)

    return BlockWeights(layer(), attention(), layer(), layer(), layer(), norm3=None)


class _Context(Context, Protocol):
    config: BlockConfig
    groups: tuple[WindowGroup, ...]


class _Block(torch.autograd.Function):
    """(B * H * W, C) -> the same shape; ``keep1`` and ``keep2`` are the branches' factors (B * H * W, 1)."""

    @staticmethod
    def forward(
        ctx: _Context,
        x: Tensor,
        biases: Tensor,
        keep1: Tensor | None,
        keep2: Tensor | None,
        config: BlockConfig,
        groups: tuple[WindowGroup, ...],
        *parameters: Tensor | None,
    ) -> Tensor:
        weights = _nested(parameters)
        constant_biases = biases.detach()  # the fast attention kernel refuses a bias that wants a gradient
        query_bias = blocked.padded_query_bias(weights.attention)
        output_bias = blocked.carried_output_bias(weights.attention)
        result, saved = torch.empty_like(x), []
        for group in groups:
            part = group.take(x)
            normed, *_ = _norm(part, weights.norm1)
            qkv = linear(normed, weights.attention.qkv_weight, query_bias)
            attended = blocked.attend_by_kind(group.to_windows(qkv), group, constant_biases, config, None)
            branch = linear(attended, weights.attention.proj.weight, output_bias)
            middle = part + _scaled(branch, group, keep1)
            normed, *_ = _norm(middle, weights.norm2)
            hidden = linear(normed, *weights.fc1)
            branch = linear(F.gelu(hidden), *weights.fc2)
            group.put(result, middle.add_(_scaled(branch, group, keep2)))
            saved += [qkv, attended, hidden]
        ctx.save_for_backward(x, biases, keep1, keep2, *parameters, *saved)
        ctx.config, ctx.groups = config, groups
        return result

    @staticmethod
    @once_differentiable
    @for_each_gradient
    def backward(ctx: _Context, grad: Tensor) -> Gradients:
        x, biases, keep1, keep2, *others = ctx.saved_tensors
        first = len(others) - 3 * len(ctx.groups)
        parameters, saved = others[:first], others[first:]
        grads_of_parameters = [None if p is None else torch.zeros_like(p) for p in parameters]
        weights, grads = _nested(parameters), _nested(grads_of_parameters)
        grad_x, grad_biases = torch.empty_like(x), torch.zeros_like(biases)
        output_bias = blocked.carried_output_bias(weights.attention)
        by_group = zip(ctx.groups, saved[::3], saved[1::3], saved[2::3], strict=True)
        for group, qkv, attended, hidden in by_group:
            part = group.take(x)
            branch = linear(attended, weights.attention.proj.weight, output_bias)
            middle = part + _scaled(branch, group, keep1)
            grad_out = group.take(grad)
            grad_middle = grad_out + _mlp_backward(
                _scaled(grad_out, group, keep2), middle, hidden, weights, grads
            )
            branch = _scaled(grad_middle, group, keep1)
            grads.attention.proj.weight.addmm_(branch.t(), attended)
            grads.attention.proj.bias.add_(branch.sum(0))
            grad_attended = linear(branch, weights.attention.proj.weight.t())
            grad_qkv = _attention_backward(grad_attended, qkv, group, biases, grad_biases, ctx.config)
            grad_part = _qkv_backward(grad_qkv, part, weights, grads)
            group.put(grad_x, grad_part.add_(grad_middle))
        _value_bias_backward(weights.attention, grads.attention)
        return grad_x, grad_biases, None, None, None, None, *grads_of_parameters


def _norm(x: Tensor, norm: LayerWeights) -> tuple[Tensor, Tensor, Tensor]:
    """The normed x (n, C), the means and the inverse deviations."""
    return torch.native_layer_norm(x, (x.size(1),), norm.weight, norm.bias, EPS)


def _norm_backward(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, norm: LayerWeights, grads: LayerWeights
) -> Tensor:
    """Gradient of x (n, C), given the means and the inverse deviations; adds to ``grads``."""
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        grad, x, (x.size(1),), mean, scale, norm.weight, norm.bias, [True, True, True]
    )
    grads.weight.add_(grad_weight)
    grads.bias.add_(grad_bias)
    return grad_x


def _scaled(branch: Tensor, group: WindowGroup, keep: Tensor | None) -> Tensor:
    return branch if keep is None else branch * group.take(keep)


def _mlp_backward(
    grad: Tensor, x: Tensor, hidden: Tensor, weights: BlockWeights, grads: BlockWeights
) -> Tensor:
    """Gradient of x (n, C), the input of norm2, from that of the branch's output; adds to ``grads``."""
    normed, mean, scale = _norm(x, weights.norm2)
    grads.fc2.weight.addmm_(grad.t(), F.gelu(hidden))
    grads.fc2.bias.add_(grad.sum(0))
    grad_hidden = torch.ops.aten.gelu_backward(linear(grad, weights.fc2.weight.t()), hidden)
    grads.fc1.weight.addmm_(grad_hidden.t(), normed)
    grads.fc1.bias.add_(grad_hidden.sum(0))
    grad_normed = linear(grad_hidden, weights.fc1.weight.t())
    return _norm_backward(grad_normed, x, mean, scale, weights.norm2, grads.norm2)


def _attention_backward(
    grad: Tensor, qkv: Tensor, group: WindowGroup, biases: Tensor, grad_biases: Tensor, config: BlockConfig
) -> Tensor:
    """Gradient of qkv (n, 3C) from that of the weighted means (n, C); adds to ``grad_biases``."""
    channels, tokens = grad.size(1), config.window_size**2
    heads, head_dim = config.num_heads, channels // config.num_heads

    def split_heads(values: Tensor) -> Tensor:  # (n, k * C) -> (k, nW * nH, N, d)
        windows = group.to_windows(values).view(-1, tokens, values.size(1) // channels, heads, head_dim)
        return windows.permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()

    query, key, value = split_heads(qkv)
    grad = split_heads(grad)[0]
    query *= head_dim**-0.5
    weights = torch.bmm(query, key.transpose(1, 2))
    by_window = weights.view(-1, heads, tokens, tokens)
    for kind, first, last in group.kinds:
        by_window[first:last] += biases[kind]
    weights = weights.softmax(-1)
    grad_value = torch.bmm(weights.transpose(1, 2), grad)
    grad_weights = torch.bmm(grad, value.transpose(1, 2))
    grad_logits = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, grad.dtype)
    by_window = grad_logits.view(by_window.shape)
    for kind, first, last in group.kinds:
        grad_biases[kind] += by_window[first:last].sum(0)
    grad_query = torch.bmm(grad_logits, key).mul_(head_dim**-0.5)
    grad_key = torch.bmm(grad_logits.transpose(1, 2), query)
    windows = grad.new_empty(len(group.sources), 3, heads, head_dim)
    for i, by_head in enumerate((grad_query, grad_key, grad_value)):
        to = windows[:, i].view(-1, tokens, heads, head_dim).transpose(1, 2)  # (nW, nH, N, d)
        to.copy_(by_head.view(to.shape))
    return group.from_windows(windows.flatten(1))


def _qkv_backward(grad: Tensor, x: Tensor, weights: BlockWeights, grads: BlockWeights) -> Tensor:
    """Gradient of x (n, C), the input of norm1, from that of qkv (n, 3C); adds to ``grads``."""
    normed, mean, scale = _norm(x, weights.norm1)
    grads.attention.qkv_weight.addmm_(grad.t(), normed)
    if grads.attention.query_bias is not None:
        grads.attention.query_bias.add_(grad[:, : x.size(1)].sum(0))
    grad_normed = linear(grad, weights.attention.qkv_weight.t())
    return _norm_backward(grad_normed, x, mean, scale, weights.norm1, grads.norm1)


def _value_bias_backward(weights: AttentionWeights, grads: AttentionWeights) -> None:
    """Set the gradient of the bias of v, and add to that of ``proj`` the part that it passed through."""
    if weights.value_bias is not None and grads.value_bias is not None:
        grads.proj.weight.addr_(grads.proj.bias, weights.value_bias)
        torch.mv(weights.proj.weight.t(), grads.proj.bias, out=grads.value_bias)
