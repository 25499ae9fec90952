"""Swin Transformer V2 as a backbone: its differences from v1 in ``swin.py``.

Residual post-norm blocks, scaled cosine attention (``attention.py``), and merging that norms last.
Microsoft published v2 for classification only: at one size, and with windows shrunk to small maps.
Here, as in v1, every size is padded with zeros at the bottom and right, pads are not masked, and windows
are never shrunk and always shifted. k has no bias, so the k of a pad is 0, and its v is the bias of v.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from swin_dense.kernels.blocked import BlockWeights, LayerWeights
from swin_dense.models import fused
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
    """

    pre_norm = False
    attn: WindowAttentionV2

    def __init__(
        self,
        dim: int,
        attn: WindowAttentionV2,
        shifted: bool,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__(dim, attn, shifted, mlp_ratio, drop, drop_path)
        self.norm3: nn.Module = nn.Identity()
        for norm in (self.norm1, self.norm2):  # at first the block is the identity
            nn.init.zeros_(norm.weight)

    def add_norm(self) -> None:
        """Norm the sum at the end of the block as well."""
        self.norm3 = nn.LayerNorm(self.norm1.normalized_shape)

    @fused.block
    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = x + self.drop_path(self.norm1(self.attend(x)))
        x = x + self.drop_path(self.norm2(self.mlp(x)))
        return self.norm3(x)

    def weights(self) -> BlockWeights:
        """The parameters as the kernels take them."""
        weights = super().weights()
        if isinstance(self.norm3, nn.LayerNorm):
            return weights._replace(norm3=LayerWeights(self.norm3.weight, self.norm3.bias))
        return weights


class PatchMergingV2(PatchMerging):
    """Concatenate each 2x2 neighbourhood, project 4C channels to 2C, and norm those; zero pads."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(2 * dim)

    @fused.by_bands(rows=1, stride=2)
    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C)."""
        return self.norm(self.reduction(neighbourhoods(x)))


@MODELS.register_module()
class SwinTransformerV2(SwinTransformer):
    """Swin Transformer V2 backbone (Liu et al. 2022), for images of any size.

    The norms of the blocks start at weight and bias 0, as in Microsoft's code and timm: at first every
    block is the identity. torchvision and mmpretrain leave the weights at 1.

    Args:
        window_size: side of the attention window in tokens, or one side for each stage.
        qkv_bias: bias in the q and v projections; k has none.
        pretrained_window_sizes: side of the windows of the pretraining in each stage, to which the
            log-spaced coordinates are scaled; None, or 0 for a stage, means ``window_size``.
        extra_norm_every: in each stage, norm the sum after every n-th block (huge and giant models).

    The other arguments, the maps and the errors are those of ``SwinTransformer``.
    """

    attention = WindowAttentionV2
    block = SwinBlockV2
    merging = PatchMergingV2

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
        use_abs_pos_embed: bool = False,
        pretrain_img_size: int | Sequence[int] = 224,
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
        super().__init__(
            embed_dims=embed_dims,
            depths=depths,
            num_heads=num_heads,
            window_size=window_size,
            in_channels=in_channels,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            drop_rate=drop_rate,
            attn_drop_rate=attn_drop_rate,
            drop_path_rate=drop_path_rate,
            use_abs_pos_embed=use_abs_pos_embed,
            pretrain_img_size=pretrain_img_size,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        for stage, pretrained_window in zip(self.layers, pretrained, strict=False):
            blocks = [block for block in stage.modules() if isinstance(block, SwinBlockV2)]
            for number, block in enumerate(blocks, start=1):
                block.attn.pretrained_window = pretrained_window or block.window_size
                if extra_norm_every is not None and number % extra_norm_every == 0:
                    block.add_norm()
        self._freeze()  # the added norms too
