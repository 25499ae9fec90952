"""Where a config names its data sets, evaluators and classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.formats.class_names import read_class_names

# arguments of data sets and metrics that name a file, which mmengine reads by its suffix
FILES = ('ann_file', 'proposal_file', 'seg_ann_file', 'label_file')
# fields of heads that count classes: one, or both of the others
COUNTS = ('num_classes', 'num_things_classes', 'num_stuff_classes')
RUNS_CODE = ('.pkl', '.pickle', '.yaml', '.yml')  # PyYAML, as mmengine calls it, builds any object


def inner_datasets(dataset: dict) -> list[dict]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    if 'datasets' in dataset:
        return [inner for part in dataset['datasets'] for inner in inner_datasets(part)]
    return inner_datasets(dataset['dataset']) if 'dataset' in dataset else [dataset]


def loaders(config: Config) -> dict[str, dict]:
    """The data loaders that the config has, by split: train, val, test."""
    names = {split: f'{split}_dataloader' for split in ('train', 'val', 'test')}
    return {split: config[name] for split, name in names.items() if config.get(name)}


def all_datasets(config: Config) -> list[dict]:
    """The data sets of all loaders, those of training first."""
    return [inner for loader in loaders(config).values() for inner in inner_datasets(loader['dataset'])]


def set_classes(model: Any, count: int, stuff: int = 0) -> None:  # noqa: ANN401
    """Give every head of a model config its classes (HTC's semantic branch has its own).

    The weights of classes in a loss follow where all are equal but that of 'no object', behind them.

    Args:
        model: changed in place.
        count: of the classes; of a panoptic model, of the things.
        stuff: of a panoptic model, the classes that are stuff.

    Raises:
        UserError: a loss has weights for other classes.
    """
    if isinstance(model, dict):
        _set_weights(model, count + stuff)
        for key, value in model.items():
            if key in ('num_classes', 'num_things_classes'):
                model[key] = count
            elif key == 'num_stuff_classes':
                model[key] = stuff
            elif key == 'out_channels' and 'num_classes' in model:
                model[key] = count  # mmseg's heads: the logits' channels
            elif key != 'semantic_head' or 'num_stuff_classes' in value:
                set_classes(value, count, stuff)
    elif isinstance(model, (list, tuple)):
        for value in model:
            set_classes(value, count, stuff)


def _set_weights(head: dict, count: int) -> None:
    """Set the ``class_weight`` of a head's losses; the head still has its former number of classes."""
    former = sum(head.get(key) or 0 for key in COUNTS)
    losses = [loss for key, value in head.items() if key.startswith('loss') for loss in listed(value)]
    for loss in losses if former and former != count else ():
        weights = loss.get('class_weight') if isinstance(loss, dict) else None
        if not isinstance(weights, (list, tuple)) or len(weights) not in (former, former + 1):
            continue
        if len(set(weights[:former])) > 1:
            raise UserError(
                f'class_weight of a {loss.get("type")} has different weights for {former} classes, and the '
                f'data have {count}: give it as many (--cfg-options), or None'
            )
        loss['class_weight'] = [weights[0]] * count + list(weights[former:])


def head_classes(model: Any) -> set[int]:  # noqa: ANN401
    """The class counts that the heads of a model config state; those of things and stuff together."""
    if isinstance(model, dict):
        stated = sum(model.get(key) or 0 for key in COUNTS)
        own = {stated} if stated else set()
        return own.union(*(head_classes(value) for key, value in model.items() if key != 'semantic_head'))
    if isinstance(model, (list, tuple)):
        return set().union(*(head_classes(value) for value in model))
    return set()


def named_classes(dataset: dict) -> tuple[str, ...] | None:
    """The classes that a data set's config names, None for those of the annotation file."""
    named = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(named, str):  # a file of names, or ('cat') for ('cat',)
        return read_class_names(Path(named), 'metainfo.classes') if Path(named).is_file() else (named,)
    return tuple(named) if named else None


def check_options(config: Config, options: Sequence[str], count: int, source: str) -> None:
    """Check that the command line states the number of classes that the data have.

    Called before ``set_classes``, which would replace it.

    Args:
        config: with the options in it.
        options: ``KEY=VALUE`` each.
        count: classes of the data.
        source: says whence they are, for the message.

    Raises:
        UserError: an option gives a head another number of classes.
    """
    for option in options:
        parts = option.partition('=')[0].split('.')
        if parts[0] != 'model' or 'semantic_head' in parts:
            continue
        node = config
        for part in parts:
            node = node[int(part)] if isinstance(node, (list, tuple)) else node.get(part)
        stated = {node} if parts[-1] in COUNTS[:2] else head_classes(node)
        wrong = [number for number in stated if number != count]
        if wrong:
            raise UserError(
                f'--cfg-options {option}: num_classes is {wrong[0]}, but {count} classes are in {source}: '
                f'leave the option out, and the heads get {count}'
            )


def refuse_code(config: Config) -> None:
    """Annotation and proposal files of a kind that runs code when it is opened are not opened.

    Raises:
        UnsafeFileError: the first that a loader or an evaluator names.
    """
    named = [
        (f'{split}_dataloader.dataset', dataset)
        for split, loader in loaders(config).items()
        for dataset in inner_datasets(loader['dataset'])
    ]
    for name in ('val_evaluator', 'test_evaluator'):
        named += [(name, metric) for metric in evaluators(config, name)]
    for where, part in named:
        for key in FILES:
            value = part.get(key)
            if isinstance(value, str) and Path(value).suffix.lower() in RUNS_CODE:
                raise UnsafeFileError(
                    f'config {config.filename}: {where}.{key}: {value} is refused: opening a file of this '
                    f'kind runs code that is in it; save it as JSON'
                )


def evaluators(config: Config, name: str) -> list[dict]:
    """The metrics of ``val_evaluator`` or ``test_evaluator``, which may be one or a list of them."""
    return listed(config.get(name))


def listed(value: Any) -> list:  # noqa: ANN401
    """The entries of a list, or of what a config writes in place of a list of one; nothing for None."""
    if not value:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
