"""What is no regular file is refused and not opened: a named pipe would keep the process waiting."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swin_dense.console.findings import errors
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.formats import coco_json, images, label_maps
from swin_dense.formats.images import BadImageError
from swin_dense.formats.pixels import read_picture
from tests.check.ade20k_sets import DataSet
from tests.check.coco_sets import check, good

READERS: tuple[Callable[[Path], object], ...] = (
    *(images.probe, images.decode, label_maps.read_labels, read_picture, coco_json.read_annotations),
)


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """A test that waits fails."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=['a named pipe', 'a socket', 'a device', 'a folder'])
def odd(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    path = tmp_path / 'odd.png'
    if request.param == 'a named pipe':
        os.mkfifo(path)
    elif request.param == 'a socket':
        monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif request.param == 'a device':
        path.symlink_to('/dev/zero')
    else:
        path.mkdir()
    return request.param, path


@pytest.mark.parametrize('read', READERS)
def test_none_is_opened(odd: tuple[str, Path], read: Callable[[Path], object]):
    kind, path = odd
    with pytest.raises((BadImageError, UserError), match=f'cannot be read as .*{kind}$'):
        read(path)


def test_a_pipe_among_the_images(root: Path):
    (root / '12.png').unlink()
    os.mkfifo(root / '12.png')
    (error,) = errors(check(root, good(), decode=True))
    assert 'named pipes' in error.message
    assert error.examples == ('12.png',)


def test_a_pipe_among_the_label_maps(data: DataSet):
    (data.labels / '1.png').unlink()
    os.mkfifo(data.labels / '1.png')
    assert '1.jpg has no label map' in data.error()


@pytest.mark.parametrize('name', ['train.pkl', 'train.PICKLE'])
def test_pickles_are_not_opened(tmp_path: Path, name: str):
    """Nor asked whether they are there."""
    with pytest.raises(UnsafeFileError, match='runs code') as caught:
        coco_json.read_annotations(tmp_path / name)
    assert caught.value.status == 3
    assert name in str(caught.value)
