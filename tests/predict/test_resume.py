"""Predictions survive a kill, Ctrl-C and a full disk: the same call goes on where it stopped."""

import errno
import io
import itertools
import json
import os
import shutil
import signal
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import filelock
import numpy as np
import pytest
from rich.console import Console

from swin_dense.console import terminal
from swin_dense.console.stopping import watched
from swin_dense.errors import DiskFullError, StoppedError, UserError
from swin_dense.predict import results, run, sources
from swin_dense.predict.journal import NAME, Journal
from swin_dense.tasks import detection_output
from tests.predict.stub import StubPredictor

TASKS = ('detection', 'segmentation')
WEIGHTS = {'checkpoint': [100, 200], 'config': None}
SMALL = 64  # pixels of the images


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on the terminal."""
    buffer = io.StringIO()
    monkeypatch.setattr(terminal, 'console', Console(file=buffer, width=160))
    return buffer


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of six images."""
    random = np.random.default_rng(0)
    folder = tmp_path / 'in'
    folder.mkdir()
    for number in range(6):
        image = random.integers(0, 256, (SMALL, SMALL + number, 3), np.uint8)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    return folder


def predict(
    given: Path | Sequence[Path],
    out: Path,
    predictor: StubPredictor | None = None,
    settings: run.Settings | None = None,
    weights: dict | None = None,
) -> list[int]:
    """What tools/predict.py does with the stub; returns how many images each call of the model had."""
    predictor = predictor or StubPredictor()
    found = sources.find([str(given)] if isinstance(given, Path) else [str(path) for path in given], out)
    with watched('nothing yet') as watch:
        run.predict_all(
            predictor, found, out, settings or run.Settings(), None, weights or WEIGHTS, watch
        )  # fmt: skip
    return predictor.calls


def contents(folder: Path) -> dict[str, bytes]:
    """What every file below a folder holds."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def interrupt(patch: pytest.MonkeyPatch, number: int, name: str = 'SIGINT') -> None:
    """Send a signal in place of the ``number``th picture."""
    save, count = results.save_image, itertools.count(1)

    def stopping(path: Path, image: np.ndarray) -> None:
        if path.parent.name == 'pictures' and next(count) == number:
            os.kill(os.getpid(), getattr(signal, name))
        save(path, image)

    patch.setattr(results, 'save_image', stopping)


def stopped(given: Path, out: Path, number: int, name: str = 'SIGINT', **arguments: object) -> StoppedError:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, number, name)
        with pytest.raises(StoppedError) as caught:
            predict(given, out, **arguments)
    return caught.value


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize(('name', 'status'), [('SIGINT', 130), ('SIGTERM', 143)])
def test_a_signal(task: str, name: str, status: int, images: Path, tmp_path: Path, said: io.StringIO):
    """The same call does the rest, and leaves what one in one piece does, batches of two included."""
    settings, out = run.Settings(batch=2), tmp_path / 'out'
    predict(images, tmp_path / 'whole', StubPredictor(task), settings)
    before = signal.getsignal(getattr(signal, name))
    error = stopped(images, out, 4, name, predictor=StubPredictor(task), settings=settings)
    assert error.status == status
    assert f'3 of 6 files are done and kept in {out}; the same command goes on from there' in str(error)
    assert signal.getsignal(getattr(signal, name)) is before
    assert len(list((out / 'pictures').iterdir())) == 3
    said.truncate(0)
    calls = predict(images, out, StubPredictor(task), settings)
    assert calls == [2, 2], 'the batch that was interrupted, and the one that was not begun'
    assert contents(out) == contents(tmp_path / 'whole')
    assert '3 of 6 files are done, and taken over' in said.getvalue()


def test_a_second_signal_loses_nothing(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    close = Journal.close

    def again(self: Journal) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        close(self)

    predict(images, tmp_path / 'whole')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, 'close', again)
        assert stopped(images, tmp_path / 'out', 4).status == 130
    assert predict(images, tmp_path / 'out') == [1, 1, 1]
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_a_signal_whose_exception_was_lost(images: Path, tmp_path: Path):
    """It came while a destructor ran, say: the next image is not begun."""

    class Deaf(StubPredictor):
        def predict(self, images: Sequence[np.ndarray]) -> list:
            try:
                if len(self.calls) == 2:
                    os.kill(os.getpid(), signal.SIGTERM)
            except BaseException:
                pass
            return super().predict(images)

    deaf = Deaf()
    with pytest.raises(StoppedError, match='3 of 6 files'):
        predict(images, tmp_path / 'out', deaf)
    assert deaf.calls == [1, 1, 1]


def test_what_is_left_out_again(images: Path, tmp_path: Path, said: io.StringIO):
    """A broken image is tried again, and told again; with it in a batch, the batch is not predicted again."""
    (images / '1.png').write_text('no image')
    settings = run.Settings(batch=2)
    stopped(images, tmp_path / 'out', 4, settings=settings)
    said.truncate(0)
    predictor = StubPredictor()
    with pytest.raises(UserError, match='1 of 6 files could not be read'):
        predict(images, tmp_path / 'out', predictor, settings)
    assert predictor.calls == [2]
    assert said.getvalue().count('left out: image') == 1


def whole_journal(given: Path, out: Path, predictor: StubPredictor | None = None) -> bytes:
    """Predict all, and return the journal as it is before its end."""
    kept = []
    remove = Journal.remove

    def keep(self: Journal) -> None:
        kept.append(self.path.read_bytes())
        remove(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, 'remove', keep)
        predict(given, out, predictor)
    return kept[0]


def test_a_journal_cut_anywhere(images: Path, tmp_path: Path):
    """As a kill leaves it: between lines, in a line, in the first line."""
    journal = whole_journal(images, tmp_path / 'whole')
    expected, out = contents(tmp_path / 'whole'), tmp_path / 'out'
    ends = [i + 1 for i, byte in enumerate(journal) if byte == ord('\n')]
    assert len(ends) == 7
    cuts = {0, 20, *ends, *(end + 1 for end in ends[:-1]), *(end - 1 for end in ends)}
    for cut in sorted(cuts):
        shutil.copytree(tmp_path / 'whole', out)
        (out / NAME).write_bytes(journal[:cut])
        (out / 'pictures/5.png.partial').write_bytes(b'half')
        left = 6 - max(0, sum(end <= cut for end in ends) - 1)
        assert len(predict(images, out)) == left
        (out / 'pictures/5.png.partial').unlink()
        assert contents(out) == expected
        shutil.rmtree(out)


STRANGE = {
    'no class': lambda line: json.dumps({**line, 'objects': [{**line['objects'][0], 'label': 3}]}).encode(),
    'nesting': lambda line: b'[' * 10**5,
    'zeros': lambda line: bytes(999),
    'a list': lambda line: b'[1]',
    'no name': lambda line: b'{"name": 5}',
    'no UTF-8': lambda line: b'\xff',
    'no file': lambda line: json.dumps({**line, 'file': 5}).encode(),
    'a frame of no video': lambda line: b'{"name": "a", "frame": 3, "size": [1, 2], "objects": []}',
    'objects that are none': lambda line: json.dumps({**line, 'objects': 'many'}).encode(),
}


@pytest.mark.parametrize('what', STRANGE)
def test_a_damaged_journal(what: str, images: Path, tmp_path: Path):
    """Nothing behind the damage is used."""
    journal = whole_journal(images, tmp_path / 'whole')
    expected = contents(tmp_path / 'whole')
    lines = journal.splitlines(keepends=True)
    strange = STRANGE[what](json.loads(lines[3])) + b'\n'
    (tmp_path / 'whole' / NAME).write_bytes(b''.join([*lines[:3], strange, *lines[4:]]))
    assert len(predict(images, tmp_path / 'whole')) == 4
    assert contents(tmp_path / 'whole') == expected


OTHER = {
    'checkpoint': (dict(weights={**WEIGHTS, 'checkpoint': [100, 201]}), 'of another checkpoint: every image'),
    'config': (dict(weights={**WEIGHTS, 'config': 'ab'}), 'of another config: every image'),
    'score': (dict(settings=run.Settings(score=0.5)), 'of other settings (score None, not 0.5): every image'),
    'batch': (dict(settings=run.Settings(batch=2)), 'of other settings (batch 1, not 2): every image'),
    'classes': (dict(predictor=StubPredictor()), 'of other classes: every image'),
    'version': ({}, 'of another kind: every image'),
    'no journal': ({}, 'of another kind: every image'),
}


@pytest.mark.parametrize('what', OTHER)
def test_a_journal_of_something_else(
    what: str, images: Path, tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
):
    arguments, expected = OTHER[what]
    stopped(images, tmp_path / 'out', 4)
    if what == 'classes':
        arguments['predictor'].classes = ('cat', 'dog', 'horse')
    if what == 'version':
        monkeypatch.setattr('swin_dense.predict.journal.VERSION', 2)
    if what == 'no journal':
        (tmp_path / 'out' / NAME).write_text('{"a": 1}\n' * 5)
    said.truncate(0)
    assert sum(predict(images, tmp_path / 'out', **arguments)) == 6
    assert expected in said.getvalue()
    assert 'taken over' not in said.getvalue()


def test_what_has_changed_is_predicted_again(images: Path, tmp_path: Path):
    """An image with another content, one whose picture was deleted, and a new one in the order of names."""
    out = tmp_path / 'out'
    stopped(images, out, 5)
    shutil.copyfile(images / '5.png', images / '0.png')
    (out / 'pictures/1.jpg').unlink()
    shutil.copyfile(images / '4.png', images / '00.png')
    assert len(predict(images, out)) == 5
    predict(images, tmp_path / 'whole')
    assert contents(out) == contents(tmp_path / 'whole')


def test_a_finished_run_is_not_gone_on_with(images: Path, tmp_path: Path):
    for _ in range(2):
        assert len(predict(images, tmp_path / 'out')) == 6
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'pictures',
        'predictions.json',
        'images.json',
    }


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 5, (SMALL, SMALL))
    for number in range(frames):
        writer.write(np.full((SMALL, SMALL, 3), number * 20, np.uint8))
    writer.release()


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('killed', [False, True], ids=['stopped', 'killed'])
def test_an_interrupted_video_is_done_from_its_start(task: str, killed: bool, tmp_path: Path):
    videos = [tmp_path / 'a.avi', tmp_path / 'b.avi']
    for path in videos:
        write_video(path, 4)
    predict(videos, tmp_path / 'whole', StubPredictor(task))
    out, add, count = tmp_path / 'out', results.VideoFile.add, itertools.count(1)

    def stopping(self: results.VideoFile, frame: np.ndarray) -> None:
        add(self, frame)
        if next(count) == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results.VideoFile, 'add', stopping)
        with pytest.raises(StoppedError, match='1 of 2 files are done'):
            predict(videos, out, StubPredictor(task))
    assert [path.name for path in (out / 'pictures').iterdir()] == ['a.mp4'], 'no part of the other'
    if killed:
        (out / 'pictures/b.mp4.frames.partial').mkdir()
        (out / 'pictures/b.mp4.frames.partial/video.mp4').write_bytes(b'half')
    assert len(predict(videos, out, StubPredictor(task))) == 4
    assert contents(out) == contents(tmp_path / 'whole')


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('at', ['a picture', 'the predictions', 'the journal', 'the first line', 'a video'])
def test_a_full_disk(at: str, images: Path, tmp_path: Path):
    """Status 74, the predictions of an earlier run as they were, nothing partial, and the rest afterwards."""
    write_video(images / 'clip.avi', 3)
    predict(images, tmp_path / 'whole')
    out, dumps, sync, replace = tmp_path / 'out', json.dumps, os.fsync, os.replace
    (out / 'pictures').mkdir(parents=True)
    (out / 'predictions.json').write_text('[]')
    count = itertools.count(1)
    with pytest.MonkeyPatch.context() as patch:
        if at == 'a picture':
            patch.setattr(os, 'replace', lambda *paths: full() if next(count) == 4 else replace(*paths))
        elif at == 'the predictions':
            patch.setattr(json, 'dumps', lambda x: full() if 'image_id' in x else dumps(x))
        elif at == 'the journal':
            patch.setattr('swin_dense.predict.journal.SYNC_SECONDS', -1)
            patch.setattr(os, 'fsync', lambda x: full() if next(count) == 11 else sync(x))
        elif at == 'the first line':
            patch.setattr(os, 'replace', full)
        else:
            patch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=0))
        with pytest.raises(DiskFullError) as caught:
            predict(images, out)
    assert caught.value.status == 74
    assert (out / 'predictions.json').read_text() == '[]'
    assert not list(out.rglob('*.partial'))
    done = len(list((out / 'pictures').iterdir()))
    assert len(predict(images, out)) <= 9 - done + (at == 'the journal')
    assert contents(out) == contents(tmp_path / 'whole')


def test_a_line_of_which_a_part_was_written(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is taken back: a journal ends with whole lines."""

    class Half:
        """A file on a disk that fills in the middle of the third line."""

        def __init__(self, file: object) -> None:
            self.file, self.left = file, 3

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, content: memoryview) -> int:
            self.left -= 1
            if self.left > 0:
                return self.file.write(content)
            return self.file.write(content[: len(content) // 2]) if self.left == 0 else full()

    class OnHalf(Journal):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            self._file = Half(self._file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, 'Journal', OnHalf)
        with pytest.raises(DiskFullError, match=rf'{NAME} cannot be written: the disk is full'):
            predict(images, tmp_path / 'out')
    content = (tmp_path / 'out' / NAME).read_bytes()
    assert content.endswith(b'\n')
    assert content.count(b'\n') == 3
    assert len(predict(images, tmp_path / 'out')) == 4


def test_two_processes_in_one_folder(images: Path, tmp_path: Path):
    out = tmp_path / 'out'
    out.mkdir()
    with filelock.FileLock(out / run.LOCK), pytest.raises(UserError, match='another process is predicting'):
        predict(images, out)
    assert len(predict(images, out)) == 6


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of each image, what is in memory is where its line begins: the objects are on the disk."""
    monkeypatch.setattr(detection_output, 'picture', lambda image, found, legend=None: image)
    folder = tmp_path / 'in'
    folder.mkdir()
    sizes = {}
    for count in (3, 23):
        for number in range(count):
            cv2.imwrite(str(folder / f'{number}.png'), np.full((4, 4, 3), number, np.uint8))
        tracemalloc.start()
        predict(folder, tmp_path / str(count), StubPredictor(objects=300))
        sizes[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (tmp_path / '23/predictions.json').stat().st_size > 20 * 50_000
    assert sizes[23] - sizes[3] < 20 * 5_000
