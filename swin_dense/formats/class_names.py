"""Files of class names, one a line."""

import unicodedata
from collections import Counter
from pathlib import Path

from swin_dense.errors import UserError


def read_class_names(path: Path, field: str) -> tuple[str, ...]:
    """The names in a text file, UTF-8 with or without a byte order mark.

    Args:
        path: the file.
        field: what names it, for messages: ``'--classes'``.

    Raises:
        UserError: the file is missing, empty or not UTF-8, or a line of it is no name or one that was there.
    """
    what = f'{field} {path}'
    if not path.is_file():
        raise UserError(f'{what}: the file does not exist (looked for {path.absolute()})')
    try:
        # not utf-8: a byte order mark would be the first letter of the first name
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{what}: the file is no UTF-8 text ({error})') from error
    except OSError as error:
        raise UserError(f'{what}: the file cannot be read: {error.strerror}') from error
    names = [line.strip() for line in text.rstrip().split('\n')]
    if names == ['']:
        raise UserError(f'{what}: the file is empty; write one class name a line')
    for number, name in enumerate(names, 1):
        if not name:
            raise UserError(f'{what}, line {number}: the line is empty; each line names the next class')
        if any(unicodedata.category(letter) == 'Cc' for letter in name):
            raise UserError(f'{what}, line {number}: {name!r} has a control character')
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        lines = ' and '.join(str(i) for i, other in enumerate(names, 1) if other == name)
        raise UserError(f'{what}, lines {lines}: {name!r} is there {count} times')
    return tuple(names)
