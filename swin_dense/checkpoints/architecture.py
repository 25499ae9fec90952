"""The architecture that a Swin's weights have, read off their shapes, and whether they are complete."""

from dataclasses import dataclass

import torch

from swin_dense.checkpoints.convert import Swin
from swin_dense.checkpoints.formats import FORMATS
from swin_dense.checkpoints.report import Report
from swin_dense.models import SwinTransformer, SwinTransformerV2

SIZES = {  # embed_dims, depths
    (96, (2, 2, 6, 2)): 'Tiny',
    (96, (2, 2, 18, 2)): 'Small',
    (128, (2, 2, 18, 2)): 'Base',
    (192, (2, 2, 18, 2)): 'Large',
}


@dataclass(frozen=True)
class Architecture:
    """Arguments of the backbone; ``window_sizes`` has None where the file does not tell."""

    version: int
    embed_dims: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int | None, ...]
    in_channels: int
    mlp_ratio: float
    qkv_bias: bool
    extra_norms: bool

    def __str__(self) -> str:
        size = SIZES.get((self.embed_dims, self.depths), f'{self.embed_dims} channels, depths {self.depths}')
        windows = sorted({window for window in self.window_sizes if window})
        window = ' and '.join(map(str, windows)) if windows else 'not told'
        return f'Swin v{self.version} {size}, window {window}'


def architecture(swin: Swin) -> Architecture:
    """Read the architecture off the shapes of ``swin.weights``."""
    weights = swin.weights
    blocks = {tuple(map(int, key.split('.')[1:4:2])) for key in weights if '.blocks.' in key}
    stages = range(1 + max(stage for stage, _ in blocks))
    heads = 'logit_scale' if swin.version == 2 else 'relative_position_bias_table'
    first = [weights[f'layers.{i}.blocks.0.attn.{heads}'] for i in stages]
    stem, hidden = weights['patch_embed.proj.weight'], weights['layers.0.blocks.0.mlp.fc1.weight']
    return Architecture(
        version=swin.version,
        embed_dims=stem.size(0),
        depths=tuple(sum(stage == i for stage, _ in blocks) for i in stages),
        num_heads=tuple(x.size(0) if swin.version == 2 else x.size(1) for x in first),
        window_sizes=tuple(swin.window(f'layers.{i}.blocks.0') for i in stages),
        in_channels=stem.size(1),
        mlp_ratio=hidden.size(0) / hidden.size(1),
        qkv_bias=any(key.endswith(('.qkv.bias', '.q_bias')) for key in weights),
        extra_norms=any(key.endswith('.norm3.weight') for key in weights),
    )


def examine(swin: Swin, file: str) -> Report:
    """Report on a file alone: its Swin against the parameters that its own architecture has."""
    kind = architecture(swin)
    arguments = dict(
        embed_dims=kind.embed_dims,
        depths=kind.depths,
        num_heads=kind.num_heads,
        window_size=[window or 8 for window in kind.window_sizes],
        in_channels=kind.in_channels,
        mlp_ratio=kind.mlp_ratio,
        qkv_bias=kind.qkv_bias,
    )
    with torch.device('meta'):
        model = (SwinTransformerV2 if kind.version == 2 else SwinTransformer)(**arguments)
    wanted = {
        key: x.numel() for key, x in model.named_parameters() if key in swin.weights or key[:4] != 'norm'
    }
    matched = [key for key in wanted if key in swin.weights]
    return Report(
        file,
        f'{FORMATS[swin.source].title}, {kind}',
        matched=matched,
        missing=[key for key in wanted if key not in swin.weights],
        unexpected=[*(key for key in swin.weights if key not in wanted), *swin.others],
        filled=sum(wanted[key] for key in matched) / sum(wanted.values()),
    )
