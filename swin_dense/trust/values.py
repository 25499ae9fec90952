"""The values of somebody else's config must be plain, and none may be one that a host opens or runs."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import ConfigDict

from swin_dense.errors import UnsafeFileError
from swin_dense.trust import types
from swin_dense.trust.fields import DROPPED, reason_against

MODELS = ('model', 'tta_model')
ADVICE = 'if you trust it, give its config file'
# the hosts' own configs fetch weights from these; mmengine unpickles what it fetches
HOST_WEIGHTS = (
    'torchvision://',
    'open-mmlab://',
    'openmmlab://',
    'https://download.openmmlab.com/',
    'https://github.com/SwinTransformer/storage/',
)


def check_model(model: Any, what: str, scope: str, path: str = 'model') -> None:  # noqa: ANN401
    """Refuse a model config unless its types are the hosts' or ours and its values are plain.

    Args:
        model: the config that will be built, after ``without_weights``.
        what: the file, for messages: ``'checkpoint x.pth'``.
        scope: the host, ``'mmdet'`` or ``'mmseg'``.
        path: its place in the file.

    Raises:
        UnsafeFileError: a type or a value is refused; nothing has been imported or built.
    """
    _check_scopes(model, what, path)
    _check_types(model, what, scope, path, types.of_models(), types.REFUSED)
    _check_values(model, what, path, False)


def check_config(config: dict[str, Any], what: str, scope: str, read: set[str]) -> None:
    """Refuse the config of a run unless its types are the hosts' or ours.

    Its models have to pass ``check_model``.

    Fields of data sets, evaluators and the run may name files, but no pickles.

    Args:
        config: its values.
        what: the file, for messages.
        scope: the host, ``'mmdet'`` or ``'mmseg'``.
        read: the top-level names that a run reads; the others are variables of the config.

    Raises:
        UnsafeFileError: a type or a value is refused; nothing has been imported or built.
    """
    known = types.of_runs()
    for name in sorted(read & set(config)):
        node = config[name]
        _check_scopes(node, what, name)
        _check_types(node, what, scope, name, known, types.REFUSED_IN_RUNS)
        if name not in MODELS:
            _check_values({name: node}, what, '', True)
            continue
        for path, start in _starts(node, name):
            if '://' in str(start.get('checkpoint')) and not _is_safe_start(start):
                raise _refused(
                    what, f'{path}.checkpoint', start['checkpoint'], 'mmengine would unpickle what it fetches'
                )
        _check_values(without_weights(node), what, name, False)


def without_weights(node: Any) -> Any:  # noqa: ANN401
    """The model config without any weights to start from: the checkpoint has them all."""
    if isinstance(node, dict):
        kept = {key: None if key in DROPPED else without_weights(value) for key, value in node.items()}
        return ConfigDict(kept)
    if isinstance(node, (list, tuple)):
        return type(node)(without_weights(value) for value in node)
    return node


def _check_scopes(node: Any, what: str, path: str) -> None:  # noqa: ANN401
    """Refuse other scopes: mmengine imports the package that a ``_scope_`` names."""
    if isinstance(node, dict):
        scope = node.get('_scope_')
        if scope is not None and scope not in types.SCOPES:
            raise _refused(what, f'{path}._scope_', scope, 'mmengine would import a package of that name')
        for key, value in node.items():
            _check_scopes(value, what, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            _check_scopes(value, what, f'{path}.{i}')


def _check_types(
    node: Any,  # noqa: ANN401
    what: str,
    scope: str,
    path: str,
    known: set[str],
    refused: dict[str, str],
) -> None:
    for place, kind, inside in types.types_in(node, scope, path):
        if any(f'.{name}.' in f'.{place}' for name in DROPPED):
            continue  # nothing is built of those
        if not isinstance(kind, str):
            raise UnsafeFileError(
                f'{what} is refused: its config has a type that is no name: {place}={kind!r}'
            )
        if reason := refused.get(kind.rpartition('.')[2]):
            raise _refused(what, place, kind, reason)
        if not types.is_known(kind, inside, known):
            raise UnsafeFileError(
                f'{what} is refused: its config names the type {kind!r} ({place}), which is none of mmdet, '
                f'mmseg and swin_dense: building it would import it; {ADVICE}'
            )


def _check_values(node: Any, what: str, path: str, data: bool) -> None:  # noqa: ANN401
    """Check every value that is no type: numbers, names, and lists and dicts of them."""
    for place, field, value in _fields(node, path, path.rpartition('.')[2]):
        if reason := reason_against(field, value, data):
            raise _refused(what, place, value, reason)


def _fields(node: Any, path: str, field: str) -> Iterator[tuple[str, str, Any]]:  # noqa: ANN401
    """Each value with its path and the name of its field; an item of a list has the field of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key != 'type':
                here = f'{path}.{key}' if path else str(key)
                yield here, str(key), value
                yield from _fields(value, here, str(key))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            if isinstance(value, (dict, list, tuple)):
                yield from _fields(value, f'{path}.{i}', field)
            else:
                yield f'{path}.{i}', field, value


def _starts(node: Any, path: str) -> Iterator[tuple[str, dict]]:  # noqa: ANN401
    """Each ``init_cfg`` with its path; ``pretrained`` is mmseg's short form of one."""
    if isinstance(node, dict):
        for key, value in node.items():
            here = f'{path}.{key}'
            if key == 'pretrained' and isinstance(value, str):
                yield here, dict(type='Pretrained', checkpoint=value)
            elif key == 'init_cfg':
                entries = value if isinstance(value, (list, tuple)) else [value]
                yield from ((here, entry) for entry in entries if isinstance(entry, dict))
            else:
                yield from _starts(value, here)
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _starts(value, f'{path}.{i}')


def _is_safe_start(start: dict) -> bool:
    """Whether our reader fetches the weights, or the address is one of the hosts' own configs'."""
    return start.get('type') == 'swin_dense.Pretrained' or str(start['checkpoint']).startswith(HOST_WEIGHTS)


def _refused(what: str, path: str, value: Any, reason: str) -> UnsafeFileError:  # noqa: ANN401
    shown = repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + '...'
    return UnsafeFileError(f'{what} is refused: {path}={shown}: {reason}; {ADVICE}')
