"""A Swin block on the CPU without autograd, a few rows of windows at a time.

Computed whole, a block writes and reads some thirty tensors of the map's size, and that is half of its
time. Here a group of windows goes through the whole block before the next one begins. These steps differ
from the formula in ``models/swin.py``, and all are exact in real arithmetic:

- Pads are projected to q, k and v only where they are few.
- The bias of k adds the same to all logits of a query, and the softmax ignores that. The bias of v passes
  through to the output, as the attention weights sum to 1, and joins the bias of ``proj``. A pad's k and v
  are then 0.
- Windows of one kind share one bias (nH, N, N), and attend in one call.
- Linear layers run in oneDNN (``linear.py``), and each branch is added to the map in place.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from swin_dense.kernels.linear import linear
from swin_dense.kernels.windows import WindowGroup, window_groups

TOKENS = 4096  # in a group: few enough for the cache, many enough for efficient matrix products
TOKENS_PER_PAD = 8  # in a group with this many or more, pads are few
EPS = 1e-5  # of the norms


class LayerWeights(NamedTuple):
    """The parameters of a linear layer, (C_out, C_in) and (C_out,), or of a norm, (C,) and (C,)."""

    weight: Tensor
    bias: Tensor


class AttentionWeights(NamedTuple):
    """The parameters of attention, but for the position bias.

    Attributes:
        qkv_weight: (3C, C).
        query_bias, value_bias: (C,) both, or None both.
        proj: from C channels to C.
        logit_scale: (nH, 1, 1), the factor of the cosines of q and k; None for q k^T / sqrt(d).
    """

    qkv_weight: Tensor
    query_bias: Tensor | None
    value_bias: Tensor | None
    proj: LayerWeights
    logit_scale: Tensor | None


class BlockWeights(NamedTuple):
    """The parameters of a block; ``norm3``, if there is one, comes at its end."""

    norm1: LayerWeights
    attention: AttentionWeights
    norm2: LayerWeights
    fc1: LayerWeights
    fc2: LayerWeights
    norm3: LayerWeights | None


class BlockConfig(NamedTuple):
    """The numbers that describe a block.

    Attributes:
        window_size: side M of the windows.
        shift: of the windows, in tokens; 0 for none.
        num_heads: attention heads nH.
        pre_norm: whether a norm comes before each branch (v1), or after it (v2).
    """

    window_size: int
    shift: int
    num_heads: int
    pre_norm: bool


def block_(x: Tensor, weights: BlockWeights, biases: Tensor, config: BlockConfig) -> None:
    """Compute a block in place. No window reads the tokens of another one, so a group can overwrite its own.

    Args:
        x: (B, H, W, C), contiguous.
        weights: of the block.
        biases: added to the logits, (1, nH, N, N), or (4, nH, N, N) by kind for shifted windows.
        config: of the block.
    """
    batch, height, width, channels = x.shape
    tokens = x.view(-1, channels)
    query_bias = padded_query_bias(weights.attention)
    output_bias = carried_output_bias(weights.attention)
    for group in window_groups(batch, height, width, config.window_size, config.shift, TOKENS):
        part = group.take(tokens)
        attended = _attend(part, group, weights, query_bias, biases, config)
        _add_branches(part, attended, weights, output_bias, config.pre_norm)
        if len(group.pieces) > 1:  # then ``part`` is a copy
            group.put(tokens, part)


def bands(x: Tensor, dim: int, stride: int) -> tuple[Tensor, ...]:
    """Cut maps into bands of rows, of about ``TOKENS`` tokens each behind a layer of this stride.

    Args:
        x: maps (B, H, W, C) or images (B, C, H, W).
        dim: the dimension of the rows; that of the columns is the next one.
        stride: rows of x to a row of tokens, and columns to a column.

    Returns:
        Views; all but the last one have a multiple of ``stride`` rows.
    """
    tokens_in_row = max(1, x.size(0) * x.size(dim + 1) // stride)
    return x.split(max(1, TOKENS // tokens_in_row) * stride, dim)


def padded_query_bias(weights: AttentionWeights) -> Tensor | None:
    """(3C,) the bias of q, and zeros for k and v."""
    if weights.query_bias is None:
        return None
    return F.pad(weights.query_bias, (0, 2 * len(weights.query_bias)))


def carried_output_bias(weights: AttentionWeights) -> Tensor:
    """(C,) the bias of ``proj``, and that of v carried through it."""
    if weights.value_bias is None:
        return weights.proj.bias
    return torch.addmv(weights.proj.bias, weights.proj.weight, weights.value_bias)


def attend_by_kind(
    qkv: Tensor, group: WindowGroup, biases: Tensor, config: BlockConfig, scale: float | None
) -> Tensor:
    """Attend in the windows of a group.

    Args:
        qkv: (nW * N, 3C) q, k and v of the windows' places.
        group: the windows.
        biases: (kinds, nH, N, N).
        config: of the block.
        scale: of the logits, None for 1 / sqrt(d).

    Returns:
        (n, C) weighted means of v.
    """
    channels = qkv.size(1) // 3
    windows = qkv.view(-1, config.window_size**2, 3, config.num_heads, channels // config.num_heads)
    query, key, value = windows.permute(2, 0, 3, 1, 4)
    # all windows as the most frequent kind, then those of the other kinds once more
    kind = group.kinds[0][0]
    out = F.scaled_dot_product_attention(query, key, value, biases[kind : kind + 1], scale=scale)
    for kind, first, last in group.kinds[1:]:
        some = slice(first, last)
        out[some] = F.scaled_dot_product_attention(
            query[some], key[some], value[some], biases[kind : kind + 1], scale=scale
        )
    return group.from_windows(out.transpose(1, 2).reshape(-1, channels))


def _attend(
    x: Tensor,
    group: WindowGroup,
    weights: BlockWeights,
    query_bias: Tensor | None,
    biases: Tensor,
    config: BlockConfig,
) -> Tensor:
    """(n, C) tokens -> (n, C) outputs of the heads, before ``proj`` and without the bias of v."""
    if config.pre_norm:
        x = _norm(x, weights.norm1)
    few_pads = TOKENS_PER_PAD * len(group.pads) <= len(group.sources)
    if few_pads:  # to project them costs less than to sort three times as many channels
        x = group.to_windows(x)
    qkv = linear(x, weights.attention.qkv_weight, query_bias)
    logit_scale = weights.attention.logit_scale
    if logit_scale is not None:
        _scale_to_cosines(qkv, logit_scale)
    qkv = qkv if few_pads else group.to_windows(qkv)
    return attend_by_kind(qkv, group, biases, config, scale=None if logit_scale is None else 1.0)


def _scale_to_cosines(qkv: Tensor, logit_scale: Tensor) -> None:
    """Give q and k of (n, 3C) the length 1, and multiply q with the logit scale (nH, 1, 1); 0 stays 0."""
    heads = qkv.view(len(qkv), 3, len(logit_scale), -1)[:, :2]
    length = torch.linalg.vector_norm(heads, dim=-1, keepdim=True)
    factor = length.masked_fill_(length == 0, 1).reciprocal_()
    factor[:, 0] *= logit_scale.squeeze(1)
    heads *= factor


def _add_branches(
    x: Tensor, attended: Tensor, weights: BlockWeights, output_bias: Tensor, pre_norm: bool
) -> None:
    """Add both branches to x (n, C) in place, given the outputs of the heads (n, C)."""
    branch = linear(attended, weights.attention.proj.weight, output_bias)
    x += branch if pre_norm else _norm(branch, weights.norm1)
    hidden = linear(_norm(x, weights.norm2) if pre_norm else x, *weights.fc1)
    branch = linear(torch.ops.aten.gelu_(hidden), *weights.fc2)
    x += branch if pre_norm else _norm(branch, weights.norm2)
    if weights.norm3 is not None:
        x.copy_(_norm(x, weights.norm3))


def _norm(x: Tensor, norm: LayerWeights) -> Tensor:
    return F.layer_norm(x, (x.size(1),), norm.weight, norm.bias, EPS)
