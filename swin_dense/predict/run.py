"""Predict for everything that a command line names, and write what was found."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from swin_dense.errors import UserError
from swin_dense.predict import output
from swin_dense.predict.predictor import Predictor
from swin_dense.predict.results import Instances, LabelMap
from swin_dense.predict.sources import Source, Video, open_video
from swin_dense.report import terminal
from swin_dense.report.overlays import LISTED, picture
from swin_dense.report.pictures import SCORE
from swin_dense.report.progress import track


@dataclass(frozen=True)
class Settings:
    """What is kept, and how it is predicted.

    Attributes:
        score: least score of an object; None keeps all and draws those from 0.5.
        labels: classes that are kept; None for all.
        batch: images, frames or tiles predicted together.
        tile: side of the tiles in pixels; None for whole images.
        overlap: fraction of a tile that neighbours share.
    """

    score: float | None = None
    labels: Sequence[int] | None = None
    batch: int = 1
    tile: int | None = None
    overlap: float = 0.25


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The labels of class names.

    Raises:
        UserError: a name is no class; the message has the nearest.
    """
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise UserError(
                f'--classes: {name!r} is none of the {len(classes)} classes of the checkpoint{hint}'
            )
    return [classes.index(name) for name in names]


def predict_all(
    predictor: Predictor, sources: Sequence[Source], out: Path, settings: Settings, annotations: Path | None
) -> None:
    """Write pictures and predictions of all sources into ``out``.

    Args:
        predictor: the model.
        sources: images and videos.
        out: folder.
        settings: what is kept.
        annotations: a COCO file whose ids the predictions get.

    Raises:
        UserError: at the end, if some could not be read; the rest has been written.
    """
    if settings.batch < 1:
        raise UserError(f'--batch {settings.batch}: at least one image')
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--out {out} cannot be made: {error.strerror}') from error
    numbers = output.ids(sources, predictor.classes, annotations)
    job = _Job(predictor, out, settings, output.Predictions(numbers, predictor.classes))
    job.images([source for source in sources if not source.is_video])
    for source in sources:
        if source.is_video:
            job.video(source)
    job.finish(len(sources))


class _Job:
    def __init__(
        self, predictor: Predictor, out: Path, settings: Settings, predictions: output.Predictions
    ) -> None:
        self.predictor, self.out, self.settings, self.predictions = predictor, out, settings, predictions
        self.unreadable: list[Source] = []

    def images(self, sources: Sequence[Source]) -> None:
        if self.settings.tile is not None:
            for source in sources:
                for _, image in self._read([source]):
                    self._write(source, image, self._tiled(image, f'{source.file_name}: tiles'))
            return
        for batch in _batches(self._read(track(sources, len(sources), 'images')), self.settings.batch):
            found = self.predictor.predict([image for _, image in batch])
            for (source, image), result in zip(batch, found, strict=True):
                self._write(source, image, result)

    def video(self, source: Source) -> None:
        try:
            video = open_video(source.path)
        except UserError as error:
            self._skip(source, error)
            return
        if self.predictor.channels != 3:
            raise UserError(
                f'video {source.path}: the model takes images of {self.predictor.channels} channels'
            )
        written = output.VideoFile(self.out / 'pictures' / f'{source.name}.mp4', video.fps)
        done = 0
        for batch in _batches(track(video, video.frames, source.file_name), self.settings.batch):
            for frame, result in zip(batch, self._predict(batch), strict=True):
                written.add(self._write_frame(source, done, frame, result))
                done += 1
        written.close()
        self._check_length(source, video, done)

    def finish(self, total: int) -> None:
        if self.predictor.task == 'detection':
            self.predictions.save(self.out)
            kept = f'{len(self.predictions.results)} objects in predictions.json, images.json'
        else:
            kept = 'label_maps'
        terminal.say(f'{self.out}: pictures, {kept}')
        if self.unreadable:
            raise UserError(f'{len(self.unreadable)} of {total} files could not be read: see above')

    def _read(self, sources: Iterable[Source]) -> Iterator[tuple[Source, np.ndarray]]:
        for source in sources:
            try:
                yield source, self.predictor.read(source.path)
            except UserError as error:
                self._skip(source, error)

    def _skip(self, source: Source, error: UserError) -> None:
        self.unreadable.append(source)
        terminal.say(f'left out: {" ".join(str(error).split())}')

    def _check_length(self, source: Source, video: Video, done: int) -> None:
        if not done:
            self._skip(source, UserError(f'video {source.path} has no frames that can be read'))
        elif video.frames is not None and done < video.frames:
            terminal.say(f'video {source.path}: {done} of the {video.frames} frames that it announces')

    def _predict(self, images: Sequence[np.ndarray]) -> list[Instances | LabelMap]:
        if self.settings.tile is None:
            return self.predictor.predict(images)
        return [self._tiled(image, None) for image in images]

    def _tiled(self, image: np.ndarray, name: str | None) -> Instances | LabelMap:
        settings = self.settings
        shown = [] if name is None else [lambda tiles, total: track(tiles, total, name)]
        return self.predictor.predict_tiled(image, settings.tile, settings.overlap, settings.batch, *shown)

    def _kept(self, result: Instances | LabelMap) -> Instances | LabelMap:
        if self.settings.labels is not None:
            result = result.only(self.settings.labels)
        if isinstance(result, Instances) and self.settings.score is not None:
            result = result.above(self.settings.score)
        return result

    def _write(self, source: Source, image: np.ndarray, result: Instances | LabelMap) -> None:
        kept = self._kept(result)
        self._save(kept, source, source.name, None)
        drawn = picture(displayed(image), self._drawn(kept))
        output.save_image(self.out / 'pictures' / f'{source.name}.jpg', drawn[..., ::-1])

    def _write_frame(
        self, source: Source, number: int, frame: np.ndarray, result: Instances | LabelMap
    ) -> np.ndarray:
        """Save a frame's predictions; returns its picture, BGR."""
        kept = self._kept(result)
        self._save(kept, source, f'{source.name}/{number:06}', number)
        # all frames have one size, and so a legend that does not change; objects are named where they are
        shown = self.settings.labels or range(len(kept.classes))
        legend = list(shown)[:LISTED] if isinstance(kept, LabelMap) else []
        return np.ascontiguousarray(picture(displayed(frame), self._drawn(kept), legend)[..., ::-1])

    def _save(self, kept: Instances | LabelMap, source: Source, name: str, frame: int | None) -> None:
        if isinstance(kept, LabelMap):
            path = self.out / 'label_maps' / f'{name}.png'
            output.save_labels(path, kept, self.predictor.reduces_zero_label)
        else:
            self.predictions.add(kept, source, frame)

    def _drawn(self, kept: Instances | LabelMap) -> Instances | LabelMap:
        below = isinstance(kept, Instances) and self.settings.score is None
        return kept.above(SCORE) if below else kept


def displayed(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image as a pipeline loads it: BGR, or any channels and type."""
    image = image[..., None] if image.ndim == 2 else image
    image = np.ascontiguousarray(image[..., 2::-1]) if image.shape[2] >= 3 else image[..., [0, 0, 0]]
    if image.dtype == np.uint8:
        return image
    low, high = float(image.min()), float(image.max())
    low, high = (0.0, 255.0) if image.dtype.kind == 'f' and low >= 0 and 1 < high <= 255 else (low, high)
    return cv2.convertScaleAbs(image.astype(np.float32) - low, alpha=255 / max(high - low, 1e-6))


def _batches(items: Iterable, size: int) -> Iterator[list]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
