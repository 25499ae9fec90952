"""The output folder of a prediction run: pictures, videos, and the files of the task."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from swin_dense.formats.saving import save_image
from swin_dense.predict.journal import Journal
from swin_dense.predict.sources import Source
from swin_dense.predict.video_file import VideoFile
from swin_dense.tasks.task import Output, Prediction


class Results:
    """The results of a run, on the disk as soon as they are there.

    Args:
        out: the folder.
        output: writes the files of the task.
        journal: remembers what is done.
    """

    def __init__(self, out: Path, output: Output, journal: Journal) -> None:
        self.journal = journal
        self._pictures, self._output = out / 'pictures', output

    def has(self, source: Source) -> bool:
        """Whether all of an image or a video is there, of this run or an earlier one."""
        files = [self._picture(source), *self._output.files(source.name, source.is_video)]
        return self.journal.has(source) and all(path.exists() for path in files)

    def count(self, sources: Sequence[Source]) -> int:
        """How many images and videos are there."""
        return sum(map(self.has, sources))

    def add(self, source: Source, image: np.ndarray, prediction: Prediction) -> None:
        """Write what was predicted for an image, (H, W, C) as its pipeline loads it."""
        kept = self._output.keep(prediction)
        record = self._output.write(source.name, kept)
        picture = self._output.picture(displayed(image), kept, False)
        save_image(self._picture(source), picture[..., ::-1])
        self.journal.add(source, None, record or {})  # last: now all is there

    @contextmanager
    def video(self, source: Source, fps: float) -> Iterator['Frames']:
        """What writes the frames of a video; the video is there when the block ends without an error."""
        with VideoFile(self._picture(source), fps) as file:
            frames = Frames(source, self._output, self.journal, file)
            yield frames
        if frames.count:
            self.journal.end(source, frames.count)

    def finish(self, sources: Sequence[Source]) -> str:
        """Write the files about all sources, in their order; those without results are left out.

        Returns:
            The files, for a person.

        Raises:
            DiskFullError: there is no space; the journal and the files that were there stay as they are.
            UserError: a file cannot be written for another reason.
        """
        records = ((source.file_name, line) for source in sources for line in self.journal.read(source))
        written = self._output.finish(records)
        self.journal.remove()
        return written

    def _picture(self, source: Source) -> Path:
        return self._pictures / f'{source.name}{".mp4" if source.is_video else ".jpg"}'


class Frames:
    """The frames of one video.

    Attributes:
        count: how many have been written.
    """

    def __init__(self, source: Source, output: Output, journal: Journal, file: VideoFile) -> None:
        self.count = 0
        self._source, self._output, self._journal, self._file = source, output, journal, file

    def add(self, image: np.ndarray, prediction: Prediction) -> None:
        """Write what was predicted for the next frame, (H, W, 3) BGR."""
        kept = self._output.keep(prediction)
        record = self._output.write(f'{self._source.name}/{self.count:06}', kept)
        if record is not None:
            self._journal.add(self._source, self.count, record)
        picture = self._output.picture(displayed(image), kept, True)
        self._file.add(np.ascontiguousarray(picture[..., ::-1]))
        self.count += 1


def displayed(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image as a pipeline loads it: BGR, or any channels and type."""
    image = image[..., None] if image.ndim == 2 else image
    image = np.ascontiguousarray(image[..., 2::-1]) if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    low, high = (0.0, 255.0) if image.dtype.kind == 'f' and low >= 0 and 1 < high <= 255 else (low, high)
    return cv2.convertScaleAbs(image.astype(np.float32) - low, alpha=255 / max(high - low, 1e-6))
