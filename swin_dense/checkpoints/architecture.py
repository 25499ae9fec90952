"""Read the architecture of a Swin off the shapes of its weights, and check that the weights are complete."""

from dataclasses import dataclass

import torch
from torch import Tensor

from swin_dense.checkpoints.convert import Swin, errors_name
from swin_dense.checkpoints.formats import FORMATS
from swin_dense.checkpoints.matching import match
from swin_dense.checkpoints.report import Report

PATCH = 4  # side of a patch in pixels
CPB_HIDDEN = 512  # channels between the two layers of v2's position bias
SIZES: dict[tuple[int, tuple[int, ...]], str] = {  # embed_dims, depths
    (96, (2, 2, 6, 2)): 'Tiny',
    (96, (2, 2, 18, 2)): 'Small',
    (128, (2, 2, 18, 2)): 'Base',
    (192, (2, 2, 18, 2)): 'Large',
}


@dataclass(frozen=True)
class Architecture:
    """Arguments of the backbone. A window size is None if the file does not tell it."""

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
    weights = {key: value for key, value in swin.weights.items() if isinstance(value, Tensor)}
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
    """Report how the file's tensors match a backbone of the file's own architecture.

    Raises:
        UserError: the shapes contradict each other, or weights are not finite.
    """
    with errors_name(file):
        kind = architecture(swin)
        position = swin.weights.get('absolute_pos_embed')
        wanted = shapes(kind, position if isinstance(position, Tensor) else None)
    report = Report(file, f'{FORMATS[swin.source].title}, {kind}')
    tensors = {key: torch.empty(shape, device='meta') for key, shape in wanted.items()}
    fitted = match(tensors, swin.others | swin.weights, report)
    report.filled = sum(tensors[key].numel() for key in fitted) / sum(x.numel() for x in tensors.values())
    return report


def shapes(kind: Architecture, position: Tensor | None = None) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of a backbone, by name. No model is built: that would import the hosts.

    Args:
        kind: the architecture. An unknown window is taken as 8.
        position: the absolute position embedding (1, C, h, w), if there is one.

    Returns:
        The names, their order and the shapes of ``SwinTransformer(V2).state_dict()``.
    """
    dim = kind.embed_dims
    wanted: dict[str, tuple[int, ...]] = {}
    if position is not None:
        wanted['absolute_pos_embed'] = (1, dim, position.size(2), position.size(2))
    wanted['patch_embed.proj.weight'] = (dim, kind.in_channels, PATCH, PATCH)
    wanted['patch_embed.proj.bias'] = (dim,)
    wanted |= _norm('patch_embed.norm', dim)
    dims = [dim * 2**i for i in range(len(kind.depths))]
    for i, dim in enumerate(dims):
        for j in range(kind.depths[i]):
            has_norm3 = kind.extra_norm_every is not None and (j + 1) % kind.extra_norm_every == 0
            window = kind.window_sizes[i] or 8
            wanted |= _block(f'layers.{i}.blocks.{j}', dim, kind, kind.num_heads[i], window, has_norm3)
        if i + 1 < len(dims):
            # v1 norms before the reduction, v2 after it
            wanted |= _norm(f'layers.{i}.downsample.norm', 4 * dim if kind.version == 1 else 2 * dim)
            wanted[f'layers.{i}.downsample.reduction.weight'] = (2 * dim, 4 * dim)
    for i, dim in enumerate(dims):
        wanted |= _norm(f'norm{i}', dim)
    return wanted


def _block(
    name: str, dim: int, kind: Architecture, heads: int, window: int, has_norm3: bool
) -> dict[str, tuple[int, ...]]:
    hidden = int(dim * kind.mlp_ratio)
    attention: dict[str, tuple[int, ...]]
    if kind.version == 1:
        attention = {
            'relative_position_bias_table': ((2 * window - 1) ** 2, heads),
            'qkv.weight': (3 * dim, dim),
        }
        attention |= {'qkv.bias': (3 * dim,)} if kind.qkv_bias else {}
    else:
        attention = {'logit_scale': (heads, 1, 1)}
        attention |= {'q_bias': (dim,), 'v_bias': (dim,)} if kind.qkv_bias else {}
        attention |= {'cpb_mlp.0.weight': (CPB_HIDDEN, 2), 'cpb_mlp.0.bias': (CPB_HIDDEN,)}
        attention |= {'cpb_mlp.2.weight': (heads, CPB_HIDDEN), 'qkv.weight': (3 * dim, dim)}
    attention |= {'proj.weight': (dim, dim), 'proj.bias': (dim,)}
    mlp = {
        'fc1.weight': (hidden, dim),
        'fc1.bias': (hidden,),
        'fc2.weight': (dim, hidden),
        'fc2.bias': (dim,),
    }
    return {
        **_norm(f'{name}.norm1', dim),
        **{f'{name}.attn.{key}': shape for key, shape in attention.items()},
        **_norm(f'{name}.norm2', dim),
        **{f'{name}.mlp.{key}': shape for key, shape in mlp.items()},
        **(_norm(f'{name}.norm3', dim) if has_norm3 else {}),
    }


def _norm(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {f'{name}.weight': (dim,), f'{name}.bias': (dim,)}
