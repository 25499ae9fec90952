"""What is predicted: image files, folders, globs and videos, under names for the output."""

import difflib
import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from swin_dense.console import terminal
from swin_dense.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp', '.jp2', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
KINDS = (
    (stat.S_ISFIFO, 'a named pipe'),
    (stat.S_ISSOCK, 'a socket'),
    (stat.S_ISCHR, 'a device'),
    (stat.S_ISBLK, 'a device'),
)


@dataclass(frozen=True)
class Source:
    """An image or video file.

    Attributes:
        path: where it lies.
        file_name: its name in the predictions: relative to the folder that was named.
        name: the same without suffix, unlike that of any other source.
    """

    path: Path
    file_name: str
    name: str

    @property
    def is_video(self) -> bool:
        return is_video(self.path)


def is_video(path: Path) -> bool:
    """Whether a file is taken for a video, by its name."""
    return path.suffix.lower() in VIDEOS


def find(arguments: Sequence[str], out: Path) -> list[Source]:
    """The sources that the command line names, images before videos.

    A file has its own name in the output, one of a folder its path below it. Where two would have the same
    name, those have theirs below the folder that all of them lie in, and with the suffix if need be.

    Args:
        arguments: files, folders (searched with all below them, in the order of names) and globs.
        out: folder of the output, which is not searched.

    Raises:
        UserError: one names nothing, or what is no regular file: a pipe would be waited for.
    """
    names_of: dict[Path, str] = {}
    for argument in arguments:
        try:
            matched = _matches(argument, os.path.realpath(out))
        except (OSError, RuntimeError) as error:  # no permission, a name too long, no such user
            raise UserError(f'image {argument} cannot be read: {error}') from error
        for path, name in matched:
            names_of.setdefault(path, name)
    files = apart(names_of)
    names = _names(files)
    sources = [Source(path, files[path], names[path]) for path in files]
    return sorted(sources, key=lambda source: source.is_video)


def apart(names: Mapping[Path, str]) -> dict[Path, str]:
    """The same names, but of files that share one, their paths below the folder that they all lie in."""
    groups: dict[str, list[Path]] = {}
    for path, name in names.items():
        groups.setdefault(name, []).append(path)
    result = {}
    for path, name in names.items():
        group = groups[name]
        if len(group) > 1:
            common = os.path.commonpath([Path(other).absolute().parent for other in group])
            name = os.path.relpath(path.absolute(), common).replace(os.sep, '/')
        result[path] = name
    return result


def _names(files: Mapping[Path, str]) -> dict[Path, str]:
    """Names without suffix, each unlike the others and no folder of another."""
    plain = {path: str(Path(name).with_suffix('')) for path, name in files.items()}
    counts = Counter(plain.values())
    folders = {str(parent) for name in counts for parent in Path(name).parents}
    # the frames of a video are in a folder of its name
    shared = {plain[path] for path in files if is_video(path) and plain[path] in folders}
    clear = {path: name for path, name in plain.items() if counts[name] == 1 and name not in shared}
    taken = set(clear.values())
    names = {}
    for path, name in files.items():
        unique = clear.get(path)
        if unique is None:  # a.jpg and a.png, or the frames of a.mp4 and the images of a/
            base = unique = name.replace('.', '_')
            number = 1
            while unique in taken or unique in folders:
                number += 1
                unique = f'{base}_{number}'
            taken.add(unique)
        names[path] = unique
    return names


def _matches(argument: str, out: str) -> list[tuple[Path, str]]:
    path = Path(argument).expanduser()
    if path.is_file():
        return [(path, path.name)]
    if path.is_dir():
        inside = [p for p in sorted(path.rglob('*')) if p.suffix.lower() in (*IMAGES, *VIDEOS)]
        inside = [p for p in inside if Path(out) not in Path(os.path.realpath(p)).parents]
        files = [(p, p.relative_to(path).as_posix()) for p in _regular(inside)]
        if not files:
            raise UserError(
                f'folder {path}: no images or videos in it (looked for {", ".join((*IMAGES, *VIDEOS))})'
            )
        return files
    if (kind := kind_of(path)) is not None:
        raise UserError(f'image {argument} is {kind}, no image file')
    matched = [(p, p.name) for p in _regular([Path(p) for p in sorted(glob.glob(str(path), recursive=True))])]  # noqa: PTH207
    if matched:
        return matched
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, 1)
    hint = f'; did you mean {path.parent / near[0]}?' if near else ''
    raise UserError(f'image {argument} does not exist (looked for {path.absolute()}){hint}')


def _regular(paths: Sequence[Path]) -> list[Path]:
    """The regular files; a line names those that are neither files nor folders."""
    kinds = {path: kind for path in paths if (kind := kind_of(path)) is not None}
    if kinds:
        first, more = next(iter(kinds)), len(kinds) - 1
        others = f', and {more} more files of that sort' if more else ''
        terminal.warn(f'left out: {first} is {kinds[first]}, no image file{others}')
    return [path for path in paths if path.is_file()]


def kind_of(path: Path) -> str | None:
    """What is there instead of a file or a folder, in words; None if one of these is, or nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return 'a broken link' if path.is_symlink() else None
    return next((name for is_kind, name in KINDS if is_kind(mode)), None)


@dataclass(frozen=True)
class Video:
    """An open video.

    Attributes:
        fps: frames a second.
        frames: how many it says it has; None if it does not say.
    """

    capture: cv2.VideoCapture
    fps: float
    frames: int | None

    def __iter__(self) -> Iterator[np.ndarray]:
        """Its frames, (H, W, 3) uint8 BGR."""
        while True:
            read, frame = self.capture.read()
            if not read:
                self.capture.release()
                return
            yield frame


def open_video(path: Path) -> Video:
    """Open a video file.

    Raises:
        UserError: OpenCV cannot decode it.
    """
    if not takes_name(path):
        raise UserError(f'video {path} cannot be read: its name is no UTF-8, which OpenCV needs')
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f'video {path} cannot be read: it is damaged, or OpenCV lacks its codec')
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Video(capture, capture.get(cv2.CAP_PROP_FPS) or 25.0, frames if frames > 0 else None)


def takes_name(path: Path) -> bool:
    """Whether OpenCV can be given the name of a video: of bytes that are no UTF-8, it ends the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
