"""The tasks: one object for each. No other room asks which task a config is for.

A new task is a module with a subclass of ``Task``, and a line in ``KNOWN``. A program of a user's own calls
``register``.
"""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from swin_dense.console.findings import Finding
from swin_dense.errors import UserError
from swin_dense.tasks.detection import Detection
from swin_dense.tasks.panoptic import Panoptic
from swin_dense.tasks.segmentation import Segmentation
from swin_dense.tasks.task import ALL_SPLITS, Task

__all__ = ['Task', 'check', 'named', 'of_config', 'of_predictions', 'register', 'scopes']

KNOWN: list[Task] = [Panoptic(), Detection(), Segmentation()]  # the first that takes a config has it


def register(task: Task) -> None:
    """Add a task. It goes before those that are there: it may take a part of their configs."""
    KNOWN.insert(0, task)


def scopes() -> list[str]:
    """Every ``default_scope`` that a config may have."""
    return list(dict.fromkeys(scope for task in KNOWN for scope in task.scopes))


def of_config(config: Config) -> Task:
    """The task of a config.

    Raises:
        UserError: its ``default_scope`` is that of no task.
    """
    for task in KNOWN:
        if task.takes(config):
            return task
    scope = config.get('default_scope')
    raise UserError(f'config {config.filename}: default_scope={scope!r} is none of {scopes()}')


def check(
    config: Config, decode: bool, splits: Sequence[str] = ALL_SPLITS, skip_bad: bool = False
) -> list[Finding]:
    """Check the data sets of a config; see ``Task.check``."""
    return of_config(config).check(config, decode, splits, skip_bad)


def named(name: str) -> Task:
    """The task of this name, which is in ``KNOWN``."""
    return next(task for task in KNOWN if task.name == name)


def of_predictions(path: Path) -> Task:
    """The task that wrote a file or folder of predictions.

    Raises:
        UserError: no task writes such files.
    """
    for task in KNOWN:
        if task.wrote(path):
            return task
    raise UserError(f'{path}: neither COCO results, of objects or panoptic, nor a folder of PNG label maps')
