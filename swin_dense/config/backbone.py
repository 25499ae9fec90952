"""Put our backbone into any config of the hosts: maps, channels and the parts that read them follow."""

import copy
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from swin_dense.config import schedule, stock_swin
from swin_dense.config.maps import Map, maps_of
from swin_dense.errors import UserError

BASES = Path(__file__).parents[2] / 'configs' / '_base_'
OURS = 'ours'  # in the place of a name: the config's own Swin, by our class
SIZES = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large'}
STRIDES = (4, 8, 16, 32)
# parts of a model that do not read the backbone's maps
APART = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg', 'roi_head', 'reid')
CHANNELS = ('in_channels', 'c1_in_channels', 'feature_channels')
OF_STRIDES = ('strides', 'feature_strides', 'featmap_strides')
NESTED = ('kernel_generate_head',)  # parts of a head that read the maps themselves


@dataclass
class Replacement:
    """A config with our backbone.

    Attributes:
        config: the changed copy.
        notes: one line each, for the header of a run.
    """

    config: Config
    notes: list[str] = field(default_factory=list)


def with_backbone(config: Config, name: str) -> Config:
    """A copy of a config whose backbone is ours.

    Args:
        config: a detector's or segmentor's, of mmdet or mmseg.
        name: a file of ``configs/_base_``, such as ``'swin_t'``, ``'swinv2_b'`` or ``'swin_nano'``, a path to
            one like them, or ``'ours'``, which keeps the values of the config's own Swin.

    Raises:
        UserError: there is no such file, or what reads the config's backbone cannot read ours.
    """
    return replace(config, name).config


def replace(config: Config, name: str, swin_schedule: bool = False) -> Replacement:
    """As ``with_backbone``, and what the user should know.

    Args:
        config: as for ``with_backbone``.
        name: as for ``with_backbone``.
        swin_schedule: train as Swin's recipes do: AdamW, its decay rules, warmup and normalisation.
    """
    replacement = Replacement(copy.deepcopy(config))
    model = replacement.config.model
    holders = list(_holders(model, 'model'))
    if not holders:
        raise UserError(f'--backbone {name}: config {config.filename} has no model.backbone')
    if name == OURS:
        replacement.notes += stock_swin.take_ours(holders, config.filename)
    else:
        base = _base(name)
        for path, holder in holders:
            replacement.notes += _replace_in(holder, path, base, config.get('default_scope', 'mmdet'))
    if swin_schedule:
        schedule.take(replacement.config)
    elif differences := schedule.differences(replacement.config):
        replacement.notes.append(
            f"not as in Swin's recipes: {'; '.join(differences)} (--swin-schedule trains as they do)"
        )
    return replacement


def _holders(node: Any, path: str) -> Iterator[tuple[str, ConfigDict]]:  # noqa: ANN401
    """Each part of a model that has an image backbone, by its path."""
    if not isinstance(node, dict):
        return
    backbone = node.get('backbone')
    if isinstance(backbone, dict) and 'type' in backbone:
        yield path, node
    for key, value in node.items():
        if key not in APART:
            yield from _holders(value, f'{path}.{key}')


def _base(name: str) -> ConfigDict:
    """The backbone of a file of ``configs/_base_``."""
    path = Path(name)
    if path.suffix != '.py':
        family, _, size = name.rpartition('_')
        path = BASES / f'{family}_{SIZES.get(size, size)}.py'
    if not path.is_file():
        short = {long: key for key, long in SIZES.items()}
        stems = [file.stem for file in BASES.glob('swin*.py')]
        known = sorted(
            f'{stem.rpartition("_")[0]}_{short.get(stem.rpartition("_")[2], "nano")}' for stem in stems
        )
        near = difflib.get_close_matches(name, known, 1, 0.3)
        hint = f'did you mean {near[0]}?' if near else f'there are {", ".join(known)}'
        raise UserError(f'--backbone {name}: no such backbone; {hint}')
    backbone = Config.fromfile(path).get('backbone')
    if not isinstance(backbone, dict) or 'embed_dims' not in backbone:
        raise UserError(f'--backbone {name}: {path} assigns no backbone of ours')
    return ConfigDict({key: value for key, value in backbone.items() if key != '_delete_'})


def _replace_in(holder: ConfigDict, path: str, base: ConfigDict, scope: str) -> list[str]:
    old = holder.backbone
    shared = (holder.get('roi_head') or {}).get('shared_head')
    if shared:
        raise UserError(
            f'{path}.roi_head.shared_head ({shared.type}) is the last stage of the {old.type} in '
            f'{path}.backbone: it cannot be replaced alone'
        )
    maps = maps_of(old, old.get('_scope_', scope), f'{path}.backbone')
    levels = _levels(maps, f'{path}.backbone ({old.type})')
    new = [Map(base.embed_dims * 2**level, STRIDES[level]) for level in levels]
    holder.backbone = ConfigDict(base, out_indices=tuple(levels))
    if old.get('in_channels', 3) != 3:
        holder.backbone.in_channels = old.in_channels
    if 'pretrained' in holder:
        holder.pretrained = None
    _join_cascade(holder, maps, new)
    for part in _readers(holder):
        _follow(part, maps, new)
    moved = [f'{a.stride} to {b.stride}' for a, b in zip(maps, new, strict=True) if a.stride != b.stride]
    return [f'{path}.backbone: maps of strides {", ".join(moved)}'] if moved else []


def _levels(maps: list[Map], name: str) -> list[int]:
    """Which of C2..C5 stands for each map: that of its stride, and where strides repeat, the one after."""
    levels: list[int] = []
    for i in range(len(maps) - 1, -1, -1):
        stride, following = maps[i].stride, levels[0] if levels else len(STRIDES)
        fits = [level for level in range(following) if STRIDES[level] >= stride]
        # a dilated network: stages of the same stride, with more channels each
        channels = [each.channels for each in maps if each.stride == stride]
        repeated = len(channels) > 1 and len(channels) == len(set(channels))
        if not fits or (STRIDES[fits[0]] != stride and not repeated):
            strides = ', '.join(str(each.stride) for each in maps)
            raise UserError(f'{name} gives maps of strides {strides}; ours have 4, 8, 16, 32: not replaced')
        levels.insert(0, fits[-1] if repeated else fits[0])
    return levels


def _join_cascade(holder: ConfigDict, old: list[Map], new: list[Map]) -> None:
    """Let the heads of a cascade that read maps of one size, and no longer would, read the last one's.

    OCRHead takes the output of the head before it for a map of its own size.
    """
    heads = holder.get('decode_head')
    indices = [head.get('in_index', -1) for head in heads] if isinstance(heads, (list, tuple)) else []
    if not indices or not all(isinstance(index, int) for index in indices):
        return
    if len({old[i].stride for i in indices}) == 1 < len({new[i].stride for i in indices}):
        for head in heads:
            head.in_index, head.in_channels = indices[-1], old[indices[-1]].channels


def _readers(holder: ConfigDict) -> Iterator[ConfigDict]:
    """The parts that read the backbone's maps: the first neck, or the heads where there is no neck."""
    neck = holder.get('neck')
    if not neck:
        yield from _heads(holder)
        return
    first = neck[0] if isinstance(neck, (list, tuple)) else neck
    yield first
    if first.type == 'JPU':  # it makes a map of the last ones and passes the others on
        passed = range(len(first.in_channels) - 1)
        yield from (head for head in _heads(holder) if head.get('in_index', -1) in passed)


def _heads(holder: ConfigDict) -> Iterator[ConfigDict]:
    for key, value in holder.items():
        if key in APART:
            continue
        for part in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(part, dict):
                yield part
                yield from (part[name] for name in NESTED if isinstance(part.get(name), dict))


def _follow(part: ConfigDict, old: list[Map], new: list[Map]) -> None:
    """Set the channels and strides of a part to those of the new maps."""
    for name in CHANNELS:
        if name in part:
            part[name] = _channels(
                part[name], part.get('in_index') if name == CHANNELS[0] else None, old, new
            )
    for name in OF_STRIDES:
        if name in part and list(part[name]) == [each.stride for each in old]:
            part[name] = [each.stride for each in new]


def _channels(value: Any, index: Any, old: list[Map], new: list[Map]) -> Any:  # noqa: ANN401
    """A number of channels, or several, of the old maps, as those of the new ones."""
    before, after = [each.channels for each in old], [each.channels for each in new]
    if isinstance(value, (list, tuple)):
        indices = list(index) if isinstance(index, (list, tuple)) else range(len(old))
        if len(indices) == len(value) and [before[i] for i in indices] == list(value):
            return type(value)(after[i] for i in indices)  # some parts take tuples alone
        return type(value)(_channels(each, None, old, new) for each in value)
    if isinstance(index, int) and before[index] == value:
        return after[index]
    # the last one where several have as many
    return dict(zip(before, after, strict=True)).get(value, value)
