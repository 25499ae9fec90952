"""A Swin v1 block on the CPU with its gradient, a few rows of windows at a time.

Autograd keeps some 17 tensors of the map's size for each block. This keeps nine: x, q, k, v, what the
heads make of them, and the hidden layer of the MLP before GELU, which has four times the channels. The
norms, GELU and the attention weights are computed again in the backward pass, group by group.
q, k, v and pads are handled as in ``blocked.py``, which this reads on from.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from swin_dense.kernels import blocked
from swin_dense.kernels.eager import one_by_one
from swin_dense.kernels.linear import linear
from swin_dense.kernels.windows import WindowGroup, window_groups

EPS = 1e-5  # of nn.LayerNorm
ALL = [True, True, True]  # the gradients of a norm's input, weight and bias


def serves(block: nn.Module, x: Tensor) -> bool:
    """Whether ``forward`` may stand in for the block: v1 on the CPU, with a gradient and without dropout."""
    dropout = block.mlp.drop.p or block.attn.proj_drop.p or block.attn.attn_drop
    return (
        block.pre_norm
        and not (block.training and dropout)
        and block.norm1.eps == block.norm2.eps == EPS
        and blocked.is_plain(block, x)
        and blocked.wants_gradient(block, x)
    )


class Weights(NamedTuple):
    """The parameters of a block, in the order in which they are used."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    proj: Tensor
    proj_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor

    @classmethod
    def of(cls, block: nn.Module) -> 'Weights':
        attn, mlp = block.attn, block.mlp
        layers = (block.norm1, attn.qkv, attn.proj, block.norm2, mlp.fc1, mlp.fc2)
        return cls(*(parameter for layer in layers for parameter in (layer.weight, layer.bias)))


def forward(block: nn.Module, x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same shape, what ``block(x)`` is."""
    batch, height, width, channels = x.shape
    keeps: list[Tensor | None] = [None, None]
    if block.training and block.drop_path.p:
        ones = x.new_ones(batch, 1)
        keeps = [block.drop_path(ones).repeat_interleave(height * width, 0) for _ in keeps]
    groups = window_groups(batch, height, width, block.window_size, block.shift, blocked.TOKENS)
    tokens = x.reshape(-1, channels)
    return _Block.apply(tokens, block.biases(), *keeps, block.attn, groups, *Weights.of(block)).view(x.shape)


class _Block(torch.autograd.Function):
    """(B * H * W, C) -> the same shape; ``keep1`` and ``keep2`` are the branches' factors (B * H * W, 1)."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        biases: Tensor,
        keep1: Tensor | None,
        keep2: Tensor | None,
        attn: nn.Module,
        groups: tuple[WindowGroup, ...],
        *parameters: Tensor | None,
    ) -> Tensor:
        weights = Weights(*parameters)
        constant_biases = biases.detach()  # the fast attention kernel refuses a bias that wants a gradient
        channels = x.size(1)
        query_bias = (
            None if weights.qkv_bias is None else F.pad(weights.qkv_bias[:channels], (0, 2 * channels))
        )
        output_bias = _output_bias(weights)
        result, kept = torch.empty_like(x), []
        for group in groups:
            part = group.take(x)
            normed, *_ = _norm(part, weights.norm1_weight, weights.norm1_bias)
            qkv = linear(normed, weights.qkv, query_bias)
            attended = blocked.attend_by_kind(attn, group, group.to_windows(qkv), constant_biases)
            middle = part + _scaled(linear(attended, weights.proj, output_bias), group, keep1)
            normed, *_ = _norm(middle, weights.norm2_weight, weights.norm2_bias)
            hidden = linear(normed, weights.fc1, weights.fc1_bias)
            branch = linear(F.gelu(hidden), weights.fc2, weights.fc2_bias)
            group.put(result, middle.add_(_scaled(branch, group, keep2)))
            kept += [qkv, attended, hidden]
        ctx.save_for_backward(x, biases, keep1, keep2, *parameters, *kept)
        ctx.attn, ctx.groups = attn, groups
        return result

    @staticmethod
    @once_differentiable
    @one_by_one
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, biases, keep1, keep2, *others = ctx.saved_tensors
        parameters, kept = others[: len(Weights._fields)], others[len(Weights._fields) :]
        weights = Weights(*parameters)
        grads = Weights(*(None if p is None else torch.zeros_like(p) for p in parameters))
        grad_x, grad_biases = torch.empty_like(x), torch.zeros_like(biases)
        output_bias = _output_bias(weights)
        by_group = zip(ctx.groups, kept[::3], kept[1::3], kept[2::3], strict=True)
        for group, qkv, attended, hidden in by_group:
            part = group.take(x)
            middle = part + _scaled(linear(attended, weights.proj, output_bias), group, keep1)
            grad_out = group.take(grad)
            grad_middle = grad_out + _mlp_backward(
                _scaled(grad_out, group, keep2), middle, hidden, weights, grads
            )
            branch = _scaled(grad_middle, group, keep1)
            grads.proj.addmm_(branch.t(), attended)
            grads.proj_bias.add_(branch.sum(0))
            grad_attended = linear(branch, weights.proj.t())
            grad_qkv = _attention_backward(ctx.attn, group, grad_attended, qkv, biases, grad_biases)
            grad_part = _qkv_backward(grad_qkv, part, weights, grads)
            group.put(grad_x, grad_part.add_(grad_middle))
        _value_bias_backward(weights, grads)
        return grad_x, grad_biases, None, None, None, None, *grads


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The normed x (n, C), the means and the inverse deviations."""
    return torch.native_layer_norm(x, (x.size(1),), weight, bias, EPS)


def _scaled(branch: Tensor, group: WindowGroup, keep: Tensor | None) -> Tensor:
    return branch if keep is None else branch * group.take(keep)


def _output_bias(weights: Weights) -> Tensor:
    """(C,) the bias of ``proj``, with that of v carried through."""
    if weights.qkv_bias is None:
        return weights.proj_bias
    return torch.addmv(weights.proj_bias, weights.proj, weights.qkv_bias[2 * len(weights.proj) :])


def _mlp_backward(grad: Tensor, x: Tensor, hidden: Tensor, weights: Weights, grads: Weights) -> Tensor:
    """Gradient of x (n, C), the input of norm2, from that of the branch's output; adds to ``grads``."""
    normed, mean, scale = _norm(x, weights.norm2_weight, weights.norm2_bias)
    grads.fc2.addmm_(grad.t(), F.gelu(hidden))
    grads.fc2_bias.add_(grad.sum(0))
    grad_hidden = torch.ops.aten.gelu_backward(linear(grad, weights.fc2.t()), hidden)
    grads.fc1.addmm_(grad_hidden.t(), normed)
    grads.fc1_bias.add_(grad_hidden.sum(0))
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        *(linear(grad_hidden, weights.fc1.t()), x, (x.size(1),), mean, scale),
        *(weights.norm2_weight, weights.norm2_bias, ALL),
    )
    grads.norm2_weight.add_(grad_weight)
    grads.norm2_bias.add_(grad_bias)
    return grad_x


def _attention_backward(
    attn: nn.Module, group: WindowGroup, grad: Tensor, qkv: Tensor, biases: Tensor, grad_biases: Tensor
) -> Tensor:
    """Gradient of qkv (n, 3C) from that of the weighted means (n, C); adds to ``grad_biases``."""
    channels = grad.size(1)
    size = (attn.num_heads, channels // attn.num_heads)  # nH, d

    def split_heads(tokens: Tensor) -> Tensor:  # (n, k * C) -> (k, nW * nH, N, d)
        windows = group.to_windows(tokens).view(-1, attn.window_size**2, tokens.size(1) // channels, *size)
        return windows.permute(2, 0, 3, 1, 4).flatten(1, 2).contiguous()

    query, key, value = split_heads(qkv)
    grad = split_heads(grad)[0]
    query *= size[-1] ** -0.5
    weights = torch.bmm(query, key.transpose(1, 2))
    by_window = weights.view(-1, attn.num_heads, *weights.shape[1:])
    for kind, first, last in group.kinds:
        by_window[first:last] += biases[kind]
    weights = weights.softmax(-1)
    grad_value = torch.bmm(weights.transpose(1, 2), grad)
    grad_logits = torch._softmax_backward_data(
        torch.bmm(grad, value.transpose(1, 2)), weights, -1, grad.dtype
    )
    by_window = grad_logits.view(by_window.shape)
    for kind, first, last in group.kinds:
        grad_biases[kind] += by_window[first:last].sum(0)
    grad_query = torch.bmm(grad_logits, key).mul_(size[-1] ** -0.5)
    grad_key = torch.bmm(grad_logits.transpose(1, 2), query)
    windows = grad.new_empty(len(group.sources), 3, *size)
    for i, by_head in enumerate((grad_query, grad_key, grad_value)):
        to = windows[:, i].view(-1, attn.window_size**2, *size).transpose(1, 2)  # (nW, nH, N, d)
        to.copy_(by_head.view(to.shape))
    return group.from_windows(windows.flatten(1))


def _qkv_backward(grad: Tensor, x: Tensor, weights: Weights, grads: Weights) -> Tensor:
    """Gradient of x (n, C), the input of norm1, from that of qkv (n, 3C); adds to ``grads``."""
    channels = x.size(1)
    normed, mean, scale = _norm(x, weights.norm1_weight, weights.norm1_bias)
    grads.qkv.addmm_(grad.t(), normed)
    if grads.qkv_bias is not None:
        grads.qkv_bias[:channels] += grad[:, :channels].sum(0)
    grad_x, grad_weight, grad_bias = torch.ops.aten.native_layer_norm_backward(
        *(linear(grad, weights.qkv.t()), x, (channels,), mean, scale),
        *(weights.norm1_weight, weights.norm1_bias, ALL),
    )
    grads.norm1_weight.add_(grad_weight)
    grads.norm1_bias.add_(grad_bias)
    return grad_x


def _value_bias_backward(weights: Weights, grads: Weights) -> None:
    """What the bias of v, carried through ``proj``, gives and gets; that of k changes nothing."""
    if weights.qkv_bias is not None:
        channels = len(weights.proj)
        grads.proj.addr_(grads.proj_bias, weights.qkv_bias[2 * channels :])
        grads.qkv_bias[2 * channels :] = grads.proj_bias @ weights.proj
