"""The names of a Swin's parameters in every library, as tables that ``convert.py`` reads in both directions.

A table gives the library's name of each of our modules. Our names are Microsoft's. In the patterns ``{i}`` is
the stage and ``{j}`` the block, both from 0; ``{next}`` is i + 1, ``{odd}`` is 2i + 1, ``{even}`` is 2i + 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

STAGES, MAX_DEPTH = 6, 64  # of the paper 4: RTMDet has five
BLOCK, MERGING = 'layers.{i}.blocks.{j}', 'layers.{i}.downsample'
IN_BLOCK = (
    'norm1', 'norm2', 'norm3', 'mlp.fc1', 'mlp.fc2', 'attn.qkv', 'attn.proj',
    'attn.relative_position_bias_table', 'attn.logit_scale', 'attn.q_bias', 'attn.v_bias',
    'attn.cpb_mlp.0', 'attn.cpb_mlp.2',
    'attn.query', 'attn.key', 'attn.value',  # of libraries with three layers
    'attn.relative_position_index', 'attn.relative_coords_table', 'attn_mask',
)  # fmt: skip
IN_MERGING = ('norm', 'reduction')
OUTSIDE = ('patch_embed.proj', 'patch_embed.norm', 'absolute_pos_embed', 'norm', 'head')
NORMS = ('norm0', 'norm1', 'norm2', 'norm3')
# tensors that follow from sizes alone; some libraries save them nevertheless
DERIVED = ('relative_position_index', 'relative_coords_table', 'attn_mask')


@dataclass(frozen=True)
class Format:
    """The layout of a library. Modules that are not listed have our names.

    Attributes:
        title: the library's name in messages.
        block, merging: patterns of the names of a block, and of the merging that follows stage i.
        inside: the library's names in a block, by our names.
        outside: the library's names beside the stages, by our names.
        prefix: the prefix of the backbone's names in the library's whole models.
        final_norm: our name of the norm before a classifier's head.
        output_norms: whether the library has norms of C2..C5, as detectors and segmentors need them.
        unfold: whether a merging's 4C channels are in the order of ``nn.Unfold``.
        separate: whether q, k and v are three layers.
        one_bias: whether v2's q and v biases are in one ``qkv.bias``, whose part for k is not used.
        flat_index: whether the relative position index is (N * N,) instead of (N, N).
        flat_position: whether the absolute position embedding is (1, N, C).
        buffers: by version, the derived tensors that the library expects in a file.
    """

    title: str
    block: str = BLOCK
    merging: str = MERGING
    inside: Mapping[str, str] = field(default_factory=dict)
    outside: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ''
    final_norm: str = 'norm'
    output_norms: bool = True
    unfold: bool = False
    separate: bool = False
    one_bias: bool = False
    flat_index: bool = False
    flat_position: bool = False
    buffers: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


_ATTENTION = [name for name in IN_BLOCK if name.startswith('attn.')]
_MM_INSIDE = {name: name.replace('attn.', 'attn.w_msa.') for name in _ATTENTION} | {
    'mlp.fc1': 'ffn.layers.0.0',
    'mlp.fc2': 'ffn.layers.1',
}
_MM_OUTSIDE = {'patch_embed.proj': 'patch_embed.projection', 'head': 'head.fc'}
_HF_OUTSIDE = {
    'patch_embed.proj': 'embeddings.patch_embeddings.projection',
    'patch_embed.norm': 'embeddings.norm',
    'absolute_pos_embed': 'embeddings.position_embeddings',
    'norm': 'layernorm',
    'head': 'classifier',
    'norm{i}': 'hidden_states_norms.stage{next}',
}
_HF_INSIDE = {
    **{name: name.replace('attn.', 'attention.self.') for name in _ATTENTION},
    'attn.cpb_mlp.0': 'attention.self.continuous_position_bias_mlp.0',
    'attn.cpb_mlp.2': 'attention.self.continuous_position_bias_mlp.2',
    'attn.proj': 'attention.output.dense',
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
    'mlp.fc1': 'intermediate.dense',
    'mlp.fc2': 'output.dense',
}
# the names that transformers 5 has in memory; its files keep the names above
_HF_MEMORY = {
    'attn.query': 'attention.q_proj',
    'attn.key': 'attention.k_proj',
    'attn.value': 'attention.v_proj',
    'attn.proj': 'attention.o_proj',
    'attn.relative_position_bias_table': 'attention.relative_position_bias.relative_position_bias_table',
    'norm1': 'layernorm_before',
    'norm2': 'layernorm_after',
}
_INDEX, _COORDS = 'relative_position_index', 'relative_coords_table'
_TWO = {1: (_INDEX,), 2: (_INDEX, _COORDS)}

FORMATS = {
    'microsoft': Format('Microsoft', flat_position=True, buffers=_TWO),
    'swin_dense': Format('swin_dense'),  # the same names: files are recognised as Microsoft's
    'timm': Format(
        'timm', merging='layers.{next}.downsample', outside={'head': 'head.fc'}, output_norms=False
    ),
    'timm_features': Format(
        'timm (features_only)', 'layers_{i}.blocks.{j}', 'layers_{next}.downsample', output_norms=False
    ),
    'torchvision': Format(
        'torchvision',
        'features.{odd}.{j}',
        'features.{even}',
        inside={'mlp.fc1': 'mlp.0', 'mlp.fc2': 'mlp.3'},
        outside={'patch_embed.proj': 'features.0.0', 'patch_embed.norm': 'features.0.2'},
        output_norms=False,
        one_bias=True,
        flat_index=True,
        buffers=_TWO,
    ),
    'hf': Format(
        'Hugging Face',
        'encoder.layers.{i}.blocks.{j}',
        'encoder.layers.{i}.downsample',
        inside=_HF_INSIDE,
        outside=_HF_OUTSIDE,
        separate=True,
        flat_position=True,
    ),
    'hf_memory': Format(
        'Hugging Face (transformers 5, in memory)',
        'encoder.layers.{i}.blocks.{j}',
        'encoder.layers.{i}.downsample',
        inside=_HF_MEMORY,
        outside=_HF_OUTSIDE,
        separate=True,
        flat_position=True,
    ),
    'mmdet': Format(
        'OpenMMLab (mmdet, mmseg, mmpretrain)',
        'stages.{i}.blocks.{j}',
        'stages.{i}.downsample',
        inside=_MM_INSIDE,
        outside=_MM_OUTSIDE,
        prefix='backbone.',
        final_norm='norm3',
        unfold=True,
        flat_position=True,
        buffers=_TWO,
    ),
    'mmpretrain_v2': Format(
        'OpenMMLab (mmpretrain, v2)',
        'stages.{i}.blocks.{j}',
        'stages.{next}.downsample',
        inside=_MM_INSIDE,
        outside=_MM_OUTSIDE,
        prefix='backbone.',
        final_norm='norm3',
        unfold=True,
        flat_position=True,
        buffers=_TWO,
    ),
}


@cache
def library_names(name: str) -> dict[str, str]:
    """Our name of every module or parameter -> its name in the layout ``name``."""
    layout = FORMATS[name]
    names = {ours: layout.outside.get(ours, ours) for ours in OUTSIDE}
    for i in range(STAGES):
        stage = {'i': i, 'next': i + 1, 'odd': 2 * i + 1, 'even': 2 * i + 2}
        names[f'norm{i}'] = layout.outside.get('norm{i}', 'norm{i}').format(**stage)
        merging = layout.merging.format(**stage)
        if i < STAGES - 1:
            names |= {f'{MERGING.format(i=i)}.{part}': f'{merging}.{part}' for part in IN_MERGING}
        for j in range(MAX_DEPTH):
            ours, theirs = BLOCK.format(i=i, j=j), layout.block.format(j=j, **stage)
            names |= {f'{ours}.{part}': f'{theirs}.{layout.inside.get(part, part)}' for part in IN_BLOCK}
    return names


@cache
def our_names(name: str) -> dict[str, str]:
    """The inverse of ``library_names``."""
    return {theirs: ours for ours, theirs in library_names(name).items()}
