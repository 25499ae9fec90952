"""Files that appear under their final name only when they are whole and on disk.

A process can be killed between any two instructions, and a disk can fill up. So a file is written beside
its final name, flushed to the disk, and renamed: a reader sees the old file or the new one, never a part.
"""

import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from swin_dense.errors import DiskFullError, UserError

PARTIAL = '.partial'  # suffix of a file that is being written
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
PIECE = 32 * 2**20  # bytes between two flushes of a large file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends without an error.

    Raises:
        DiskFullError: the disk is full; ``path`` is as it was, and nothing partial is left.
        UserError: it cannot be written for another reason.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        to_disk(partial)
        os.replace(partial, path)  # noqa: PTH105  the fault tests interrupt this very call
        to_disk(path.parent)
    except OSError as error:
        raise _as_user_error(path, partial, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file; errors as ``replacing``."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole file in UTF-8; errors as ``replacing``."""
    write_bytes(path, content.encode('utf-8', 'backslashreplace'))


def write_with(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a whole file by a function that takes an open binary file; errors as ``replacing``."""
    with replacing(path) as partial:
        try:
            with _InPieces(partial.open('wb', buffering=0)) as file:
                write(file)
        except RuntimeError as error:
            # torch.save says 'unexpected pos 64 vs 128' of a full disk, while it handles what the disk said
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _InPieces(io.BufferedWriter):
    """A file that goes to the disk while it is written and leaves no copy of itself in the page cache.

    So a checkpoint of gigabytes pushes no images out of the cache, and the kernel uses the same few pages for
    all of it, which is faster than new ones.
    """

    waiting = 0  # bytes since the last flush

    def write(self, content: Any) -> int:  # noqa: ANN401  any buffer
        written = super().write(content)
        self.waiting += written
        if self.waiting >= PIECE:
            self.flush()
            if hasattr(os, 'posix_fadvise'):  # not on macOS
                os.fdatasync(self.fileno())
                os.posix_fadvise(self.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.waiting = 0
        return written


def sweep(folder: Path) -> list[Path]:
    """Remove what an interrupted process left half written in a folder; returns what was removed."""
    removed = []
    for partial in sorted(folder.glob('*' + PARTIAL)):
        with suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() and not partial.is_symlink() else partial.unlink()
            removed.append(partial)
    return removed


def _as_user_error(path: Path, partial: Path, error: OSError) -> UserError:
    if error.errno in NO_SPACE:
        written = partial.stat().st_size if partial.is_file() else 0
        free = shutil.disk_usage(path.parent).free
        return DiskFullError(path, written, free)
    return UserError(f'{path} cannot be written: {error.strerror or error}')
