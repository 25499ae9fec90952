"""Where a config names its data sets, evaluators and classes."""

from typing import Any

from mmengine.config import Config


def leaf_datasets(dataset: dict) -> list[dict]:
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    if 'datasets' in dataset:
        return [leaf for inner in dataset['datasets'] for leaf in leaf_datasets(inner)]
    return leaf_datasets(dataset['dataset']) if 'dataset' in dataset else [dataset]


def loaders(config: Config) -> dict[str, dict]:
    """The data loaders that the config has, by split: train, val, test."""
    names = {split: f'{split}_dataloader' for split in ('train', 'val', 'test')}
    return {split: config[name] for split, name in names.items() if config.get(name)}


def set_classes(model: Any, count: int) -> None:  # noqa: ANN401
    """Give every head of a model config ``count`` classes (HTC's semantic branch has its own)."""
    if isinstance(model, dict):
        for key, value in model.items():
            if key == 'num_classes':
                model[key] = count
            elif key == 'out_channels' and 'num_classes' in model:
                model[key] = count  # mmseg's heads: the logits' channels
            elif key != 'semantic_head':
                set_classes(value, count)
    elif isinstance(model, (list, tuple)):
        for value in model:
            set_classes(value, count)


def head_classes(model: Any) -> set[int]:  # noqa: ANN401
    """The class counts that the heads of a model config state."""
    if isinstance(model, dict):
        own = {model['num_classes']} if 'num_classes' in model else set()
        return own.union(*(head_classes(value) for key, value in model.items() if key != 'semantic_head'))
    if isinstance(model, (list, tuple)):
        return set().union(*(head_classes(value) for value in model))
    return set()


def evaluators(config: Config, name: str) -> list[dict]:
    """The metrics of ``val_evaluator`` or ``test_evaluator``, which may be one or a list of them."""
    return listed(config.get(name))


def listed(value: Any) -> list:  # noqa: ANN401
    """The entries of a list, or of what a config writes in place of a list of one; nothing for None."""
    if not value:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
