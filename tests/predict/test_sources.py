"""What a command line names: files of one name in two folders, and what is no regular file."""

import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from swin_dense.console import terminal
from swin_dense.errors import UserError
from swin_dense.predict import sources


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is printed on the terminal."""
    buffer = io.StringIO()
    monkeypatch.setattr(terminal, 'console', Console(file=buffer, width=160))
    return buffer


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find(*arguments: str, files: str = '') -> dict[str, tuple[str, str]]:
    """File name and name of each source; empty files are made first."""
    for file in files.split():
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).touch()
    found = sources.find(arguments, Path('out'))
    assert len({source.name for source in found}) == len(found)
    return {source.path.as_posix(): (source.file_name, source.name) for source in found}


def test_names_that_differ_are_flat():
    assert find('a/1.jpg', 'b/*.png', 'c', files='a/1.jpg b/2.png c/3.jpg c/d/4.jpg') == {
        'a/1.jpg': ('1.jpg', '1'),
        'b/2.png': ('2.png', '2'),
        'c/3.jpg': ('3.jpg', '3'),
        'c/d/4.jpg': ('d/4.jpg', 'd/4'),
    }


def test_files_of_one_name_tell_their_folders():
    """In the predictions too, which would not say which of the two an object is in."""
    assert find('a/1.jpg', 'b/1.jpg', 'b/2.jpg', files='a/1.jpg b/1.jpg b/2.jpg') == {
        'a/1.jpg': ('a/1.jpg', 'a/1'),
        'b/1.jpg': ('b/1.jpg', 'b/1'),
        'b/2.jpg': ('2.jpg', '2'),
    }


def test_folders_with_the_same_files():
    assert find('a', 'b/a', files='a/x/1.jpg b/a/x/1.jpg') == {
        'a/x/1.jpg': ('a/x/1.jpg', 'a/x/1'),
        'b/a/x/1.jpg': ('b/a/x/1.jpg', 'b/a/x/1'),
    }


def test_files_of_one_stem_tell_their_suffix():
    assert find('a', files='a/1.jpg a/1.png a/1_png.jpg a/2.jpg') == {
        'a/1.jpg': ('1.jpg', '1_jpg'),
        'a/1.png': ('1.png', '1_png_2'),
        'a/1_png.jpg': ('1_png.jpg', '1_png'),
        'a/2.jpg': ('2.jpg', '2'),
    }


def test_the_frames_of_a_video_do_not_mix_with_images():
    assert find('a', files='a/clip.mp4 a/clip/000000.jpg a/b.jpg a/b/c.jpg') == {
        'a/b.jpg': ('b.jpg', 'b'),
        'a/b/c.jpg': ('b/c.jpg', 'b/c'),
        'a/clip.mp4': ('clip.mp4', 'clip_mp4'),
        'a/clip/000000.jpg': ('clip/000000.jpg', 'clip/000000'),
    }


@pytest.fixture
def special(here: Path) -> Iterator[dict[str, str]]:
    """Files that are no files, and what they are."""
    (here / 'in').mkdir()
    os.mkfifo('in/pipe.jpg')
    for name, target in {'zero.png': '/dev/zero', 'broken.jpg': 'nowhere', 'loop.mp4': 'loop.mp4'}.items():
        Path('in', name).symlink_to(target)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind('in/socket.jpg')
        yield {
            'in/pipe.jpg': 'a named pipe',
            'in/zero.png': 'a device',
            'in/broken.jpg': 'a broken link',
            'in/loop.mp4': 'a broken link',
            'in/socket.jpg': 'a socket',
        }


def test_what_is_no_file_is_refused(special: dict[str, str]):
    for name, kind in special.items():
        with pytest.raises(UserError, match=f'image {name} is {kind}, no image file'):
            find(name)
    with pytest.raises(UserError, match='image /dev/null is a device'):
        find('/dev/null')


@pytest.mark.parametrize('argument', ['in', 'in/*.*g'])
def test_what_is_no_file_in_a_folder_is_named(argument: str, special: dict[str, str], said: io.StringIO):
    """In one line; nothing of it is opened."""
    assert list(find(argument, files='in/good.jpg')) == ['in/good.jpg']
    count = len(special) - (argument != 'in')
    assert said.getvalue() == (
        f'warning: left out: in/broken.jpg is a broken link, no image file, and {count - 1} more files '
        'of that sort\n'
    )


def test_names_that_the_system_refuses():
    for name in ('x' * 5000 + '.jpg', 'a\0.jpg', '~nobody-of-that-name/x.jpg'):
        with pytest.raises(UserError, match=r'cannot be read|does not exist'):
            find(name)


def test_names_that_are_no_text(said: io.StringIO):
    """Of bytes that are no UTF-8, as old archives have them; OpenCV ends the process on such a video."""
    for name in (b'in/\xff\x1b.jpg', b'in/\xff.mp4'):
        Path(os.fsdecode(name)).parent.mkdir(exist_ok=True)
        Path(os.fsdecode(name)).touch()
    (image, video) = sources.find(['in'], Path('out'))
    assert image.file_name == '\udcff\x1b.jpg'
    with pytest.raises(UserError, match='its name is no UTF-8'):
        sources.open_video(video.path)
