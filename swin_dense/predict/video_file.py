"""A video file that appears when it is whole."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from swin_dense.errors import DiskFullError, UserError
from swin_dense.predict.sources import takes_name
from swin_dense.storage.atomic import PARTIAL, replacing

ENOUGH = 2**20  # bytes free below which a video that is not whole is put down to the disk


class VideoFile:
    """A video that is written frame by frame, MPEG-4; it appears under its name when it is whole.

    A context manager: if its block ends with an error, nothing is left.

    Args:
        path: ends in ``.mp4``.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps = path, fps
        self.frames = 0
        # OpenCV tells the format by the name; so a folder has the suffix of what is being written
        self._folder = path.with_name(f'{path.name}.frames{PARTIAL}')
        self._part = self._folder / 'video.mp4'
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> 'VideoFile':
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            if kind is None and self._writer is not None:
                self._close(self._writer)
        finally:
            if self._writer is not None:
                self._writer.release()
                shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) BGR; all have the same size.

        Raises:
            DiskFullError: there is no space.
            UserError: OpenCV cannot write it.
        """
        if self._writer is None:
            self._writer = self._begin(frame.shape[1::-1])
        self._writer.write(frame)
        self.frames += 1
        if not shutil.disk_usage(self._folder).free:  # OpenCV does not say so
            raise DiskFullError(self.path, self._part.stat().st_size, 0)

    def _begin(self, size: tuple[int, ...]) -> cv2.VideoWriter:
        try:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f'video {self.path} cannot be written: {error.strerror}') from error
        if takes_name(self._part):
            code = cv2.VideoWriter.fourcc(*'mp4v')
            writer = cv2.VideoWriter(str(self._part), code, self.fps, size)
            if writer.isOpened():
                return writer
        shutil.rmtree(self._folder, ignore_errors=True)
        raise UserError(f'video {self.path} cannot be written')

    def _close(self, writer: cv2.VideoWriter) -> None:
        writer.release()
        written = cv2.VideoCapture(str(self._part))
        whole = written.isOpened() and written.get(cv2.CAP_PROP_FRAME_COUNT) >= self.frames
        written.release()
        free = shutil.disk_usage(self._folder).free
        if not whole and free < ENOUGH:
            raise DiskFullError(self.path, self._part.stat().st_size, free)
        if not whole:
            raise UserError(f'video {self.path} cannot be written: OpenCV has not written all its frames')
        with replacing(self.path) as partial:
            self._part.replace(partial)
