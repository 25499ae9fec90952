"""Multi-head self-attention inside windows: v1 with a table of position biases, v2 with an MLP."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.kernels.blocked import AttentionWeights, LayerWeights
from swin_dense.kernels.windows import log_coordinates, relative_position_index
from swin_dense.models import fused
from swin_dense.models.linear import Linear

MAX_LOG_SCALE = math.log(100)  # v2 keeps the temperature above 0.01


class WindowAttention(nn.Module):
    """W-MSA: softmax(q k^T / sqrt(d) + bias) v for each window and head.

    Swin Transformer (Liu et al. 2021), section 3.2, eq. 4. Parameter names are Microsoft's.

    Args:
        dim: channels C of a token; ``num_heads`` divides it.
        window_size: the window's side M.
        num_heads: heads nH, each of d = C / nH channels.
        qkv_bias: whether q, k and v have a bias.
        attn_drop: dropout of the attention weights.
        proj_drop: dropout of the output.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.window_size = window_size
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self) -> Tensor:
        """(nH, N, N): the bias table laid out for every (query, key) pair."""
        return _by_pair(self.relative_position_bias_table, self.window_size)

    def weights(self) -> AttentionWeights:
        """The parameters as the kernels take them. The bias of k changes no output."""
        query_bias, _, value_bias = (None, None, None) if self.qkv.bias is None else self.qkv.bias.chunk(3)
        proj = LayerWeights(self.proj.weight, self.proj.bias)
        return AttentionWeights(self.qkv.weight, query_bias, value_bias, proj, logit_scale=None)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend inside each window.

        Args:
            x: (B * nW, N, C) tokens by window.
            bias: added to the logits, (1, nH, N, N) or (B * nW, nH, N, N).

        Returns:
            (B * nW, N, C).
        """
        windows, tokens, channels = x.shape
        qkv = self.qkv(x).view(windows, tokens, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind()
        drop = self.attn_drop if self.training else 0.0
        x = _attend(query, key, value, bias.to(value.dtype), drop, None)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(windows, tokens, channels)))


class WindowAttentionV2(nn.Module):
    """W-MSA of v2: softmax(cos(q, k) / tau + bias) v for each window and head.

    Swin Transformer V2 (Liu et al. 2022), sections 3.2 (scaled cosine attention, eq. 2) and 3.3 (log-spaced
    continuous position bias, eq. 3 and 4). From Microsoft's code, and not in the paper: the bias is
    16 sigmoid(MLP), and k has no bias of its own, so a pad's k is 0. Parameter names are Microsoft's.

    Args:
        dim: channels C of a token; ``num_heads`` divides it.
        window_size: the window's side M.
        num_heads: heads nH, each of d = C / nH channels.
        qkv_bias: whether q and v have a bias.
        attn_drop: dropout of the attention weights.
        proj_drop: dropout of the output.
        pretrained_window: side of the window in the pretraining, None or 0 for ``window_size``.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        pretrained_window: int | None = None,
    ) -> None:
        super().__init__()
        _check_heads(dim, num_heads)
        self.window_size = window_size
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.pretrained_window = pretrained_window or window_size
        self.logit_scale = nn.Parameter(torch.full((num_heads, 1, 1), math.log(10)))  # log(1 / tau)
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, num_heads, bias=False))
        self.qkv = Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.proj = Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self) -> Tensor:
        """(nH, N, N): the MLP's bias for the offset of every (query, key) pair."""
        device, dtype = self.logit_scale.device, self.logit_scale.dtype  # a quantized layer's weight has none
        offsets = log_coordinates(self.window_size, self.pretrained_window, device, dtype)
        # not in autocast's type: the gradient is a sum over all windows, too long for half precision
        table = 16 * self.cpb_mlp(offsets).to(dtype).sigmoid()
        return _by_pair(table, self.window_size)

    def scale(self) -> Tensor:
        """(nH, 1, 1): 1 / tau, the factor of the cosines."""
        return self.logit_scale.clamp(max=MAX_LOG_SCALE).exp()

    def weights(self) -> AttentionWeights:
        """The parameters as the kernels take them."""
        proj = LayerWeights(self.proj.weight, self.proj.bias)
        return AttentionWeights(self.qkv.weight, self.q_bias, self.v_bias, proj, self.scale())

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend inside each window.

        Args:
            x: (B * nW, N, C) tokens by window.
            bias: added to the logits, (1, nH, N, N) or (B * nW, nH, N, N).

        Returns:
            (B * nW, N, C).
        """
        windows, tokens, channels = x.shape
        qkv = self.qkv(x)
        if self.q_bias is not None and self.v_bias is not None:
            qkv = qkv + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        query, key, value = qkv.view(windows, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        query, key = (_unit(query) * self.scale()).to(value.dtype), _unit(key).to(value.dtype)
        drop = self.attn_drop if self.training else 0.0
        x = _attend(query, key, value, bias.to(value.dtype), drop, 1.0)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(windows, tokens, channels)))


@fused.attention
def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor, drop: float, scale: float | None
) -> Tensor:
    """softmax(scale * q k^T + bias) v of (B * nW, nH, N, d); a ``scale`` of None is 1 / sqrt(d)."""
    logits = query @ key.transpose(-2, -1) * (scale or query.size(-1) ** -0.5) + bias
    return F.dropout(logits.softmax(-1), drop) @ value


def _unit(x: Tensor) -> Tensor:
    """x / |x| along the last axis, in single precision at least; 0 stays 0.

    F.normalize divides a pad's zero key by 1e-12, and its gradient too: in half precision, infinity.
    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.masked_fill(length == 0, 1)


def _by_pair(table: Tensor, window: int) -> Tensor:
    """((2M - 1)^2, nH) biases by offset -> (nH, N, N) by (query, key)."""
    rows = table[relative_position_index(window, table.device)]
    return rows.view(window**2, window**2, -1).permute(2, 0, 1)


def _check_heads(dim: int, num_heads: int) -> None:
    if dim % num_heads:
        raise ValueError(f'num_heads={num_heads} does not divide the {dim} channels of its stage')
