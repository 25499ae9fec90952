"""Configs that are data: YAML, JSON, and what a run left in its work directory. Nothing in them is run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from swin_dense import trust
from swin_dense.errors import UnsafeFileError, UserError

TRACES = ('last_checkpoint', '*.pth', '*/vis_data', 'metrics.json')
PARTS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator')


def of_file(path: Path, known: set[str]) -> Config:
    """A YAML or JSON config, once nothing in it can do harm.

    Args:
        path: the file.
        known: the names at the top of a config that anything reads.

    Raises:
        UnsafeFileError: it names what a host would open, import or run.
        UserError: it is damaged, or no config.
    """
    values = trust.read_config(path)
    trust.check_config(values, f'config {path}', _scope(values, path), known)
    return Config({name: values[name] for name in known & set(values)}, filename=str(path))


def of_folder(folder: Path, known: set[str]) -> Config:
    """The config that a run left in its work directory, without the weights that the run began with.

    Arguments and errors as ``of_file``. The work directory is the folder, wherever the run was.
    """
    values, path = saved_values(folder)
    trust.check_config(values, f'config {path}', _scope(values, path), known)
    kept = {name: values[name] for name in known & set(values)}
    kept |= dict(model=trust.without_weights(values['model']), work_dir=str(folder))
    return Config({**kept, 'load_from': None, 'resume': False}, filename=str(path))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's work directory: it holds a config, and what else a run leaves."""
    return any(folder.glob('*.py')) and any(any(folder.glob(trace)) for trace in TRACES)


def saved_values(folder: Path) -> tuple[dict[str, Any], Path]:
    """The values of the newest config in a work directory, unchecked, and its file.

    Raises:
        UnsafeFileError: it is code, not data.
        UserError: there is none, or it cannot be read as a config.
    """
    dumped = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    if not dumped:
        raise UserError(f'{folder} is no run: it holds no config (*.py)')
    path = dumped[-1]
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'config {path} cannot be read: {error}') from error
    values = trust.parse(text, f'config {path}')
    _scope(values, path)
    return values, path


def refuse_pickles(config: Config, what: str) -> None:
    """No data set or evaluator may read a file that the hosts would unpickle.

    Raises:
        UnsafeFileError: one would, for its annotations or proposals.
    """
    for part in PARTS:
        for path, value in _read_files(config.get(part), part):
            if trust.is_pickle(value):
                raise UnsafeFileError(
                    f'{what} is refused: {path}={value!r}: a pickle runs code when it is opened: convert it '
                    f'to JSON'
                )


def _read_files(node: Any, path: str) -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """The fields that name files to read, such as ``ann_file`` and ``proposal_file``, by their path."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str) and str(key).endswith(('_file', '_ann', '_path')) and 'out' not in key:
                yield f'{path}.{key}', value
            else:
                yield from _read_files(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _read_files(value, f'{path}.{i}')


def _scope(values: dict[str, Any], path: Path) -> str:
    scope = values.get('default_scope')
    if not isinstance(scope, str) or not isinstance(values.get('model'), dict):
        missing = 'default_scope' if not isinstance(scope, str) else 'model'
        raise UserError(f'config {path}: {missing} is missing')
    return scope
