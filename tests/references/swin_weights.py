"""Our Swin's weights under the names, and in the channel order, of other implementations."""

import math

import torch
from torch import Tensor, nn

from swin_dense.models import SwinTransformer, SwinTransformerV2

StateDict = dict[str, Tensor]
SMALL = dict(embed_dims=24, depths=(2, 2, 2, 2), num_heads=(2, 2, 4, 4))
TINY = dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights large enough that attention is far from uniform and every parameter matters.

    Larger ones would still pass in double precision. In single precision the bias table's gradient, a
    sum that nearly cancels, would then be less exact than 1e-5 in any implementation.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if 'norm' in name and name.endswith('weight'):
            value = 1 + 0.1 * value
        elif name.endswith('bias'):
            value = 0.3 * value
        elif name.endswith('relative_position_bias_table'):
            value = 0.5 * value
        elif name.endswith('logit_scale'):
            value = math.log(10) + 0.5 * value
        else:
            value = value / parameter[0].numel() ** 0.5
        parameter.copy_(value)


def random_swin(**kwargs: object) -> SwinTransformer:
    """Our network without stochastic depth, in double precision, with ``randomise``d weights."""
    model = SwinTransformer(**{'drop_path_rate': 0.0, **kwargs}).double()
    randomise(model)
    return model


def random_swin_v2(**kwargs: object) -> SwinTransformerV2:
    """The same of v2."""
    model = SwinTransformerV2(**{'drop_path_rate': 0.0, **kwargs}).double()
    randomise(model)
    return model


def to_mmdet(weights: StateDict) -> StateDict:
    """Ours -> mmdet's and mmseg's SwinTransformer."""
    converted = {}
    for key, value in weights.items():
        if '.downsample.' in key:
            value = _microsoft_to_unfold(value)
        elif key == 'absolute_pos_embed':
            value = value.flatten(2).transpose(1, 2)
        for ours, theirs in (
            ('layers.', 'stages.'),
            ('patch_embed.proj.', 'patch_embed.projection.'),
            ('.attn.', '.attn.w_msa.'),
            ('.mlp.fc1.', '.ffn.layers.0.0.'),
            ('.mlp.fc2.', '.ffn.layers.1.'),
        ):
            key = key.replace(ours, theirs, 1)
        converted[key] = value
    return converted


def to_mmpretrain(weights: StateDict) -> StateDict:
    """Ours of v2 -> mmpretrain's SwinTransformerV2, whose stages begin with the merging."""
    converted = {}
    for key, value in weights.items():
        if '.downsample.' in key:
            _, stage, rest = key.split('.', 2)
            key = f'layers.{int(stage) + 1}.{rest}'
            if key.endswith('reduction.weight'):  # v2 norms what the reduction makes
                value = _microsoft_to_unfold(value)
        for ours, theirs in (
            ('layers.', 'stages.'),
            ('patch_embed.proj.', 'patch_embed.projection.'),
            ('.attn.', '.attn.w_msa.'),
            ('.mlp.fc1.', '.ffn.layers.0.0.'),
            ('.mlp.fc2.', '.ffn.layers.1.'),
        ):
            key = key.replace(ours, theirs, 1)
        converted[key] = value
    return converted


def _microsoft_to_unfold(value: Tensor) -> Tensor:
    """Last axis 4C from (pixel (0,0), (1,0), (0,1), (1,1); channel) to nn.Unfold's (channel; pixel)."""
    *leading, channels = value.shape
    by_pixel = value.reshape(*leading, 4, channels // 4)[..., [0, 2, 1, 3], :]
    return by_pixel.transpose(-1, -2).reshape(value.shape)


def to_timm(weights: StateDict) -> StateDict:
    """Ours, v1 or v2 -> timm's, whose stages begin with the merging; without the output norms."""
    converted = {}
    for key, value in without_output_norms(weights).items():
        if '.downsample.' in key:
            _, stage, rest = key.split('.', 2)
            key = f'layers.{int(stage) + 1}.{rest}'
        converted[key] = value
    return converted


def to_torchvision(weights: StateDict) -> StateDict:
    """Ours, v1 or v2 -> torchvision's SwinTransformer; without the output norms.

    Its ``features`` are the patch embedding (0), then for stage i the blocks (2i + 1) and the
    merging (2i + 2). Its v2 has one bias of q, k and v and takes that of k for 0.
    """
    converted = {}
    for key, value in _join_qkv_bias(without_output_norms(weights)).items():
        head, rest = key.split('.', 1)
        if head == 'patch_embed':
            rest = rest.replace('proj.', '0.').replace('norm.', '2.')
            converted[f'features.0.{rest}'] = value
            continue
        stage, rest = rest.split('.', 1)
        if rest.startswith('downsample.'):
            rest = rest.replace('downsample.', f'{2 * int(stage) + 2}.')
        else:
            rest = rest.replace('blocks.', f'{2 * int(stage) + 1}.')
            rest = rest.replace('.mlp.fc1.', '.mlp.0.').replace('.mlp.fc2.', '.mlp.3.')
        converted[f'features.{rest}'] = value
    return converted


def _join_qkv_bias(weights: StateDict) -> StateDict:
    """v2's q_bias and v_bias -> qkv.bias with zeros for k; v1's weights stay as they are."""
    joined = {key: value for key, value in weights.items() if not key.endswith(('.q_bias', '.v_bias'))}
    for key, query in weights.items():
        if key.endswith('.q_bias'):
            attn = key.removesuffix('q_bias')
            joined[f'{attn}qkv.bias'] = torch.cat([query, torch.zeros_like(query), weights[f'{attn}v_bias']])
    return joined


def without_output_norms(weights: StateDict) -> StateDict:
    """The weights without norm0 to norm3, which classifiers do not have."""
    return {key: value for key, value in weights.items() if key.split('.')[0] not in OUTPUT_NORMS}


OUTPUT_NORMS = ('norm0', 'norm1', 'norm2', 'norm3')
