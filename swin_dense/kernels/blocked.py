"""A Swin block on the CPU without autograd, a few rows of windows at a time.

Computed whole, a block writes and reads some thirty tensors of the map's size, and that is half of its
time. Here a group of windows goes through the whole block before the next one begins. What else differs
from ``SwinBlock.forward``, all exact in real arithmetic:

- Pads are projected only where they are few: their k and v are the biases of k and v.
- The bias of k adds the same to all logits of a query, which the softmax ignores, and weights that sum to 1
  carry the bias of v through to the output, so it joins the bias of ``proj``. A pad's k and v are then 0.
- Windows of one kind share one bias (nH, N, N), and attend in one call.
- Products are oneDNN's (``linear.py``), and the residual is added to in place.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from swin_dense.kernels.linear import is_eager_on_cpu, linear
from swin_dense.kernels.windows import WindowGroup, window_groups

TOKENS = 4096  # of a group: few enough for the cache, many enough for the matrix products
FEW = 8  # places of a group to each pad, or more: the pads are few
PLAIN = (nn.Conv2d, nn.LayerNorm, nn.Linear, nn.Dropout, nn.Identity, nn.ReLU, nn.Sequential, StochasticDepth)


def serves(block: nn.Module, x: Tensor) -> bool:
    """Whether ``forward`` may stand in for the block: on the CPU, in evaluation, no gradient to come."""
    return not block.training and is_plain(block, x) and not wants_gradient(block, x)


def wants_gradient(block: nn.Module, x: Tensor) -> bool:
    """Whether a backward pass may come through the block; not where it is frozen, and all before it."""
    return torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in block.parameters()))


def is_plain(block: nn.Module, x: Tensor) -> bool:
    """Whether the block is as it was made: no hooks inside, other layers or parts in another mode."""
    return (
        is_eager_on_cpu(x)
        and x.dtype == next(block.parameters()).dtype
        and x.numel() > 0
        and all(_is_as_made(part) and part.training == block.training for part in block.modules())
        and not any(has_hooks(part) for child in block.children() for part in child.modules())
    )


def _is_as_made(part: nn.Module) -> bool:
    ours = type(part).__module__.startswith('swin_dense.')
    return (ours or type(part) in PLAIN) and 'forward' not in part.__dict__


def has_hooks(part: nn.Module) -> bool:
    """Whether something is to be called when the module is, or its gradient passes."""
    return bool(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
    )


def forward(blocks: Iterable[nn.Module], x: Tensor) -> Tensor:
    """(B, H, W, C) -> the same shape, what each block makes of what the one before it made.

    Args:
        blocks: ``SwinBlock`` or ``SwinBlockV2``.
        x: the map; it is not changed.
    """
    result = x.clone(memory_format=torch.contiguous_format)
    for block in blocks:
        _pass_through(block, result)
    return result


def bands(x: Tensor, dim: int, stride: int) -> tuple[Tensor, ...]:
    """Views of some rows of x each, for a layer of this stride: about ``TOKENS`` tokens behind it.

    Args:
        x: maps (B, H, W, C) or images (B, C, H, W).
        dim: that of the rows, before that of the columns.
        stride: rows of x to a row of tokens, as many as columns to a column.
    """
    tokens = max(1, x.size(0) * x.size(dim + 1) // stride)  # of a row
    return x.split(max(1, TOKENS // tokens) * stride, dim)


def _pass_through(block: nn.Module, x: Tensor) -> None:
    """Put in the place of x (B, H, W, C) what the block makes of it: no window reads another's tokens."""
    batch, height, width, channels = x.shape
    tokens = x.view(-1, channels)
    biases, output_bias = block.biases(), _output_bias(block)
    query_bias, _ = block.attn.query_and_value_bias()
    if query_bias is not None:
        query_bias = F.pad(query_bias, (0, 2 * channels))
    for group in window_groups(batch, height, width, block.window_size, block.shift, TOKENS):
        part = group.take(tokens)
        attended = _attend(block, part, group, biases, query_bias)
        _finish(block, part, attended, output_bias)
        if len(group.pieces) > 1:  # a copy
            group.put(tokens, part)


def _attend(
    block: nn.Module, x: Tensor, group: WindowGroup, biases: Tensor, query_bias: Tensor | None
) -> Tensor:
    """(n, C) tokens -> (n, C) what the heads make of them, before ``proj`` and without the bias of v.

    ``query_bias`` is (3C,), with zeros for k and v.
    """
    attn = block.attn
    x = block.norm1(x) if block.pre_norm else x
    few = FEW * len(group.pads) <= len(group.sources)
    if few:  # projecting them costs less than to sort three times as many channels
        x = group.to_windows(x)
    qkv = linear(x, attn.qkv.weight, query_bias)
    if attn.cosine:
        _make_cosine(attn, qkv)
    return attend_by_kind(attn, group, qkv if few else group.to_windows(qkv), biases)


def attend_by_kind(attn: nn.Module, group: WindowGroup, qkv: Tensor, biases: Tensor) -> Tensor:
    """(nW * N, 3C) q, k, v of a group's windows, (kinds, nH, N, N) biases -> (n, C) weighted means of v."""
    channels = qkv.size(1) // 3
    windows = qkv.view(-1, attn.window_size**2, 3, attn.num_heads, channels // attn.num_heads)
    query, key, value = windows.permute(2, 0, 3, 1, 4)
    scale = 1.0 if attn.cosine else None
    # all windows as the most frequent kind, then those of the other kinds once more
    kind = group.kinds[0][0]
    out = F.scaled_dot_product_attention(query, key, value, biases[kind : kind + 1], scale=scale)
    for kind, first, last in group.kinds[1:]:
        some = slice(first, last)
        out[some] = F.scaled_dot_product_attention(
            query[some], key[some], value[some], biases[kind : kind + 1], scale=scale
        )
    return group.from_windows(out.transpose(1, 2).reshape(-1, channels))


def _make_cosine(attn: nn.Module, qkv: Tensor) -> None:
    """Give q and k of (n, 3C) the length 1, and q the logit scale as well; 0 stays 0."""
    heads = qkv.view(len(qkv), 3, attn.num_heads, -1)[:, :2]
    length = torch.linalg.vector_norm(heads, dim=-1, keepdim=True)
    factor = length.masked_fill_(length == 0, 1).reciprocal_()
    factor[:, 0] *= attn.scale().squeeze(1)
    heads *= factor


def _output_bias(block: nn.Module) -> Tensor:
    """(C,) the bias of ``proj``, with that of v carried through."""
    attn = block.attn
    _, value_bias = attn.query_and_value_bias()
    return attn.proj.bias if value_bias is None else attn.proj.bias + attn.proj.weight @ value_bias


def _finish(block: nn.Module, x: Tensor, attended: Tensor, output_bias: Tensor) -> None:
    """Put in the place of x (n, C) what the block makes of it."""
    mlp = block.mlp
    branch = linear(attended, block.attn.proj.weight, output_bias)
    x += branch if block.pre_norm else block.norm1(branch)
    hidden = linear(block.norm2(x) if block.pre_norm else x, mlp.fc1.weight, mlp.fc1.bias)
    branch = linear(torch.ops.aten.gelu_(hidden), mlp.fc2.weight, mlp.fc2.bias)
    x += branch if block.pre_norm else block.norm2(branch)
    if not block.pre_norm:
        x.copy_(block.norm3(x))
