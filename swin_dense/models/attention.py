"""Multi-head self-attention inside windows, with a learned relative position bias."""

import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.models.windows import relative_position_index


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
        if dim % num_heads:
            raise ValueError(f'num_heads={num_heads} does not divide the {dim} channels of its stage')
        self.window_size = window_size
        self.num_heads = num_heads
        self.attn_drop = attn_drop
        self.relative_position_bias_table = nn.Parameter(Tensor((2 * window_size - 1) ** 2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def position_bias(self) -> Tensor:
        """(nH, N, N): the bias table laid out for every (query, key) pair."""
        tokens = self.window_size**2
        table = self.relative_position_bias_table
        rows = table[relative_position_index(self.window_size, table.device)]
        return rows.view(tokens, tokens, self.num_heads).permute(2, 0, 1)

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
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias.to(query.dtype),
            dropout_p=self.attn_drop if self.training else 0.0,
        )
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(windows, tokens, channels)))
