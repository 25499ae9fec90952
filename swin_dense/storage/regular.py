"""Files that are not regular: opening a named pipe waits for ever, and a device never ends."""

import stat
from pathlib import Path

KINDS = (
    (stat.S_ISREG, ''),
    (stat.S_ISDIR, 'a folder'),
    (stat.S_ISFIFO, 'a named pipe'),
    (stat.S_ISSOCK, 'a socket'),
)


def other_kind(path: Path) -> str:
    """``'a folder'``, ``'a named pipe'``, ``'a socket'`` or ``'a device'``; empty for a regular file.

    Raises:
        OSError: there is nothing of that name.
        ValueError: the name cannot be one of a file.
    """
    mode = path.stat().st_mode
    return next((kind for holds, kind in KINDS if holds(mode)), 'a device')
