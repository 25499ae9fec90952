"""What is predicted: image files, folders, globs and videos, under names for the output."""

import difflib
import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from swin_dense.errors import UserError

IMAGES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp', '.jp2', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


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
        return self.path.suffix.lower() in VIDEOS


def find(arguments: Sequence[str], out: Path) -> list[Source]:
    """The sources that the command line names, images before videos.

    Args:
        arguments: files, folders (searched with all below them, in the order of names) and globs.
        out: folder of the output, which is not searched.

    Raises:
        UserError: one names nothing.
    """
    found: dict[Path, str] = {}
    for argument in arguments:
        for path, name in _matches(argument, out.resolve()):
            found.setdefault(path, name)
    plain = {path: str(Path(name).with_suffix('')) for path, name in found.items()}
    counts, seen = Counter(plain.values()), Counter()
    sources = []
    for path, name in found.items():
        unique = plain[path]
        if counts[unique] > 1:  # a.jpg and a.png, or two folders' a.jpg
            unique = name.replace('.', '_')
            seen[unique] += 1
            unique += f'_{seen[unique]}' if seen[unique] > 1 else ''
        sources.append(Source(path, name, unique))
    return sorted(sources, key=lambda source: source.is_video)


def _matches(argument: str, out: Path) -> list[tuple[Path, str]]:
    path = Path(argument).expanduser()
    if path.is_file():
        return [(path, path.name)]
    if path.is_dir():
        inside = (
            p for p in sorted(path.rglob('*')) if p.suffix.lower() in (*IMAGES, *VIDEOS) and p.is_file()
        )
        found = [(p, p.relative_to(path).as_posix()) for p in inside if out not in p.resolve().parents]
        if not found:
            raise UserError(
                f'folder {path}: no images or videos in it (looked for {", ".join((*IMAGES, *VIDEOS))})'
            )
        return found
    matched = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())  # noqa: PTH207
    if matched:
        return [(Path(p), Path(p).name) for p in matched]
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, 1)
    hint = f'; did you mean {path.parent / near[0]}?' if near else ''
    raise UserError(f'image {argument} does not exist (looked for {path.absolute()}){hint}')


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
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f'video {path} cannot be read: it is damaged, or OpenCV lacks its codec')
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return Video(capture, capture.get(cv2.CAP_PROP_FPS) or 25.0, frames if frames > 0 else None)
