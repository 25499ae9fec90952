"""Configs in YAML and JSON, which are data, and pickles, which are not."""

import json
from pathlib import Path
from typing import Any

import yaml

from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.trust.text import check_size

PICKLES = ('.pkl', '.pickle', '.pckl', '.pk', '.p', '.dill', '.joblib')
CONFIGS = ('.yaml', '.yml', '.json')
# mmengine runs the files of the first and imports the modules of the second
BASES = ('_base_', 'custom_imports')


def is_pickle(path: str | Path) -> bool:
    """Whether a host would unpickle a file of this name, which may run code."""
    return Path(str(path).rstrip('/ ')).suffix.lower() in PICKLES


def read_config(path: Path) -> dict[str, Any]:
    """The values of a YAML or JSON config. Tags that name Python objects are refused, not made.

    Raises:
        UnsafeFileError: it names Python objects, other configs or modules to import.
        UserError: it is damaged, or it is no mapping from names to values.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
        values = json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
    except yaml.constructor.ConstructorError as error:
        line = f', line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UnsafeFileError(
            f'config {path} is refused{line}: {error.problem}: a config in YAML is data'
        ) from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'config {path} cannot be read: {reason}') from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f'config {path} holds no names with values, but a {type(values).__name__}')
    check_size(values, f'config {path}')
    for name in BASES:
        if values.get(name):
            raise UnsafeFileError(
                f'config {path} is refused: {name}: a config in {path.suffix[1:].upper()} is data, and this '
                f'names code to run: write the config in Python, or write its values out'
            )
    return values
