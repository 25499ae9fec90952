"""What a prediction run has done, line by line on the disk, so that an interrupted one goes on."""

import json
import os
import shutil
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from swin_dense.errors import DiskFullError, UserError
from swin_dense.predict.sources import Source
from swin_dense.storage import atomic

NAME = 'predictions.partial.jsonl'
VERSION = 1
GONE = [-1, -1]  # in place of size and time: the file was deleted meanwhile
SYNC_SECONDS = 2.0  # what a power cut may take; of a process that dies, nothing is lost
# the settings that a journal must agree with, and the message where one differs
KEYS = {
    'checkpoint': 'another checkpoint',
    'config': 'another config',
    'classes': 'other classes',
    'settings': 'other settings',
}


class Journal:
    """The file ``predictions.partial.jsonl`` of an output folder.

    Its first line says what the predictions depend on. Each other line has the prediction of an image or a
    frame. A video counts when its last line is there, with the number of frames. The memory holds only the
    places of the lines.

    Args:
        out: the output folder.
        key: what the predictions depend on, in the form of JSON; see ``KEYS``.
        classes: how many there are: labels of a line that are none make it a broken one.

    Attributes:
        note: why an existing journal was not used, a line for the person; empty if it was, or if there was
            none.

    Raises:
        UserError: the file cannot be read or written.
        DiskFullError: there is no space for its first line.
    """

    def __init__(self, out: Path, key: Mapping[str, Any], classes: int) -> None:
        self.path = out / NAME
        self.note = ''
        self._classes = classes
        self._lines: dict[str, array] = {}  # of each file that is done
        self._files: dict[str, list] = {}  # size and time of each
        self._open: tuple[str, array] = ('', array('q'))  # the video that is being written
        head = json.dumps({'journal': VERSION, **key})
        try:
            self._end = self._take_over(json.loads(head))
            if not self._end:
                atomic.write_text(self.path, head + '\n')
                self._end = self.path.stat().st_size
            self._reader = self.path.open('rb')
            self._file = self.path.open('r+b', buffering=0)
            self._file.truncate(self._end)  # without the line that was being written
        except OSError as error:
            raise UserError(f'{self.path} cannot be written: {error.strerror or error}') from error
        self._synced = time.monotonic()

    def has(self, source: Source) -> bool:
        """Whether an image or video was predicted, and its file is still the same."""
        return source.name in self._lines and self._files[source.name] == identity(source.path)

    def add(self, source: Source, frame: int | None, record: Mapping[str, Any]) -> None:
        """Append an image, or a frame of a video, whose other output is on the disk.

        Args:
            source: the image or video.
            frame: number of the frame; None for an image.
            record: what its task wants to be remembered of it, in the form of JSON.

        Raises:
            DiskFullError: there is no space; the lines before are intact.
            UserError: it cannot be written for another reason.
        """
        line: dict[str, Any] = {'name': source.name}
        line |= {'file': identity(source.path) or GONE} if frame is None else {'frame': frame}
        self._append({**line, **record})

    def end(self, source: Source, frames: int) -> None:
        """Append that a video is done; errors as ``add``."""
        self._append({'name': source.name, 'file': identity(source.path) or GONE, 'frames': frames})

    def read(self, source: Source) -> Iterator[dict[str, Any]]:
        """The lines of an image (one) or a video (one for each frame); none if it is not done."""
        for offset in self._lines.get(source.name, ()):
            self._reader.seek(offset)
            yield json.loads(self._reader.readline())

    def close(self) -> None:
        """Bring to the disk what is written, and close the file."""
        with suppress(OSError):  # ``add`` has reported a full disk already
            os.fsync(self._file.fileno())
        self._file.close()
        self._reader.close()

    def remove(self) -> None:
        """Delete the file: what it holds is in the predictions."""
        with suppress(OSError):
            self.path.unlink()

    def _take_over(self, head: dict[str, Any]) -> int:
        """Index an existing file; returns where its whole lines end, 0 to begin a new one."""
        if not self.path.is_file():
            if self.path.exists():
                raise UserError(f'{self.path} is no regular file')
            return 0
        with self.path.open('rb') as file:
            first = _parsed(file.readline())
            if first != head:
                self.note = f'{self.path} is of {_difference(first, head)}: every image is predicted again'
                return 0
            end = file.tell()
            for line in file:
                if not self._index(_parsed(line), end):
                    break  # torn by what ended the process, or damaged: nothing behind it is used
                end += len(line)
        return end

    def _index(self, line: dict[str, Any], offset: int) -> bool:
        """Note where a line begins; whether it is one."""
        name, frame, file = line.get('name'), line.get('frame'), line.get('file')
        if not isinstance(name, str) or not self._sound(line):
            return False
        if frame is not None:
            if frame == 0:  # a video that was interrupted is begun anew
                self._open = name, array('q')
                self._lines.pop(name, None)
            if self._open[0] != name:
                return False
            self._open[1].append(offset)
            return True
        if not isinstance(file, list):
            return False
        of_video = 'frames' in line and self._open[0] == name
        self._lines[name] = self._open[1] if of_video else array('q', () if 'frames' in line else (offset,))
        self._files[name] = file
        return True

    def _sound(self, line: dict[str, Any]) -> bool:
        objects = line.get('objects', [])
        return isinstance(objects, list) and all(
            isinstance(x, dict) and type(x.get('label')) is int and 0 <= x['label'] < self._classes
            for x in objects
        )

    def _append(self, line: dict[str, Any]) -> None:
        content = memoryview(json.dumps(line).encode() + b'\n')
        self._file.seek(self._end)
        written = 0
        try:
            while written < len(content):
                written += self._file.write(content[written:])
            now = time.monotonic()
            if now - self._synced >= SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            if error.errno in atomic.NO_SPACE:
                free = shutil.disk_usage(self.path.parent).free
                raise DiskFullError(self.path, len(content), free) from error
            raise UserError(f'{self.path} cannot be written: {error.strerror or error}') from error
        self._index(line, self._end)
        self._end += len(content)


def identity(path: Path) -> list[int] | None:
    """Size and time of change of a file, which tell it from what may lie there later; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _parsed(line: bytes) -> dict[str, Any]:
    """A line as it was written; empty for any other bytes."""
    if not line.endswith(b'\n'):
        return {}
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _difference(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What tells two first lines apart, in words."""
    name = next((name for name in KEYS if then.get(name) != now[name]), None)
    if name is None or name not in then:
        return 'another kind'
    old, new = then[name], now[name]
    if not isinstance(old, dict) or not isinstance(new, dict):
        return KEYS[name]
    changed = [f'{key} {old.get(key)}, not {new[key]}' for key in new if old.get(key) != new[key]]
    return f'{KEYS[name]} ({", ".join(changed)})'
