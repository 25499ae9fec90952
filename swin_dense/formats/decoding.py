"""Whether the pixels of image files are whole, as the libraries that decode them say.

A JPEG that was cut off and closed with an end marker, or one with a damaged middle, is decoded all the same:
the rest is gray, and the only sign is what libjpeg writes on the standard error of the process. No library
that the hosts use hands it on. So files are decoded while that goes to a file of ours.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TextIO

from rich.console import Console
from rich.progress import Progress

from swin_dense.errors import UserError
from swin_dense.formats.images import BadImageError

STDERR = 2
BATCH = 64  # files that are decoded before what was written is looked at
THREADS = 8
SAMPLED = 32  # images that the quick check decodes, or fewer of many pixels
SAMPLED_PIXELS = 2**27
GOLDEN = 0.6180339887498949
# lines that mean that pixels are wrong; a library's warnings of colour profiles and unknown tags do not
DAMAGE = ('Corrupt JPEG data', 'Premature end of JPEG file', 'libpng error', '[ERROR:')
PADDING = 'extraneous bytes before marker'  # cameras write some, and nothing is lost


@dataclass(frozen=True)
class Damage:
    """A file whose pixels are not what was saved.

    Attributes:
        path: the image.
        text: why, without its name.
        grave: whether pixels are lost; otherwise there are bytes too many, which may mean nothing.
    """

    path: Path
    text: str
    grave: bool = True


def find_damage(paths: Sequence[Path], decode: Callable[[Path], object], title: str = '') -> list[Damage]:
    """Decode images and tell which are damaged, in the order of ``paths``.

    What anything else in the process writes on the standard error meanwhile is lost.

    Args:
        paths: image files.
        decode: reads one with OpenCV or tifffile; raises BadImageError or UserError if it cannot. Called in
            threads, and again for the files of a batch in which something is wrong.
        title: of a progress bar; none if empty.
    """
    damages: list[Damage] = []
    with _captured() as (messages, terminal), ThreadPoolExecutor(_threads()) as threads:
        console = Console(file=terminal) if terminal else None
        with Progress(console=console, transient=True, disable=not (title and terminal)) as bar:
            task = bar.add_task(title, total=len(paths))
            for begin in range(0, len(paths), BATCH):
                batch = paths[begin : begin + BATCH]
                texts = list(threads.map(lambda path: _failure(path, decode), batch))
                # whose it is, only one after the other can tell
                if _lines(messages):
                    damages += [damage for path in batch if (damage := _ask(path, decode, messages))]
                else:
                    damages += [Damage(path, text) for path, text in zip(batch, texts, strict=True) if text]
                bar.advance(task, len(batch))
    return damages


def sample(pixels: Sequence[int]) -> list[int]:
    """Which of N images to decode where not all are: the same each time, spread evenly, one at least.

    Args:
        pixels: of each image.
    """
    count = min(len(pixels), SAMPLED)
    places = [i * (len(pixels) - 1) // max(count - 1, 1) for i in range(count)]
    # in this order the first few are spread evenly too
    chosen: list[int] = []
    total = 0
    for i in sorted(range(count), key=lambda i: i * GOLDEN % 1):
        total += pixels[places[i]]
        if chosen and total > SAMPLED_PIXELS:
            break
        chosen.append(places[i])
    return sorted(chosen)


@contextmanager
def damage_lines() -> Iterator[list[str]]:
    """A list that holds, once the block has ended, what libraries say of damaged pixels in it.

    Takes about 20 microseconds. What else is written on the standard error of the process is handed on.
    """
    lines: list[str] = []
    try:
        before = os.dup(STDERR)
    except OSError:  # closed: nobody would see it either
        yield lines
        return
    messages = _messages(os.getpid())
    os.dup2(messages.fileno(), STDERR)
    try:
        yield lines
    finally:
        os.dup2(before, STDERR)
        os.close(before)
        if os.fstat(messages.fileno()).st_size:
            for line in _lines(messages):
                if line.startswith(DAMAGE):
                    lines += [] if PADDING in line else [line]
                else:
                    os.write(STDERR, f'{line}\n'.encode())


@lru_cache(maxsize=1)
def _messages(process: int) -> BinaryIO:
    """A file for what one process writes: a child would share the place in its parent's."""
    return tempfile.TemporaryFile(buffering=0)


def _threads() -> int:
    return min(THREADS, os.cpu_count() or 1)


def _ask(path: Path, decode: Callable[[Path], object], messages: BinaryIO) -> Damage | None:
    """Decode one image, alone."""
    failure = _failure(path, decode)
    lines = [line for line in _lines(messages) if line.startswith(DAMAGE)]
    if failure:
        return Damage(path, failure)
    for line in lines:
        if PADDING in line:
            return Damage(path, f'libjpeg says {line!r}', grave=False)
        lost = 'cut off' if 'remature end' in line else 'damaged'
        return Damage(path, f'the pixels are {lost}, though the file can be opened ({line})')
    return None


def _failure(path: Path, decode: Callable[[Path], object]) -> str:
    """Why an image cannot be decoded, empty if it can."""
    try:
        decode(path)
    except BadImageError as error:
        return str(error)
    except UserError as error:
        return str(error).removeprefix(f'image {path}: ')
    except MemoryError:
        return 'the pixels do not fit into memory'
    return ''


def _lines(messages: BinaryIO) -> list[str]:
    """The messages since the last call."""
    messages.seek(0)
    text = messages.read().decode(errors='replace')
    messages.seek(0)
    messages.truncate()
    return text.splitlines()


@contextmanager
def _captured() -> Iterator[tuple[BinaryIO, TextIO | None]]:
    """A file to which the standard error of the process goes, and what it was; None if it was closed."""
    if sys.__stderr__ is not None:
        sys.__stderr__.flush()
    with tempfile.TemporaryFile(buffering=0) as messages:
        try:
            before = os.dup(STDERR)
        except OSError:
            yield messages, None
            return
        os.dup2(messages.fileno(), STDERR)
        with os.fdopen(before, 'w') as terminal:
            try:
                yield messages, terminal
            finally:
                terminal.flush()
                os.dup2(before, STDERR)
