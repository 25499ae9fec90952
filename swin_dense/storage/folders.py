"""Output folders: tried before the work, and replaced as a whole."""

import ctypes
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from swin_dense.errors import DiskFullError, UserError
from swin_dense.storage import atomic

HERE, EXCHANGE = -100, 2  # of Linux's renameat2: AT_FDCWD, RENAME_EXCHANGE


def check_writable(folder: Path, name: str) -> None:
    """See that a file can be written in an output folder: before the work, not after it.

    Folders that are missing are made for that, and removed again.

    Args:
        folder: its parents may be missing, too.
        name: what the error calls it, such as ``--out``.

    Raises:
        UserError: it cannot be made, or written.
    """
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'{name} {folder} cannot be written: {error.strerror or error}') from error
    finally:
        for place in missing:
            with suppress(OSError):
                place.rmdir()


def replace(new: Path, folder: Path) -> None:
    """Let a folder of written files take the place of another, or of none.

    On Linux the two are exchanged at once; elsewhere, and on file systems that cannot, there is a moment
    with neither, in which the old one lies beside. Where the place is taken by a folder that holds more than
    PNG files, which is not ours alone, the files are moved into it one by one, and the others stay.

    Args:
        new: complete; gone afterwards.
        folder: the place, on the same file system.

    Raises:
        DiskFullError: there is no space.
        UserError: it cannot be replaced for another reason.
    """
    try:
        _synced(new)
        if not folder.is_dir():
            new.rename(folder)
        elif _only_pngs(folder):
            _exchange(new, folder)
            shutil.rmtree(new)
        else:
            _move_into(new, folder)
        atomic.to_disk(folder.parent)
    except OSError as error:
        raise as_user_error(error, folder) from error


def as_user_error(error: OSError, path: Path) -> UserError:
    """The error of a user for one of the system on writing below a folder."""
    if error.errno not in atomic.NO_SPACE:
        return UserError(f'{path} cannot be written: {error.strerror or error}')
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return DiskFullError(path, 0, shutil.disk_usage(existing).free)


def _only_pngs(folder: Path) -> bool:
    return all(entry.is_dir() or entry.suffix == '.png' for entry in folder.rglob('*'))


def _synced(folder: Path) -> None:
    """Wait until a folder with all below it is on the disk."""
    for entry in folder.rglob('*'):
        atomic.to_disk(entry)
    atomic.to_disk(folder)


def _move_into(new: Path, folder: Path) -> None:
    for path in sorted(path for path in new.rglob('*') if path.is_file()):
        target = folder / path.relative_to(new)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(new)


def _exchange(new: Path, folder: Path) -> None:
    """Let two folders take each other's place."""
    with suppress(AttributeError, OSError):  # no such function: another system
        call = ctypes.CDLL(None).renameat2
        if call(HERE, os.fsencode(new), HERE, os.fsencode(folder), EXCHANGE) == 0:
            return
    old = folder.with_name(f'{folder.name}.old{atomic.PARTIAL}')
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    new.rename(folder)
    old.rename(new)
