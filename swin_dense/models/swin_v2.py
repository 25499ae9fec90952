"""Swin Transformer V2 as a backbone: what differs from v1 in ``swin.py``.

Residual post-norm blocks, scaled cosine attention (``attention.py``), and merging that norms last.
Microsoft published v2 for classification only: at one size, and with windows shrunk to small maps.
Here, as in v1, every size is padded with zeros at the bottom and right, pads are not masked, and
windows are never shrunk and always shifted. k has no bias, so a pad's k is 0 and its v is v's bias.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_dense.kernels import blocked
from swin_dense.models.attention import WindowAttentionV2
from swin_dense.models.swin import PatchMerging, SwinBlock, SwinTransformer, neighbourhoods
from swin_dense.registry import MODELS


class SwinBlockV2(SwinBlock):
    """One block: x + norm(attention(x)), then x + norm(mlp(x)) (section 3.2, "post normalization").

    Args:
        dim: channels C.
        attn: attention in windows of side M.
        shifted: W-MSA, or SW-MSA with windows shifted by M // 2.
        mlp_ratio: hidden channels of the MLP over C.
        drop: dropout of the MLP.
        drop_path: probability to skip a residual branch, per sample.
        extra_norm: norm the sum at the end as well.
    """

    pre_norm = False

    def __init__(
        self,
        dim: int,
        attn: WindowAttentionV2,
        shifted: bool,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        extra_norm: bool,
    ) -> None:
        super().__init__(dim, attn, shifted, mlp_ratio, drop, drop_path)
        self.norm3 = nn.LayerNorm(dim) if extra_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        if blocked.serves(self, x):
            return blocked.forward([self], x)
        x = x + self.drop_path(self.norm1(self.attend(x)))
        x = x + self.drop_path(self.norm2(self.mlp(x)))
        return self.norm3(x)


class PatchMergingV2(PatchMerging):
    """Concatenate each 2x2 neighbourhood, project 4C channels to 2C, and norm those; zero pads."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(2 * dim)

    def _merge(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(neighbourhoods(x)))


@MODELS.register_module()
class SwinTransformerV2(SwinTransformer):
    """Swin Transformer V2 backbone (Liu et al. 2022), for images of any size.

    The norms of the blocks start at weight and bias 0, as Microsoft's and timm's do (torchvision and
    mmpretrain leave the weights at 1): at first every block is the identity.

    Args:
        window_size: side of the attention window in tokens, or one side for each stage.
        qkv_bias: bias in the q and v projections; k has none.
        pretrained_window_sizes: side of the windows of the pretraining in each stage, to which the
            log-spaced coordinates are scaled; None, or 0 for a stage, means ``window_size``.
        extra_norm_every: in each stage, norm the sum after every n-th block (huge and giant models).

    The other arguments, what is returned, and what is raised are those of ``SwinTransformer``.
    """

    def __init__(
        self,
        embed_dims: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int | Sequence[int] = 8,
        in_channels: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        pretrain_img_size: int | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        with_cp: bool = False,
        pretrained_window_sizes: Sequence[int] | None = None,
        extra_norm_every: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        pretrained = pretrained_window_sizes or [0] * len(depths)
        if len(pretrained) != len(depths) or min(pretrained) < 0:
            raise ValueError(
                f'pretrained_window_sizes={pretrained} must be 0 or more in each of the {len(depths)} stages'
            )
        if extra_norm_every is not None and extra_norm_every < 1:
            raise ValueError(f'extra_norm_every={extra_norm_every} must be 1 or more, or None')
        # before the parent's constructor, which calls block()
        self.pretrained_window_sizes = pretrained
        self.extra_norm_every = extra_norm_every
        super().__init__(
            embed_dims, depths, num_heads, window_size, in_channels, mlp_ratio, qkv_bias, drop_rate,
            attn_drop_rate, drop_path_rate, pretrain_img_size, out_indices, frozen_stages, with_cp, init_cfg,
        )  # fmt: skip
        for module in self.modules():
            if isinstance(module, SwinBlockV2):
                for parameter in (*module.norm1.parameters(), *module.norm2.parameters()):
                    nn.init.zeros_(parameter)

    def block(self, stage: int, index: int, dim: int, num_heads: int, drop_path: float) -> SwinBlockV2:
        """Make block ``index`` of a stage."""
        attn = WindowAttentionV2(
            dim, self.window_sizes[stage], num_heads, self.qkv_bias, self.attn_drop_rate, self.drop_rate,
            self.pretrained_window_sizes[stage],
        )  # fmt: skip
        extra_norm = self.extra_norm_every is not None and (index + 1) % self.extra_norm_every == 0
        return SwinBlockV2(dim, attn, index % 2 == 1, self.mlp_ratio, self.drop_rate, drop_path, extra_norm)

    def merging(self, dim: int) -> PatchMergingV2:
        """Make the patch merging behind a stage of ``dim`` channels."""
        return PatchMergingV2(dim)
