"""Convert the weights of a Swin between libraries: dict of tensors in, dict of tensors out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from swin_dense.checkpoints.adapt import window_side
from swin_dense.checkpoints.files import fetch, read_checkpoint, state_dict
from swin_dense.checkpoints.formats import DERIVED, FORMATS, NORMS, Format, library_names, our_names
from swin_dense.errors import UserError
from swin_dense.kernels.windows import log_coordinates, relative_position_index

# the libraries to convert for, and the key of the dict of tensors in their files; None for no dict around it
TARGETS = {
    'swin_dense': 'state_dict',
    'microsoft': 'model',
    'timm': None,
    'torchvision': None,
    'hf': None,
    'mmpretrain': 'state_dict',
    'mmdet': 'state_dict',
    'mmseg': 'state_dict',
}
# the libraries whose detectors and segmentors have the same necks and heads as the file's
WITH_HEADS = ('swin_dense', 'microsoft', 'mmdet', 'mmseg')
CPU = torch.device('cpu')
QKV = ('query', 'key', 'value')
# the weights of q, k and v of a library that has three layers; they are concatenated only when they are used,
# because together they are a quarter of a Swin
SeparateQKV = tuple[Tensor, Tensor, Tensor]
Weights = dict[str, Tensor | SeparateQKV]
Value = TypeVar('Value')


@dataclass
class Swin:
    """The Swin in a file, under our names.

    Attributes:
        source: the key in ``FORMATS`` of the file's layout.
        prefix: the prefix of the backbone's names in the file.
        weights: the parameters of the backbone, and ``norm`` and ``head`` of a classifier.
        derived: tensors that follow from sizes alone, such as the relative position index.
        others: all other tensors (neck, heads), under the file's names.
    """

    source: str
    prefix: str
    weights: Weights
    derived: dict[str, Tensor]
    others: dict[str, Tensor]

    @property
    def version(self) -> int:
        """1 or 2: v2's attention has a logit scale."""
        return 2 if any(key.endswith('.logit_scale') for key in self.weights) else 1

    @property
    def title(self) -> str:
        """The library and the version, for messages."""
        return f'{FORMATS[self.source].title}, Swin v{self.version}'

    def window(self, block: str) -> int | None:
        """The window side of a block (``layers.0.blocks.0``); None if the file does not tell it."""
        table = self.weights.get(f'{block}.attn.relative_position_bias_table')
        if isinstance(table, Tensor):
            return window_side(table.size(0))
        coordinates = self.derived.get(f'{block}.attn.relative_coords_table')
        return None if coordinates is None else (coordinates.size(1) + 1) // 2


def joined(value: Tensor | SeparateQKV) -> Tensor:
    """A weight as one tensor: q, k and v are concatenated."""
    return torch.cat(value) if isinstance(value, tuple) else value


def open_swin(location: str) -> Swin:
    """The Swin in a file.

    Args:
        location: a path or an http(s) address.

    Raises:
        UserError: the file cannot be read safely, or holds no Swin.
    """
    tensors = state_dict(read_checkpoint(fetch(location), mapped=True))
    swin = find_swin(tensors, location)
    if swin is None:
        raise UserError(
            f'checkpoint {location} holds no Swin: none of its {len(tensors)} tensors has a known name'
        )
    return swin


def find_swin(tensors: Mapping[str, Tensor], file: str) -> Swin | None:
    """``recognise`` for the tensors of a file. Its errors name the file."""
    with errors_name(file):
        return recognise(tensors)


@contextmanager
def errors_name(file: str) -> Iterator[None]:
    """Turn errors about the names and shapes of a file's tensors into a ``UserError`` that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f'checkpoint {file}: {error}') from error
    except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
        reason = str(error).split('\n')[0]
        raise UserError(f"checkpoint {file} has a Swin's names, but not its shapes: {reason}") from error


def recognise(tensors: Mapping[str, Tensor]) -> Swin | None:
    """Find the Swin among ``tensors``, by names and shapes alone; None if there is none.

    Raises:
        UserError: there are several Swins.
    """
    best = None
    for name in FORMATS:
        stem = f'{library_names(name)["patch_embed.proj"]}.weight'
        prefixes = [key.removesuffix(stem) for key in tensors if key.endswith(stem)]
        swins = [
            _renamed_to_ours(tensors, name, prefix)
            for prefix in prefixes
            if not prefix or prefix.endswith('.')
        ]
        # other networks have a first layer of this name, but only a Swin has its blocks in stages
        swins = [swin for swin in swins if _with_suffix(swin.weights, '.attn.proj.weight')]
        if len(swins) > 1:
            below = ', '.join(repr(swin.prefix) for swin in swins)
            raise UserError(f'there are {len(swins)} Swins in it, below {below}')
        if swins and (best is None or len(swins[0].weights) > len(best.weights)):
            best = swins[0]
    if best is not None:
        best.weights = _in_our_layout(best)
    return best


def _renamed_to_ours(tensors: Mapping[str, Tensor], name: str, prefix: str) -> Swin:
    names = our_names(name)
    swin = Swin(name, prefix, {}, {}, {})
    renamed = {key: _our_name(key, names, prefix) for key in tensors}
    last = max((ours.split('.')[1] for ours in renamed.values() if '.blocks.' in ours), default='')
    for key, value in tensors.items():
        ours = renamed[key]
        # no merging follows the last stage: what looks like one is of another layout
        if not ours or ours.startswith(f'layers.{last}.downsample.'):
            swin.others[key] = value
        elif ours.endswith(DERIVED):
            swin.derived[ours] = value
        else:
            swin.weights[ours] = value
    return swin


def _our_name(key: str, names: Mapping[str, str], prefix: str) -> str:
    """Our name of a tensor; empty if it has none."""
    module, _, kind = key.removeprefix(prefix).rpartition('.')
    ours = names.get(f'{module}.{kind}'.lstrip('.')) or (f'{names[module]}.{kind}' if module in names else '')
    # in whole models the classifier, and in Hugging Face's also the output norms, are beside the backbone
    beside = module != names.get(module) in ('head', *NORMS)
    return ours if key.startswith(prefix) or beside else ''


def _in_our_layout(swin: Swin) -> Weights:
    layout, weights = FORMATS[swin.source], dict(swin.weights)
    if layout.separate:
        weights = _join_qkv(weights)
    if layout.one_bias and swin.version == 2:
        for key in _with_suffix(weights, 'attn.qkv.bias'):
            query, _, value = joined(weights.pop(key)).chunk(3)
            weights[key.replace('qkv.bias', 'q_bias')] = query
            weights[key.replace('qkv.bias', 'v_bias')] = value
    if layout.unfold:
        for key in _of_4c_channels(weights, swin.version):
            weights[key] = from_unfold(joined(weights[key]))
    position = weights.get('absolute_pos_embed')
    if isinstance(position, Tensor) and position.ndim == 3:  # (1, N, C); the images were square
        side = math.isqrt(position.size(1))
        weights['absolute_pos_embed'] = position.transpose(1, 2).unflatten(2, (side, side))
    # a classifier's only norm belongs to its head; a norm of C5 comes with norms of C2..C4
    if layout.final_norm != 'norm' and 'head.weight' in weights and 'norm0.weight' not in weights:
        weights = _with_norm(weights, layout.final_norm, 'norm')
    return weights


def export(
    swin: Swin, target: str, windows: Sequence[int] = (), pretrained: Sequence[int] = ()
) -> dict[str, Tensor]:
    """The tensors under the names, and in the layout, of another library.

    Args:
        swin: the Swin that ``recognise`` returned.
        target: a key of ``TARGETS``. Necks and heads are kept for the libraries in ``WITH_HEADS``.
        windows: window side of each stage. It is needed for a v2 whose file does not tell it.
        pretrained: window side of each stage in the pretraining, if it was another.

    Raises:
        UserError: the library has no such Swin, or needs the window and nobody tells it.
    """
    if part := _unsupported(target, swin):
        able = ', '.join(other for other in TARGETS if not _unsupported(other, swin))
        raise UserError(f'{target} has no {part}: convert to {able}')
    openmmlab = 'mmpretrain_v2' if swin.version == 2 else 'mmdet'
    name = openmmlab if target in ('mmdet', 'mmseg', 'mmpretrain') else target
    # a detector or segmentor is converted as a whole, for the libraries that have such models
    classifier = 'head.weight' in swin.weights
    whole = swin.prefix.endswith('backbone.') and not classifier and target in WITH_HEADS
    prefix = 'backbone.' if whole else FORMATS[name].prefix
    if target == 'hf' and classifier:
        prefix = 'swinv2.' if swin.version == 2 else 'swin.'
    exported = dict(swin.others) if whole else {}
    for key, value in _in_layout(swin, FORMATS[name], windows, pretrained).items():
        module, _, kind = key.rpartition('.')
        renamed = library_names(name).get(key) or f'{library_names(name)[module]}.{kind}'
        exported[renamed if module == 'head' else prefix + renamed] = value.contiguous()
    return exported


def _in_layout(
    swin: Swin, layout: Format, windows: Sequence[int], pretrained: Sequence[int]
) -> dict[str, Tensor]:
    """The inverse of ``_in_our_layout``. The names stay ours."""
    weights = {key: joined(value) for key, value in swin.weights.items()}
    if layout.final_norm != 'norm':
        weights = _with_norm(weights, 'norm', layout.final_norm)
    if not layout.output_norms:
        weights = _with_norm(weights, 'norm3', 'norm')
        weights = {key: value for key, value in weights.items() if key.split('.')[0] not in NORMS}
    weights |= _buffers(swin, layout, windows, pretrained)
    if layout.flat_position and 'absolute_pos_embed' in weights:
        weights['absolute_pos_embed'] = weights['absolute_pos_embed'].flatten(2).transpose(1, 2)
    if layout.unfold:
        for key in _of_4c_channels(weights, swin.version):
            weights[key] = to_unfold(weights[key])
    if layout.one_bias:
        for key in _with_suffix(weights, 'attn.q_bias'):
            query, value = weights.pop(key), weights.pop(key.replace('q_bias', 'v_bias'))
            weights[key.replace('q_bias', 'qkv.bias')] = torch.cat([query, torch.zeros_like(query), value])
    return _split_qkv(weights) if layout.separate else weights


def _unsupported(target: str, swin: Swin) -> str | None:
    """The first part of such a Swin that the library does not support; None if it supports all."""
    if swin.version == 2 and target in ('mmdet', 'mmseg'):
        return 'Swin v2'
    if _with_suffix(swin.weights, '.norm3.weight') and target not in ('swin_dense', 'mmpretrain'):
        return 'Swin v2 with extra norms'
    # Hugging Face's v2 has one with a token too many, so it cannot be used
    without = ('timm', 'torchvision') if swin.version == 1 else ('timm', 'torchvision', 'hf')
    if 'absolute_pos_embed' in swin.weights and target in without:
        return 'absolute position embedding'
    return None


def _buffers(
    swin: Swin, layout: Format, windows: Sequence[int], pretrained: Sequence[int]
) -> dict[str, Tensor]:
    """The derived tensors that the library expects in a file."""
    buffers: dict[str, Tensor] = {}
    expected = layout.buffers.get(swin.version, ())
    for key in _with_suffix(swin.weights, '.attn.proj.weight') if expected else ():
        block = key.removesuffix('.attn.proj.weight')
        stage = int(block.split('.')[1])
        side = swin.window(block) or (windows[stage] if windows else None)
        if side is None:
            raise UserError(
                f'{layout.title} saves the window, which this file does not tell: add --window SIDE'
            )
        index = relative_position_index(side, CPU)
        index = index if layout.flat_index else index.view(side**2, -1)
        buffers[f'{block}.attn.relative_position_index'] = index
        if 'relative_coords_table' in expected:
            where = f'{block}.attn.relative_coords_table'
            scale = pretrained[stage] if pretrained else side
            coordinates = log_coordinates(side, scale, CPU, torch.float32)
            coordinates = coordinates.view(1, 2 * side - 1, 2 * side - 1, 2)
            buffers[where] = swin.derived.get(where, coordinates)
    return buffers


def _join_qkv(weights: Weights) -> Weights:
    """query, key, value -> qkv. v2's key has no bias, so v2 keeps q_bias and v_bias."""
    weights = dict(weights)
    for key in _with_suffix(weights, 'attn.query.weight'):
        attn = key.removesuffix('query.weight')
        query, key_weight, value = (joined(weights.pop(f'{attn}{part}.weight')) for part in QKV)
        weights[f'{attn}qkv.weight'] = query, key_weight, value
        biases = {part: weights.pop(f'{attn}{part}.bias') for part in QKV if f'{attn}{part}.bias' in weights}
        if 'key' in biases:
            weights[f'{attn}qkv.bias'] = torch.cat([joined(biases[part]) for part in QKV])
        elif biases:
            weights[f'{attn}q_bias'], weights[f'{attn}v_bias'] = biases['query'], biases['value']
    return weights


def _split_qkv(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``_join_qkv``."""
    split: dict[str, Tensor] = {}
    for key, value in weights.items():
        attn, _, kind = key.rpartition('.qkv.')
        if attn:
            split |= {f'{attn}.{part}.{kind}': x for part, x in zip(QKV, value.chunk(3), strict=True)}
        elif key.endswith(('.q_bias', '.v_bias')):
            split[key.replace('q_bias', 'query.bias').replace('v_bias', 'value.bias')] = value
        else:
            split[key] = value
    return split


def from_unfold(value: Tensor) -> Tensor:
    """Last axis 4C in ``nn.Unfold``'s order (channel; row, column) -> ours (column, row; channel)."""
    channels = value.size(-1) // 4
    return value.unflatten(-1, (channels, 2, 2)).movedim((-1, -2), (-3, -2)).flatten(-3)


def to_unfold(value: Tensor) -> Tensor:
    """The inverse of ``from_unfold``."""
    channels = value.size(-1) // 4
    return value.unflatten(-1, (2, 2, channels)).movedim((-3, -2), (-1, -2)).flatten(-3)


def _of_4c_channels(weights: Mapping[str, Tensor | SeparateQKV], version: int) -> list[str]:
    """Names of the tensors with a merging's 4C channels as last axis. v2's norm has 2C: it comes later."""
    parts = ['reduction.weight', 'norm.weight', 'norm.bias'] if version == 1 else ['reduction.weight']
    return [key for part in parts for key in _with_suffix(weights, f'.downsample.{part}')]


def _with_norm(weights: Mapping[str, Value], old: str, new: str) -> dict[str, Value]:
    """Rename the norm ``old`` to ``new``; drop it if there is a norm ``new`` already."""
    if f'{new}.weight' in weights:
        return {key: value for key, value in weights.items() if not key.startswith(f'{old}.')}
    return {
        new + key.removeprefix(old) if key.startswith(f'{old}.') else key: value
        for key, value in weights.items()
    }


def _with_suffix(weights: Mapping[str, Tensor | SeparateQKV], suffix: str) -> list[str]:
    return [key for key in weights if key.endswith(suffix)]
