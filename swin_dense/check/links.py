"""Symbolic links in a data set: which of them lead out of it."""

import os
from collections.abc import Iterable
from pathlib import Path

from swin_dense.console.findings import Finding, some

MOST = 10_000  # links that are followed: each asks the file system once more


def check_links(root: Path, folder: Path, names: Iterable[str]) -> list[Finding]:
    """One warning for the links below a folder that lead out of the data set.

    Args:
        root: the data set.
        folder: a folder of it; that it is a link itself is its owner's own doing.
        names: of the links in it, relative to it.
    """
    inside = [os.path.realpath(root) + os.sep, os.path.realpath(folder) + os.sep]
    links = list(names)
    outside = [name for name in links[:MOST] if not _target(folder, name).startswith(tuple(inside))]
    if not outside:
        return []
    seen = f' (of {len(links)} links, the first {MOST} were followed)' if len(links) > MOST else ''
    first = f'{outside[0]} is {_target(folder, outside[0])}'
    what = f'symbolic links lead out of {root}: {first}{seen}'
    return [Finding('warning', folder, 'links', what, **some(outside))]


def common_root(*paths: Path) -> Path:
    """The folder that holds all of some, the last of them if that is the whole disk."""
    shared = os.path.commonpath([path.absolute() for path in paths])
    return Path(shared) if Path(shared).parent != Path(shared) else paths[-1]


def _target(folder: Path, name: str) -> str:
    return os.path.realpath(folder / name)
