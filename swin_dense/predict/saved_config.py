"""The config that travels in a checkpoint, read as data: its text is never run, nor what it names.

mmengine writes a config as Python text into ``meta.cfg``. Anyone may have written that file, so only
literals and ``dict(...)`` are understood, and only types that the hosts or swin_dense register are built:
their registries would import any other name, and mmcv evaluates the name of an NMS.
"""

import ast
from collections.abc import Iterator
from typing import Any

from mmdet.utils import register_all_modules as register_mmdet
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, Registry
from mmseg.utils import register_all_modules as register_mmseg

import swin_dense.data.loading
import swin_dense.models  # noqa: F401  both register
from swin_dense.errors import UnsafeFileError, UserError

CONSTANTS = {'inf': float('inf'), 'nan': float('nan')}  # as repr writes them
NMS = {'nms', 'soft_nms', 'nms_match'}  # functions of mmcv.ops, in no registry
ROI_LAYERS = {'RoIAlign', 'RoIPool', 'SimpleRoIAlign'}  # classes of mmcv.ops, in no registry
EVALUATES = {'CameraMotionCompensation'}  # mmdet's: it evaluates one of its arguments
PRETRAINED = ('init_cfg', 'pretrained')  # name files and addresses of weights


def parse(text: str, file: str) -> dict[str, Any]:
    """The variables of a config's text.

    Args:
        text: assignments of literals and ``dict(...)`` calls.
        file: the checkpoint's name, for messages.

    Raises:
        UnsafeFileError: there is anything else in it.
        UserError: it is no Python.
    """
    try:
        tree = ast.parse(text)
        values = {}
        for statement in tree.body:
            if not _is_assignment(statement):
                raise _refused(file, statement)
            values[statement.targets[0].id] = _value(statement.value, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, 'lineno', None)
        where = f', line {line}' if line else ''
        reason = str(error).split('\n')[0]
        raise UserError(f'checkpoint {file}: meta.cfg{where} cannot be read as a config: {reason}') from error
    return values


def _is_assignment(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)


def _value(node: ast.expr, file: str) -> Any:  # noqa: ANN401, C901  one case for each kind of literal
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _value(operand, file)
            if isinstance(value, (int, float)):
                return -value
        case ast.List(elts=elements):
            return [_value(element, file) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element, file) for element in elements)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            # a list as a key would be a TypeError
            names = [_value(key, file) for key in keys if isinstance(key, ast.Constant)]
            if len(names) == len(keys):
                return dict(zip(names, (_value(value, file) for value in values), strict=True))
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            if all(keyword.arg for keyword in keywords):
                return {keyword.arg: _value(keyword.value, file) for keyword in keywords}
    raise _refused(file, node)


def _refused(file: str, node: ast.AST) -> UnsafeFileError:
    code = ast.unparse(node)
    shown = code if len(code) <= 60 else code[:57] + '...'
    return UnsafeFileError(
        f'checkpoint {file} is refused: line {node.lineno} of its meta.cfg holds {shown!r}: code, not data'
    )


def check_types(node: Any, file: str, scope: str) -> None:  # noqa: ANN401
    """Every ``type`` in a part of a saved config must be registered by the hosts or by swin_dense.

    Raises:
        UnsafeFileError: one is not; nothing has been imported or built.
    """
    known = _registered()
    for kind, inside in _types(node, scope):
        if not isinstance(kind, str) or not isinstance(inside, str):
            raise UnsafeFileError(
                f'checkpoint {file} is refused: its config has a type that is no name: {kind!r}'
            )
        name = kind.rpartition('.')[2]
        # a name alone is looked up in the scope around it, and then in mmengine's
        places = {kind} if '.' in kind else {f'{inside}.{kind}', f'mmengine.{kind}'}
        if (places & known or kind in NMS | ROI_LAYERS) and name not in EVALUATES:
            continue
        raise UnsafeFileError(
            f'checkpoint {file} is refused: its config names the type {kind!r}, which is none of mmdet, mmseg'
            f' and swin_dense: building the model would import it; if you trust it, give its config file'
        )


def _types(node: Any, scope: str) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Each ``type`` in a config with the scope that it is looked up in."""
    if isinstance(node, dict):
        scope = node.get('_scope_', scope)
        if 'type' in node:
            yield node['type'], scope
        for key, value in node.items():
            if key not in PRETRAINED:  # nothing is built of those
                yield from _types(value, scope)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _types(value, scope)


def _registered() -> set[str]:
    """``scope.Name`` of all that models and pipelines may be made of."""
    register_mmdet(init_default_scope=False)
    register_mmseg(init_default_scope=False)
    names: set[str] = set()
    registries: list[Registry] = [MODELS, TASK_UTILS, TRANSFORMS]
    while registries:
        registry = registries.pop()
        names.update(f'{registry.scope}.{name}' for name in registry.module_dict)
        registries.extend(registry.children.values())
    return names


def without_pretrained(node: Any) -> Any:  # noqa: ANN401
    """A model config in which nothing names weights to fetch: the checkpoint has them all."""
    if isinstance(node, dict):
        kept = {key: None if key in PRETRAINED else without_pretrained(value) for key, value in node.items()}
        return ConfigDict(kept)
    if isinstance(node, (list, tuple)):
        return type(node)(without_pretrained(value) for value in node)
    return node
