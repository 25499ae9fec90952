"""The architecture that a Swin's weights have, read off their shapes, and whether they are complete."""

from dataclasses import dataclass

import torch

from swin_dense.checkpoints.convert import Swin, naming
from swin_dense.checkpoints.formats import FORMATS
from swin_dense.checkpoints.load import match
from swin_dense.checkpoints.report import Report
from swin_dense.models import SwinTransformer, SwinTransformerV2
from swin_dense.models.swin import PATCH

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
    extra_norm_every: int | None

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
        depths=tuple(1 + max((j for stage, j in blocks if stage == i), default=0) for i in stages),
        num_heads=tuple(x.size(0) if swin.version == 2 else x.size(1) for x in first),
        window_sizes=tuple(swin.window(f'layers.{i}.blocks.0') for i in stages),
        in_channels=stem.size(1),
        mlp_ratio=hidden.size(0) / hidden.size(1),
        qkv_bias=any(key.endswith(('.qkv.bias', '.q_bias')) for key in weights),
        extra_norm_every=min(
            (j + 1 for i, j in blocks if f'layers.{i}.blocks.{j}.norm3.weight' in weights), default=None
        ),
    )


def examine(swin: Swin, file: str) -> Report:
    """Report what the file gives to a backbone of its own architecture.

    Raises:
        UserError: the shapes contradict each other, or weights are not finite.
    """
    with naming(file), torch.device('meta'):
        kind = architecture(swin)
        position = swin.weights.get('absolute_pos_embed')
        model = (SwinTransformerV2 if kind.version == 2 else SwinTransformer)(
            embed_dims=kind.embed_dims,
            depths=kind.depths,
            num_heads=kind.num_heads,
            window_size=[window or 8 for window in kind.window_sizes],
            in_channels=kind.in_channels,
            mlp_ratio=kind.mlp_ratio,
            qkv_bias=kind.qkv_bias,
            pretrain_img_size=None if position is None else PATCH * position.size(2),
            **(dict(extra_norm_every=kind.extra_norm_every) if kind.version == 2 else {}),
        )
    report = Report(file, f'{FORMATS[swin.source].title}, {kind}')
    match(model, swin.others | swin.weights, report)
    return report
