"""A failure to load a sample is one line. Another sample takes the place of a bad one.

A sample is made by a pipeline of the hosts, in a worker or in the main process. Its errors seldom say which
file they are about. So the file is looked up in the data set, opened once more, and named.
"""

import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from swin_dense.errors import UserError
from swin_dense.formats import label_maps
from swin_dense.formats.decoding import damage_lines, find_damage
from swin_dense.formats.images import BadImageError, probe
from swin_dense.formats.pixels import read_stored

KINDS = {'img_path': 'image', 'seg_map_path': 'label map'}  # of the files of a sample, by mmengine's keys
LEFT_OUT = 'bad_images.txt'  # in the folder of a run
TRIES = 100  # images that may stand in for one: more bad ones in a row are no accident


def files(dataset: Any, index: int) -> dict[str, str]:  # noqa: ANN401
    """The files of a sample by mmengine's key, ``img_path`` and ``seg_map_path``; empty if it tells none.

    Args:
        dataset: of the hosts, in any of their wrappers, or in one that keeps it as ``_dataset``. Of a
            mixture (Mosaic) the first image is meant.
        index: of the sample.
    """
    inner, place = _innermost(dataset, index)
    try:
        sample = inner.get_data_info(place)
    except (AttributeError, IndexError, KeyError, TypeError):
        return {}
    return _paths(sample)


def file_names(dataset: Any, index: int) -> list[str]:  # noqa: ANN401
    """The files of a sample: its image and, where there is one, its label map."""
    return list(files(dataset, index).values())


def load_sample(dataset: Any, index: int) -> Any:  # noqa: ANN401
    """``dataset[index]``, with an error of one line.

    Args:
        dataset, index: as of ``files``.

    Raises:
        UserError: as of ``sample_error``; or pixels are damaged, of which the hosts see nothing.
    """
    try:
        with damage_lines() as lines:
            sample = dataset[index]
    except Exception as error:
        raise sample_error(dataset, index, error) from error
    if lines:
        raise _damaged(files(dataset, index), index, lines[0])
    return sample


def sample_error(dataset: Any, index: int, error: Exception) -> UserError:  # noqa: ANN401
    """One line for what ``dataset[index]`` raised: the image file, and why.

    The files of the sample are opened again: what is wrong with one of them is the reason. If nothing is,
    the error itself is, with the step of the pipeline that raised it.

    Args:
        dataset, index: as of ``files``.
        error: what was raised, with its traceback.
    """
    if isinstance(error, UserError):
        return error
    frames = _frames(error)
    # what was loaded when it failed: of a mixture, or after another draw, that is not sample ``index``
    paths = _loading(frames) or files(dataset, index)
    named = ' with '.join(f'{KINDS[key]} {path}' for key, path in paths.items()) or f'sample {index}'
    for key, path in paths.items():
        if reason := _reason(key, Path(path)):
            return UserError(f'{KINDS[key]} {path}: {reason}')
    if reason := _sizes_differ(paths):
        return UserError(f'{named}: {reason}')
    step = _step(frames)
    where = f', in the pipeline step {step}' if step else ''
    if isinstance(error, MemoryError):
        return UserError(f'{named}: there is not enough memory for it{where}')
    text = ' '.join(str(error.err if isinstance(error, cv2.error) else error).split())
    return UserError(f'{named}: {type(error).__name__}: {text}{where}')


def stand_ins(seed: int, turn: int, index: int, length: int) -> Iterator[int]:
    """Which samples to try in place of a bad one: ``TRIES`` at most, none twice, the same each time.

    Args:
        seed: of the run.
        turn: the pass over the data.
        index: of the bad sample.
        length: of the data set.
    """
    rng = np.random.default_rng((seed, turn, index))
    tried = {index}
    for _ in range(min(TRIES, length - 1)):
        chosen = int(rng.integers(length))
        while chosen in tried:
            chosen = (chosen + 1) % length
        tried.add(chosen)
        yield chosen


class LeftOut:
    """The images that a run went on without, as a text file to which every process appends.

    A line is written whole, so that processes of any number, forked or started afresh, need no lock, and what
    one has seen outlives it.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEFT_OUT
        self._known: set[str] = set()

    def begin(self) -> None:
        """Forget those of an earlier run in the folder: for the main process of a new run alone."""
        self.path.unlink(missing_ok=True)

    def add(self, error: UserError) -> None:
        """Note a bad image, once a process.

        Args:
            error: as of ``sample_error``.

        Raises:
            OSError: the file cannot be written.
        """
        line = ' '.join(str(error).split()).encode('utf-8', 'backslashreplace').decode()
        if line in self._known:
            return
        self._known.add(line)
        with self.path.open('ab', buffering=0) as file:
            file.write(f'{line}\n'.encode())

    def lines(self) -> list[str]:
        """The problem of each bad image, in the order in which the run met them."""
        try:
            text = self.path.read_text(encoding='utf-8')
        except FileNotFoundError:
            return []
        return list(dict.fromkeys(text.splitlines()))

    def summary(self) -> str:
        """``'3 bad images were left out (the first is ...): see FILE'``; empty if there was none."""
        lines = self.lines()
        if not lines:
            return ''
        count = f'{len(lines)} bad images were' if len(lines) > 1 else 'one bad image was'
        return f'{count} left out, listed in {self.path}: {lines[0]}' + (', ...' if len(lines) > 1 else '')


def _damaged(paths: dict[str, str], index: int, line: str) -> UserError:
    """The message of a library about a sample that it could load."""
    for key, path in paths.items():
        if reason := _reason(key, Path(path)):
            return UserError(f'{KINDS[key]} {path}: {reason}')
    named = f'image {paths["img_path"]}' if 'img_path' in paths else f'sample {index}'
    return UserError(f'{named}, or another that is mixed with it: the pixels are damaged ({line})')


def _innermost(dataset: Any, index: int) -> tuple[Any, int]:  # noqa: ANN401
    """The data set inside all wrappers, and the place of a sample in it."""
    while True:
        own = vars(dataset) if hasattr(dataset, '__dict__') else {}
        if hasattr(type(dataset), '_get_ori_dataset_idx'):
            place = dataset._get_ori_dataset_idx(index)
            if isinstance(place, tuple):  # ConcatDataset
                number, index = place
                dataset = own['datasets'][number]
                continue
            index = place  # RepeatDataset, ClassBalancedDataset
        inner = own.get('_dataset', own.get('dataset'))
        if inner is None:
            return dataset, int(index)
        dataset = inner


def _paths(sample: object) -> dict[str, str]:
    if not isinstance(sample, dict):
        return {}
    # a panoptic PNG is no label map: its own loading step names it
    keys = ('img_path',) if 'segments_info' in sample else tuple(KINDS)
    return {key: str(sample[key]) for key in keys if isinstance(sample.get(key), (str, Path))}


def _frames(error: Exception) -> list[FrameType]:
    """Of the error's traceback, the innermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)][::-1]


def _loading(frames: list[FrameType]) -> dict[str, str]:
    """The files of the sample that a step had in hand."""
    for frame in frames:
        if isinstance(frame.f_locals.get('self'), BaseTransform):
            for value in frame.f_locals.values():
                if paths := _paths(value):
                    return paths
    return {}


def _step(frames: list[FrameType]) -> str:
    """The name of the innermost pipeline step, empty if there is none."""
    steps = (type(frame.f_locals.get('self')) for frame in frames)
    reader = next((step for step in steps if inspect.isclass(step) and issubclass(step, BaseTransform)), None)
    return reader.__name__ if reader else ''


def _reason(key: str, path: Path) -> str:
    """The problem of one file; empty if there is none."""
    if key == 'seg_map_path':
        try:
            label_maps.read_labels(path)
        except BadImageError as error:
            return str(error)
        return ''
    damage = find_damage([path], read_stored)
    return damage[0].text if damage and damage[0].grave else ''


def _sizes_differ(paths: dict[str, str]) -> str:
    if len(paths) < len(KINDS):
        return ''
    try:
        image, label = (probe(Path(paths[key])).shown_size for key in KINDS)
    except BadImageError as error:
        return str(error)
    if image == label:
        return ''
    return f'the image is {image[0]} x {image[1]}, the label map {label[0]} x {label[1]}'
