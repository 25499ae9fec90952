"""Load a config and override single values of it; a user's mistakes become ``UserError``."""

import difflib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope, Registry, init_default_scope, root
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from swin_dense import tasks
from swin_dense.config.backbone import replace
from swin_dense.console.terminal import say
from swin_dense.engine import foreign_config
from swin_dense.errors import UserError
from swin_dense.hosts.configs import stock_path
from swin_dense.hosts.packages import LANGUAGE
from swin_dense.trust.data_files import CONFIGS

# read by mmengine and the hosts' tools from the top level of a config, beside Runner's own arguments
TOP_LEVEL = {'find_unused_parameters', 'sync_bn', 'model_wrapper_cfg', 'tta_model', 'tta_pipeline', 'compile'}


def load_config(
    path: str, options: Sequence[str] = (), backbone: str | None = None, swin_schedule: bool = False
) -> Config:
    """Read a config of ours, mmdet's or mmseg's, and override single values.

    A Python file is a program that the user chose, and runs. YAML, JSON, and the config that a run left in
    its work directory, are data.

    Args:
        path: the config file (``mmdet::FILE`` is one that mmdet's package has), or a run's work directory.
        options: ``KEY=VALUE`` each, as after ``--cfg-options``.
        backbone: what takes the place of the config's own backbone, before the options are applied: as for
            ``swin_dense.config.with_backbone``.
        swin_schedule: with ``backbone``, train as Swin's recipes do.

    Raises:
        UserError: the file is missing or broken, or an option names nothing that exists.
        UnsafeFileError: data that a host would open, import or run; a file to be unpickled.
    """
    file = stock_path(path) if '::' in path else Path(path)
    known = {*inspect.signature(Runner.__init__).parameters, *TOP_LEVEL}
    if file.is_dir() and foreign_config.is_run(file):
        config = foreign_config.of_folder(file, known)
    elif not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob('*.py')], 1)
        hint = f'; did you mean {file.parent / near[0]}?' if near else ''
        raise UserError(f'config {path} does not exist (looked for {file.absolute()}){hint}')
    elif file.suffix in CONFIGS:
        config = foreign_config.of_file(file, known)
    else:
        config = _run(str(file))
    for key in ('model', 'default_scope'):
        if key not in config:
            raise UserError(f'config {path}: {key} is missing')
    tasks.of_config(config)
    if 'language_model' in config.model and (problem := LANGUAGE.problem()):
        raise UserError(f'config {path}: model.language_model: {problem}')
    init_default_scope(config.default_scope)
    if backbone is not None:
        replacement = replace(config, backbone, swin_schedule)
        config = replacement.config
        for note in replacement.notes:
            say(f'backbone: {note}')
    config.merge_from_dict(_parse(options, config))
    foreign_config.refuse_pickles(config, f'config {path}')
    return config


def _run(path: str) -> Config:
    """The values that a Python file assigns."""
    try:
        return Config.fromfile(path)
    except SyntaxError as error:
        raise UserError(f'config {path}, line {error.lineno}: {error.msg}') from error
    except Exception as error:  # a config is a program: it may raise anything
        raise UserError(f'config {path}: {type(error).__name__}: {error}') from error


def _parse(options: Sequence[str], config: Config) -> dict[str, Any]:
    """``KEY=VALUE`` strings as a dict for ``merge_from_dict``; every key must name something."""
    parsed = {}
    for option in options:
        key, equals, value = option.partition('=')
        if not equals:
            raise UserError(f'--cfg-options {option}: write KEY=VALUE')
        _check_key(key, config)
        try:
            parsed[key] = DictAction._parse_iterable(value)
        except (AssertionError, ValueError, SyntaxError) as error:
            raise UserError(f'--cfg-options {option}: the value cannot be read: {error}') from error
    return parsed


def _check_key(key: str, config: Config) -> None:
    """A key must exist, or be an argument that the type at its place accepts."""
    known = {*inspect.signature(Runner.__init__).parameters, *TOP_LEVEL}
    # other top-level names are variables of the config file, which nothing reads any more
    node: Any = {name: value for name, value in config.items() if name in known}
    walked: list[str] = []
    for part in key.split('.'):
        present, accepted = _present(node), _accepted(node, walked) if walked else known
        if part in present:
            node = present[part]
            walked.append(part)
            continue
        # where nothing says what may be added, only what looks like a slip of the pen is refused
        cutoff = 0.6 if accepted is not None else 0.85
        near = difflib.get_close_matches(part, {*present, *(accepted or ())}, 1, cutoff)
        if part in (accepted or ()) or (accepted is None and not near):
            return  # an argument that the config leaves at its default
        hint = f'; did you mean {".".join([*walked, near[0]])}?' if near else ''
        if not walked:
            raise UserError(f'--cfg-options {key}: nothing reads {part!r} at the top of a config{hint}')
        raise UserError(f'--cfg-options {key}: {".".join(walked)} has no {part!r}{hint}')


def _present(node: Any) -> dict[str, Any]:  # noqa: ANN401
    if isinstance(node, (list, tuple)):
        return {str(i): value for i, value in enumerate(node)}
    return dict(node.items()) if isinstance(node, dict) else {}


def _accepted(node: Any, walked: list[str]) -> set[str] | None:  # noqa: ANN401
    """The names that may be added at a place; None if any may."""
    if not isinstance(node, dict):
        return set()
    if walked[-1].endswith('_dataloader'):
        return {*inspect.signature(DataLoader.__init__).parameters, 'num_batch_per_epoch'}
    if 'type' not in node:
        return None
    arguments = _arguments(node['type'])
    if arguments is not None and walked[-1] == 'optim_wrapper':
        arguments |= {'constructor', 'paramwise_cfg'}
    return arguments


def _arguments(kind: Any) -> set[str] | None:  # noqa: ANN401
    """The constructor arguments of a registered type; None if it takes any, or is not found."""
    registered = kind if inspect.isclass(kind) else _find(kind)
    if not inspect.isclass(registered):
        return None
    arguments: set[str] = set()
    for cls in inspect.getmro(registered):
        initializer = inspect.getattr_static(cls, '__init__')
        if initializer is object.__init__:
            return None  # what no class names is passed on elsewhere
        parameters = inspect.signature(initializer).parameters.values()
        arguments.update(p.name for p in parameters)
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break  # nothing is passed on to the bases
    return arguments


def _find(kind: str) -> type | None:
    """A type by its registered name, in the config's default scope."""
    if '.' not in kind:
        kind = f'{DefaultScope.get_current_instance().scope_name}.{kind}'
    registries = (registry for registry in vars(root).values() if isinstance(registry, Registry))
    return next(
        (registered for registry in registries if (registered := registry.get(kind)) is not None), None
    )
