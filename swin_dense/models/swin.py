"""Swin Transformer (v1) as a backbone: an image in, the maps C2..C5 out.

Read top to bottom: patch embedding, block, patch merging, stage, backbone. Maps are (B, H, W, C)
inside and leave as (B, C, H, W). Semantics are those of Microsoft's detection code, which mmdet and
mmseg share: windows are padded after norm1 and the pads are not masked; merging pads before its norm.
Parameter names are Microsoft's, so the official files load as they are. ``swin_v2.py`` builds on this, and
``fused.py`` says where the kernels stand in for a ``forward``.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from swin_dense.kernels.blocked import BlockWeights, LayerWeights
from swin_dense.kernels.windows import (
    biases_by_window,
    crop,
    join_windows,
    masked_by_kind,
    pad_to_multiple,
    split_windows,
)
from swin_dense.models import fused, host_arguments
from swin_dense.models.attention import WindowAttention, WindowAttentionV2
from swin_dense.models.host_arguments import PATCH
from swin_dense.models.linear import Linear
from swin_dense.registry import MODELS


class PatchEmbed(nn.Module):
    """Cut the image into 4x4 patches and project each to a token (section 3.1)."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, dim, kernel_size=PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(dim)

    @fused.by_bands(rows=2, stride=PATCH)
    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, ceil(H/4), ceil(W/4), dim); zero pads at the bottom and right."""
        image = pad_to_multiple(image, PATCH, rows=2)
        return self.norm(self.proj(image).permute(0, 2, 3, 1))


class Mlp(nn.Module):
    """Linear, GELU (erf), Linear."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(F.gelu(self.fc1(x)))))


class SwinBlock(nn.Module):
    """One block: x + attention(norm(x)), then x + mlp(norm(x)) (section 3.2, eq. 3).

    Args:
        dim: channels C.
        attn: attention in windows of side M.
        shifted: W-MSA, or SW-MSA with windows shifted by M // 2.
        mlp_ratio: hidden channels of the MLP over C.
        drop: dropout of the MLP.
        drop_path: probability to skip a residual branch, per sample.
    """

    pre_norm = True  # a norm comes before each branch; in v2 after it

    def __init__(
        self,
        dim: int,
        attn: WindowAttention | WindowAttentionV2,
        shifted: bool,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.window_size = attn.window_size
        self.shift = attn.window_size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attn
        self.drop_path = StochasticDepth(drop_path, mode='row')
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    @fused.block
    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        x = x + self.drop_path(self.attend(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def attend(self, x: Tensor) -> Tensor:
        """Pad, shift, cut into windows, attend, and undo the three."""
        height, width = x.shape[1:3]
        x = pad_to_multiple(x, self.window_size)
        batch, padded_height, padded_width = x.shape[:3]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), dims=(1, 2))
        biases = self.biases()
        if self.shift:
            rows, columns = padded_height // self.window_size, padded_width // self.window_size
            biases = biases_by_window(biases, batch, rows, columns)
        windows = self.attn(split_windows(x, self.window_size), biases)
        x = join_windows(windows, self.window_size, padded_height, padded_width)
        if self.shift:
            x = x.roll((self.shift, self.shift), dims=(1, 2))
        return crop(x, height, width)

    def biases(self) -> Tensor:
        """Biases of the attention logits: the position bias, plus the mask in shifted blocks.

        Returns:
            (1, nH, N, N) without shift, (4, nH, N, N) with it, one for each kind of window.
        """
        bias = self.attn.position_bias().unsqueeze(0)
        if not self.shift:
            return bias
        return masked_by_kind(bias, self.window_size, self.shift)

    def weights(self) -> BlockWeights:
        """The parameters as the kernels take them."""
        layers = (self.norm1, self.norm2, self.mlp.fc1, self.mlp.fc2)
        norm1, norm2, fc1, fc2 = (LayerWeights(layer.weight, layer.bias) for layer in layers)
        return BlockWeights(norm1, self.attn.weights(), norm2, fc1, fc2, norm3=None)


class PatchMerging(nn.Module):
    """Concatenate each 2x2 neighbourhood and project 4C channels to 2C (section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False)

    @fused.by_bands(rows=1, stride=2)
    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 2C); zero pads, before the norm."""
        return self.reduction(self.norm(neighbourhoods(x)))


def neighbourhoods(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, ceil(H/2), ceil(W/2), 4C): each 2x2 side by side; zero pads."""
    x = pad_to_multiple(x, 2)
    batch, height, width, channels = x.shape
    x = x.view(batch, height // 2, 2, width // 2, 2, channels)
    # Microsoft's order: (row, column) = (0, 0), (1, 0), (0, 1), (1, 1)
    return x.permute(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)


class SwinStage(nn.Module):
    """Blocks at one resolution, every second one shifted, and the merging that follows them."""

    def __init__(self, blocks: Sequence[SwinBlock], downsample: nn.Module | None, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample
        self.with_cp = with_cp

    @fused.stage(of=SwinBlock)
    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape; ``downsample`` is applied by the backbone."""
        for block in self.blocks:
            x = fused.recomputed(block, x) if self.with_cp else block(x)
        return x


@MODELS.register_module()
class SwinTransformer(BaseModule):
    """Swin Transformer backbone (Liu et al. 2021), for images of any size.

    Args:
        embed_dims: channels of C2; C3, C4, C5 have 2, 4, 8 times as many.
        depths: blocks in each stage.
        num_heads: attention heads in each stage.
        window_size: side of the attention window in tokens, or one side for each stage.
        in_channels: channels of the image.
        mlp_ratio: hidden channels of the MLPs over their input channels.
        qkv_bias: bias in the q, k, v projections.
        drop_rate: dropout of tokens and projections.
        attn_drop_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block; it rises linearly from 0 over the blocks.
        use_abs_pos_embed: add an absolute position embedding, resized (bicubic) to each map.
        pretrain_img_size: side in pixels of the pretraining images, or height and width: the size of the
            absolute position embedding, if there is one.
        out_indices: stages whose maps are returned, rising; later stages are not built.
        frozen_stages: -1 trains everything; 0 freezes the patch embedding, k also the first k stages.
        with_cp: recompute each block in the backward pass instead of storing it.
        init_cfg: weights to load, ``dict(type='swin_dense.Pretrained', checkpoint=FILE_OR_URL)``; the hosts'
            ``type='Pretrained'`` means the same.
        pretrained: the file or address alone.
        convert_weights: unused: any file is recognised and converted.
        patch_size, strides, qk_scale, patch_norm, norm_cfg, act_cfg: the hosts' arguments; the paper's values
            are the only ones.

    Attributes:
        channels_last: return maps that are channels-last in memory, which our FPN and UPerHead prefer; set by
            ``models.layout.connect``. Other heads may need contiguous ones.

    Raises:
        ValueError: arguments that do not fit together, or that ask for another network.
    """

    # the parts that v2 replaces
    attention: type[WindowAttention] | type[WindowAttentionV2] = WindowAttention
    block: type[SwinBlock] = SwinBlock
    merging: type[PatchMerging] = PatchMerging

    def __init__(
        self,
        embed_dims: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int | Sequence[int] = 7,
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
        init_cfg: dict | None = None,
        pretrained: str | None = None,
        convert_weights: bool = False,
        patch_size: int = PATCH,
        strides: Sequence[int] = host_arguments.STRIDES,
        qk_scale: float | None = None,
        patch_norm: bool = True,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
    ) -> None:
        host_arguments.check(patch_size, strides, qk_scale, patch_norm, norm_cfg, act_cfg)
        super().__init__(host_arguments.initial_weights(init_cfg, pretrained))
        windows = [window_size] * len(depths) if isinstance(window_size, int) else window_size
        _check_arguments(depths, num_heads, windows, out_indices, frozen_stages)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.channels_last = False
        stages = self.out_indices[-1] + 1
        dims = [embed_dims * 2**i for i in range(stages)]
        self.out_channels = [dims[i] for i in self.out_indices]

        self.patch_embed = PatchEmbed(in_channels, embed_dims)
        self.absolute_pos_embed = None
        if use_abs_pos_embed:
            size = [pretrain_img_size] * 2 if isinstance(pretrain_img_size, int) else pretrain_img_size
            sides = [side // PATCH for side in size]
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, embed_dims, *sides))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        # linear over all the blocks of the architecture, also those of stages that are not built
        last = max(1, sum(depths) - 1)
        drop_path = iter([drop_path_rate * i / last for i in range(sum(depths))])

        self.layers = nn.ModuleList()
        for i in range(stages):
            blocks = []
            for j in range(depths[i]):
                attn = self.attention(dims[i], windows[i], num_heads[i], qkv_bias, attn_drop_rate, drop_rate)
                shifted = j % 2 == 1
                blocks.append(self.block(dims[i], attn, shifted, mlp_ratio, drop_rate, next(drop_path)))
            downsample = self.merging(dims[i]) if i + 1 < stages else None
            self.layers.append(SwinStage(blocks, downsample, with_cp))
        for i in self.out_indices:
            self.add_module(f'norm{i}', nn.LayerNorm(dims[i]))

        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self._freeze()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of ``out_indices``.

        Args:
            image: (B, in_channels, H, W), any H and W from 1.

        Returns:
            For each stage i of ``out_indices`` (B, C_i, ceil(H / s), ceil(W / s)) with C_i = embed_dims * 2^i
            and s = 4 * 2^i, each through its own LayerNorm.
        """
        x = self.patch_embed(image)
        if self.absolute_pos_embed is not None:
            position = F.interpolate(self.absolute_pos_embed, x.shape[1:3], mode='bicubic')
            x = x + position.permute(0, 2, 3, 1)
        x = self.pos_drop(x)
        maps = []
        for i, stage in enumerate(self.layers):
            x = stage(x)
            if i in self.out_indices:
                map_ = getattr(self, f'norm{i}')(x).permute(0, 3, 1, 2)
                maps.append(map_ if self.channels_last else map_.contiguous())
            if isinstance(stage.downsample, nn.Module):
                x = stage.downsample(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> 'SwinTransformer':
        """Set the mode; the parts that ``frozen_stages`` freezes stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def _freeze(self) -> None:
        """Exclude the frozen parts from training.

        Not in ``train()``: DistributedDataParallel looks once, when it wraps the model.
        """
        for module in self._frozen():
            module.requires_grad_(False)
        if self.frozen_stages >= 0 and self.absolute_pos_embed is not None:
            self.absolute_pos_embed.requires_grad_(False)

    def _frozen(self) -> Iterator[nn.Module]:
        if self.frozen_stages >= 0:
            yield self.patch_embed
            yield self.pos_drop
        for i in range(self.frozen_stages):
            yield self.layers[i]
            if i in self.out_indices:
                yield getattr(self, f'norm{i}')


def _check_arguments(
    depths: Sequence[int],
    num_heads: Sequence[int],
    windows: Sequence[int],
    out_indices: Sequence[int],
    frozen_stages: int,
) -> None:
    if len(depths) != len(num_heads):
        raise ValueError(f'depths={depths} and num_heads={num_heads} must have one entry for each stage')
    if len(windows) != len(depths) or any(window < 1 for window in windows):
        raise ValueError(f'window_size={windows} must be 1 or more in each of the {len(depths)} stages')
    if not out_indices or list(out_indices) != sorted(set(out_indices)) or out_indices[0] < 0:
        raise ValueError(f'out_indices={out_indices} must rise from 0 or more')
    if out_indices[-1] >= len(depths):
        raise ValueError(f'out_indices={out_indices} names a stage beyond the {len(depths)} in depths')
    if not -1 <= frozen_stages <= out_indices[-1] + 1:
        raise ValueError(f'frozen_stages={frozen_stages} must lie between -1 and {out_indices[-1] + 1}')
