"""Predict for every file that a command line names, and write the predictions."""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import filelock
import numpy as np
from mmengine.config import Config

from swin_dense import tasks
from swin_dense.console import terminal
from swin_dense.console.progress import track
from swin_dense.console.stopping import Stopped, Watch
from swin_dense.errors import UserError
from swin_dense.formats.predictions import Predicted
from swin_dense.predict.journal import Journal, identity
from swin_dense.predict.predictor import Predictor
from swin_dense.predict.results import Results
from swin_dense.predict.sources import Source, open_video
from swin_dense.tasks.task import Wanted
from swin_dense.tiling.tiles import starts, untracked

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

    The results are kept as they come: the same call after an interruption goes on with the rest, and leaves
    the same files as a call that was not interrupted.

    Args:
        predictor: the model.
        sources: images and videos.
        out: folder.
        settings: the choice of the predictions, and how they are made.
        annotations: a COCO file whose ids the predictions get.
        weights: tells this model from others, see ``weights_key``.
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
    output = tasks.named(predictor.task).output(_wanted(predictor, sources, out, settings, annotations))
    key = {**weights, 'classes': list(predictor.classes), 'settings': asdict(settings)}
    with _alone(out), closing(Journal(out, key, len(predictor.classes))) as journal:
        results = Results(out, output, journal)
        _say_what_is_done(results, sources)
        job = _Job(predictor, settings, results, watch)
        try:
            _predict_images(job, [source for source in sources if not source.is_video])
            for source in sources:
                if source.is_video and not results.has(source):
                    _predict_video(job, source)
        except Stopped as stopped:
            kept = f'{results.count(sources)} of {len(sources)} files are done and kept in {out}'
            raise stopped.error(f'{kept}; the same command goes on from there') from None
        terminal.say(f'{out}: pictures, {results.finish(sources)}')
    if job.unreadable:
        raise UserError(f'{len(job.unreadable)} of {len(sources)} files could not be read: see above')


@dataclass
class _Job:
    """What is common to all images of a run."""

    predictor: Predictor
    settings: Settings
    results: Results
    watch: Watch
    unreadable: list[Source] = field(default_factory=list)

    def leave_out(self, source: Source, error: UserError) -> None:
        self.unreadable.append(source)
        terminal.say(f'left out: {" ".join(str(error).split())}')


def _predict_images(job: _Job, sources: Sequence[Source]) -> None:
    # always the same images together: a run that goes on computes what an uninterrupted one does
    size = 1 if job.settings.tile is not None else job.settings.batch
    for batch in _batches(track(sources, len(sources), 'images'), size):
        job.watch.check()
        images = _read(job, batch)
        predictions = _predict(job, list(images.values()), f'{batch[0].file_name}: tiles')
        for (source, image), prediction in zip(images.items(), predictions, strict=True):
            if not job.results.has(source):
                job.results.add(source, image, prediction)


def _predict_video(job: _Job, source: Source) -> None:
    try:
        video = open_video(source.path)
    except UserError as error:
        job.leave_out(source, error)
        return
    if job.predictor.channels != 3:
        raise UserError(f'video {source.path}: the model takes images of {job.predictor.channels} channels')
    with job.results.video(source, video.fps) as frames:
        for batch in _batches(track(video, video.frames, source.file_name), job.settings.batch):
            job.watch.check()
            for image, prediction in zip(batch, _predict(job, batch), strict=True):
                frames.add(image, prediction)
    if not frames.count:
        job.leave_out(source, UserError(f'video {source.path} has no frames that can be read'))
    elif video.frames is not None and frames.count < video.frames:
        terminal.say(f'video {source.path}: {frames.count} of the {video.frames} frames that it announces')


def _read(job: _Job, batch: Sequence[Source]) -> dict[Source, np.ndarray]:
    """The images of a batch, without those that cannot be read; none if all the others are done."""
    images: dict[Source, np.ndarray] = {}
    left = [source for source in batch if not job.results.has(source)]
    # the ones that are done are predicted again beside the others, if there are any
    for source in (*left, *(source for source in batch if source not in left)):
        if source not in left and not images:
            return {}
        try:
            images[source] = job.predictor.read(source.path)
        except UserError as error:
            job.leave_out(source, error)
    return {source: images[source] for source in batch if source in images}


def _predict(job: _Job, images: Sequence[np.ndarray], tiles: str | None = None) -> Sequence[Predicted]:
    """The predictions for images; ``tiles`` is the name of the bar that counts them."""
    settings = job.settings
    if settings.tile is None:
        return job.predictor.predict(images) if images else []
    shown = untracked if tiles is None else lambda items, total: track(items, total, tiles)
    return [
        job.predictor.predict_tiled(image, settings.tile, settings.overlap, settings.batch, shown)
        for image in images
    ]


def _wanted(
    predictor: Predictor, sources: Sequence[Source], out: Path, settings: Settings, ids: Path | None
) -> Wanted:
    names, has_video = [source.file_name for source in sources], any(source.is_video for source in sources)
    zero_is_unlabelled = predictor.reduces_zero_label
    return Wanted(
        out,
        predictor.classes,
        settings.score,
        settings.labels,
        zero_is_unlabelled,
        ids,
        names,
        has_video,
    )


def _say_what_is_done(results: Results, sources: Sequence[Source]) -> None:
    """Say what an interrupted run has left."""
    if results.journal.note:
        terminal.say(results.journal.note)
    if taken := results.count(sources):
        terminal.say(f'{results.journal.path}: {taken} of {len(sources)} files are done, and taken over')


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


def _batches(items: Iterable, size: int) -> Iterator[list]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
