"""Predict for everything that a command line names, and write what was found."""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import filelock
import numpy as np
from mmengine.config import Config

from swin_dense.console import terminal
from swin_dense.console.progress import track
from swin_dense.drawing.overlays import LISTED, picture
from swin_dense.drawing.pictures import SCORE
from swin_dense.errors import UserError
from swin_dense.formats.predictions import Instances, LabelMap
from swin_dense.predict import output
from swin_dense.predict.journal import Journal, identity
from swin_dense.predict.predictor import Predictor
from swin_dense.predict.sources import Source, Video, open_video
from swin_dense.predict.stopping import Stopped, Watch
from swin_dense.predict.tiles import starts

LOCK = '.predictions.lock'


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
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path,
    settings: Settings,
    annotations: Path | None,
    weights: Mapping[str, object],
    watch: Watch,
) -> None:
    """Write pictures and predictions of all sources into ``out``.

    What is done is kept as it is done (``journal.Journal``): the same call after an interruption goes on with
    what is left, and leaves what an uninterrupted one would have left.

    Args:
        predictor: the model.
        sources: images and videos.
        out: folder.
        settings: what is kept.
        annotations: a COCO file whose ids the predictions get.
        weights: what tells this model from others, see ``weights_key``.
        watch: of the signals.

    Raises:
        UserError: at the end, if some could not be read; the rest has been written. Before, if another
            process is writing into ``out``.
        DiskFullError: there is no space; what is done is kept.
        StoppedError: a signal came; what is done is kept.
    """
    if settings.batch < 1:
        raise UserError(f'--batch {settings.batch}: at least one image')
    if settings.tile is not None:
        starts(1, settings.tile, settings.overlap)  # raises where no grid has such tiles
    numbers = output.ids(sources, predictor.classes, annotations)
    key = {**weights, 'classes': list(predictor.classes), 'settings': asdict(settings)}
    with _alone(out):
        done = Journal(out, key, len(predictor.classes))
        job = _Job(predictor, out, settings, done, watch)
        try:
            job.begin(sources)
            job.images([source for source in sources if not source.is_video])
            for source in sources:
                if source.is_video:
                    job.video(source)
            job.finish(sources, numbers)
        except Stopped as stopped:
            kept = f'{job.count(sources)} of {len(sources)} files are done and kept in {out}'
            raise stopped.error(f'{kept}; the same command goes on from there') from None
        finally:
            done.close()


def weights_key(checkpoint: Path, config: Config | None) -> dict[str, object]:
    """What tells a model from others: size and time of its file, and the config that it is built from.

    Args:
        checkpoint: the file.
        config: None for the checkpoint's own.
    """
    text = None if config is None else repr(config.to_dict())
    digest = None if text is None else hashlib.sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()
    return {'checkpoint': identity(checkpoint), 'config': digest}


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes from predicting into the same folder."""
    lock, is_new = filelock.FileLock(out / LOCK, timeout=0), not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with suppress(NotImplementedError):  # a file system without locks
            lock.acquire()
    except filelock.Timeout as error:
        raise UserError(f'--out {out}: another process is predicting into it; give another folder') from error
    except OSError as error:
        raise UserError(f'--out {out} cannot be written: {error.strerror or error}') from error
    try:
        yield
    finally:
        with suppress(OSError):
            (out / LOCK).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it holds something
                out.rmdir()


class _Job:
    def __init__(
        self, predictor: Predictor, out: Path, settings: Settings, done: Journal, watch: Watch
    ) -> None:
        self.predictor, self.out, self.settings, self.done, self.watch = predictor, out, settings, done, watch
        self.unreadable: list[Source] = []

    def begin(self, sources: Sequence[Source]) -> None:
        """Say what an interrupted run has left."""
        if self.done.note:
            terminal.say(self.done.note)
        if taken := self.count(sources):
            terminal.say(f'{self.done.path}: {taken} of {len(sources)} files are done, and taken over')

    def count(self, sources: Sequence[Source]) -> int:
        """How many images and videos are done."""
        return sum(map(self._is_done, sources))

    def images(self, sources: Sequence[Source]) -> None:
        # always the same images together, so that a run that goes on computes what one in one piece does
        size = 1 if self.settings.tile is not None else self.settings.batch
        for batch in _batches(track(sources, len(sources), 'images'), size):
            self.watch.check()
            self._images(batch)

    def _images(self, batch: Sequence[Source]) -> None:
        left = [source for source in batch if not self._is_done(source)]
        images = {source: self._read(source) for source in left}
        if all(image is None for image in images.values()):
            return
        images |= {source: self._read(source) for source in batch if source not in images}
        shown = [(source, images[source]) for source in batch if images[source] is not None]
        if self.settings.tile is not None:
            found = [self._tiled(image, f'{source.file_name}: tiles') for source, image in shown]
        else:
            found = self.predictor.predict([image for _, image in shown])
        for (source, image), result in zip(shown, found, strict=True):
            if source in left:
                self._write(source, image, result)

    def video(self, source: Source) -> None:
        if self._is_done(source):
            return
        try:
            video = open_video(source.path)
        except UserError as error:
            self._skip(source, error)
            return
        if self.predictor.channels != 3:
            raise UserError(
                f'video {source.path}: the model takes images of {self.predictor.channels} channels'
            )
        done = 0
        with output.VideoFile(self.out / 'pictures' / f'{source.name}.mp4', video.fps) as written:
            for batch in _batches(track(video, video.frames, source.file_name), self.settings.batch):
                self.watch.check()
                for frame, result in zip(batch, self._predict(batch), strict=True):
                    written.add(self._write_frame(source, done, frame, result))
                    done += 1
        if done:
            self.done.end(source, done)
        self._check_length(source, video, done)

    def finish(self, sources: Sequence[Source], numbers: output.Ids) -> None:
        if self.predictor.task == 'detection':
            count = output.save(self.out, sources, self.done, numbers, self.predictor.classes)
            kept = f'{count} objects in predictions.json, images.json'
        else:
            kept = 'label_maps'
        self.done.remove()
        terminal.say(f'{self.out}: pictures, {kept}')
        if self.unreadable:
            raise UserError(f'{len(self.unreadable)} of {len(sources)} files could not be read: see above')

    def _is_done(self, source: Source) -> bool:
        """Whether an earlier run has left all of it."""
        suffix = '.mp4' if source.is_video else '.jpg'
        left = [self.out / 'pictures' / f'{source.name}{suffix}']
        if self.predictor.task == 'segmentation':
            left.append(self.out / 'label_maps' / (source.name if source.is_video else f'{source.name}.png'))
        return self.done.has(source) and all(path.exists() for path in left)

    def _read(self, source: Source) -> np.ndarray | None:
        try:
            return self.predictor.read(source.path)
        except UserError as error:
            self._skip(source, error)
            return None

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
        self._save_labels(kept, source.name)
        drawn = picture(displayed(image), self._drawn(kept))
        output.save_image(self.out / 'pictures' / f'{source.name}.jpg', drawn[..., ::-1])
        self.done.add(source, None, kept if isinstance(kept, Instances) else None)  # last: now all is there

    def _write_frame(
        self, source: Source, number: int, frame: np.ndarray, result: Instances | LabelMap
    ) -> np.ndarray:
        """Save a frame's predictions; returns its picture, BGR."""
        kept = self._kept(result)
        self._save_labels(kept, f'{source.name}/{number:06}')
        if isinstance(kept, Instances):
            self.done.add(source, number, kept)
        # all frames have one size, and so a legend that does not change; objects are named where they are
        shown = self.settings.labels or range(len(kept.classes))
        legend = list(shown)[:LISTED] if isinstance(kept, LabelMap) else []
        return np.ascontiguousarray(picture(displayed(frame), self._drawn(kept), legend)[..., ::-1])

    def _save_labels(self, kept: Instances | LabelMap, name: str) -> None:
        if isinstance(kept, LabelMap):
            path = self.out / 'label_maps' / f'{name}.png'
            output.save_labels(path, kept, self.predictor.reduces_zero_label)

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
