"""Read the text of a config as data: its statements are never run.

mmengine writes configs as Python text, into ``meta.cfg`` of a checkpoint and into the work directory. The
text may hold literals, ``dict(...)`` calls, and names that it has assigned before.
"""

import ast
from typing import Any

from swin_dense.errors import UnsafeFileError, UserError

CONSTANTS = {'inf': float('inf'), 'nan': float('nan')}  # as repr writes them
NODES = 10**6  # of one config: names and YAML's aliases can repeat values until no memory holds them
SHOWN = 60  # characters of the refused code in a message


def parse(text: str, what: str, part: str = '') -> dict[str, Any]:
    """The variables of a config's text.

    Args:
        text: assignments of literals, ``dict(...)`` calls and names that were assigned before.
        what: the file, for messages: ``'checkpoint x.pth'``.
        part: where in the file the text is: ``'meta.cfg'``.

    Raises:
        UnsafeFileError: the text holds anything else.
        UserError: the text is not Python.
    """
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values[name] = _value(value, values)
                case _:
                    raise _CodeError(statement)
    except _CodeError as refused:
        node = refused.args[0]
        code = ast.unparse(node)
        shown = code if len(code) <= SHOWN else code[: SHOWN - 3] + '...'
        inside = f' of its {part}' if part else ''
        raise UnsafeFileError(
            f'{what} is refused: line {node.lineno}{inside} holds {shown!r}: code, not data'
        ) from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, 'lineno', None)
        where = ': '.join(filter(None, (what, part))) + (f', line {line}' if line else '')
        reason = str(error).split('\n')[0]
        raise UserError(f'{where} cannot be read as a config: {reason}') from error
    check_size(values, ': '.join(filter(None, (what, part))))
    return values


def check_size(values: Any, what: str) -> None:  # noqa: ANN401
    """Refuse a config that is too large to walk through, counting a list or dict once for each mention.

    Raises:
        UserError: it has more than a million values.
    """
    left, count = [values], 0
    while left:
        node = left.pop()
        count += 1
        if count > NODES:
            raise UserError(f'{what} cannot be read as a config: it has more than {NODES} values')
        if isinstance(node, dict):
            left.extend(node.values())
        elif isinstance(node, (list, tuple)):
            left.extend(node)


class _CodeError(Exception):
    """The syntax tree has a node that is code, not data."""


def _value(node: ast.expr, names: dict[str, Any]) -> Any:  # noqa: ANN401, C901  one case a kind of literal
    match node:
        case ast.Constant(value=str() | int() | float() | None as value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _value(operand, names)
            if isinstance(value, (int, float)):
                return -value
        case ast.List(elts=elements):
            return [_value(element, names) for element in elements]
        case ast.Tuple(elts=elements):
            return tuple(_value(element, names) for element in elements)
        case ast.Dict(keys=keys, values=values) if None not in keys:
            # a list as a key would be a TypeError
            read = [_value(key, names) for key in keys if isinstance(key, ast.Constant)]
            if len(read) == len(keys):
                return dict(zip(read, (_value(value, names) for value in values), strict=True))
        # mmengine writes dict({'a.b': 1}) where a key is no name
        case ast.Call(func=ast.Name(id='dict'), args=[] | [ast.Dict()] as given, keywords=keywords):
            if all(keyword.arg for keyword in keywords):
                first = _value(given[0], names) if given else {}
                return first | {keyword.arg: _value(keyword.value, names) for keyword in keywords}
    raise _CodeError(node)
