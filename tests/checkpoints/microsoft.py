"""Files as Microsoft's three repositories write them, their names and shapes written out by hand."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tests.references.swin_weights import randomise

SMALL = dict(embed_dims=8, depths=(2, 1, 3, 2), num_heads=(1, 2, 2, 4), window_size=2)
CLASSES = 5


class _Bag(nn.Module):
    """Parameters of any names, dots included, to be randomised."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return iter((name, x) for name, x in self.tensors.items() if x.is_floating_point())


def weights(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """Random weights of these shapes, in which every parameter matters."""
    tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    randomise(_Bag(tensors), seed)
    return tensors


def classifier_v1(window: int = 2) -> dict[str, tuple[int, ...]]:
    """Swin-Transformer/models/swin_transformer.py."""
    shapes = {**patch_embedding(), **merging(normed_first=True)}
    for stage, block, dim, heads in blocks():
        name = f'layers.{stage}.blocks.{block}'
        shapes |= {
            **common(name, dim),
            f'{name}.attn.relative_position_bias_table': ((2 * window - 1) ** 2, heads),
            f'{name}.attn.qkv.bias': (3 * dim,),
        }
    return {**shapes, **head()}


def classifier_v2() -> dict[str, tuple[int, ...]]:
    """Swin-Transformer/models/swin_transformer_v2.py."""
    shapes = {**patch_embedding(), **merging(normed_first=False)}
    for stage, block, dim, heads in blocks():
        name = f'layers.{stage}.blocks.{block}'
        shapes |= {
            **common(name, dim),
            f'{name}.attn.logit_scale': (heads, 1, 1),
            f'{name}.attn.q_bias': (dim,),
            f'{name}.attn.v_bias': (dim,),
            f'{name}.attn.cpb_mlp.0.weight': (512, 2),
            f'{name}.attn.cpb_mlp.0.bias': (512,),
            f'{name}.attn.cpb_mlp.2.weight': (heads, 512),
        }
    return {**shapes, **head()}


def backbone_v1() -> dict[str, tuple[int, ...]]:
    """Swin-Transformer-Object-Detection/mmdet/models/backbones/swin_transformer.py, in a detector."""
    shapes = {
        name: shape for name, shape in classifier_v1().items() if not name.startswith(('norm.', 'head.'))
    }
    for stage in range(4):
        shapes |= {f'norm{stage}.{part}': (8 * 2**stage,) for part in ('weight', 'bias')}
    return {f'backbone.{name}': shape for name, shape in shapes.items()}


def patch_embedding() -> dict[str, tuple[int, ...]]:
    return {
        'patch_embed.proj.weight': (8, 3, 4, 4),
        'patch_embed.proj.bias': (8,),
        'patch_embed.norm.weight': (8,),
        'patch_embed.norm.bias': (8,),
    }


def blocks() -> Iterator[tuple[int, int, int, int]]:
    """Stage, block, channels, heads."""
    for stage, (depth, heads) in enumerate(zip(SMALL['depths'], SMALL['num_heads'], strict=True)):
        for block in range(depth):
            yield stage, block, 8 * 2**stage, heads


def common(name: str, dim: int) -> dict[str, tuple[int, ...]]:
    return {
        f'{name}.norm1.weight': (dim,),
        f'{name}.norm1.bias': (dim,),
        f'{name}.attn.qkv.weight': (3 * dim, dim),
        f'{name}.attn.proj.weight': (dim, dim),
        f'{name}.attn.proj.bias': (dim,),
        f'{name}.norm2.weight': (dim,),
        f'{name}.norm2.bias': (dim,),
        f'{name}.mlp.fc1.weight': (4 * dim, dim),
        f'{name}.mlp.fc1.bias': (4 * dim,),
        f'{name}.mlp.fc2.weight': (dim, 4 * dim),
        f'{name}.mlp.fc2.bias': (dim,),
    }


def merging(normed_first: bool) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for stage, dim in enumerate((8, 16, 32)):
        name = f'layers.{stage}.downsample'
        shapes[f'{name}.reduction.weight'] = (2 * dim, 4 * dim)
        shapes[f'{name}.norm.weight'] = shapes[f'{name}.norm.bias'] = (4 * dim if normed_first else 2 * dim,)
    return shapes


def head() -> dict[str, tuple[int, ...]]:
    return {'norm.weight': (64,), 'norm.bias': (64,), 'head.weight': (CLASSES, 64), 'head.bias': (CLASSES,)}


def buffers(version: int, window: int = 2, pretrained: int | None = None) -> dict[str, Tensor]:
    """What the model derives, and saves nevertheless: written out token by token."""
    tensors = {}
    for stage, block, _, _ in blocks():
        name = f'layers.{stage}.blocks.{block}.attn'
        tensors[f'{name}.relative_position_index'] = position_index(window)
        if version == 2:
            tensors[f'{name}.relative_coords_table'] = coordinates(window, pretrained or window)
        if block % 2:
            tensors[f'layers.{stage}.blocks.{block}.attn_mask'] = torch.zeros(4, window**2, window**2)
    return tensors


def position_index(window: int) -> Tensor:
    tokens = [(y, x) for y in range(window) for x in range(window)]
    row = 2 * window - 1
    return torch.tensor(
        [[(qy - ky + window - 1) * row + qx - kx + window - 1 for ky, kx in tokens] for qy, qx in tokens]
    )


def coordinates(window: int, pretrained: int) -> Tensor:
    steps = torch.arange(1 - window, window, dtype=torch.float32) * 8 / (pretrained - 1)
    spaced = torch.sign(steps) * torch.log2(steps.abs() + 1) / 3
    return torch.stack(torch.meshgrid(spaced, spaced, indexing='ij'), dim=-1)[None]
