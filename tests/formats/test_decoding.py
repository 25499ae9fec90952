"""Pixels that are damaged though their file can be opened; Pillow and what was cut off are the reference."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.formats import decoding, images
from swin_dense.formats.decoding import Damage, damage_lines, find_damage

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), (160, 120))
PROGRESSIVE, RESTARTS = cv2.IMWRITE_JPEG_PROGRESSIVE, cv2.IMWRITE_JPEG_RST_INTERVAL


def jpeg(*options: int) -> bytes:
    return cv2.imencode('.jpg', PIXELS, [cv2.IMWRITE_JPEG_QUALITY, 90, *options])[1].tobytes()


def written(folder: Path, content: bytes, name: str = 'image.jpg') -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    'options', [(), (PROGRESSIVE, 1), (RESTARTS, 4)], ids=['plain', 'progressive', 'restarts']
)
@pytest.mark.parametrize('share', [0.3, 0.5, 0.9])
def test_an_end_that_is_glued_on(tmp_path: Path, options: tuple[int, ...], share: float):
    content = jpeg(*options)
    whole = written(tmp_path, content, 'whole.jpg')
    glued = written(tmp_path, content[: int(share * len(content))] + content[-2:], 'glued.jpg')
    assert images.probe(glued).shown_size == (160, 120)
    assert images.decode(glued).shape == (120, 160, 3), 'OpenCV gives pixels, as if nothing were wrong'
    assert not np.array_equal(images.decode(glued), images.decode(whole))
    (found,) = find_damage([whole, glued, whole], images.decode)
    assert found.path == glued
    assert found.grave
    assert 'cut off' in found.text


def test_bytes_too_many_are_no_damage(tmp_path: Path):
    """What cameras write between data and end marker; nothing is lost."""
    content = jpeg()
    padded = written(tmp_path, content[:-2] + bytes(50) + content[-2:])
    assert np.array_equal(images.decode(padded), images.decode(written(tmp_path, content, 'whole.jpg')))
    (found,) = find_damage([padded], images.decode)
    assert not found.grave
    assert 'extraneous bytes' in found.text


def pillow_reads(content: bytes) -> bool:
    try:
        Image.open(io.BytesIO(content)).load()
    except (OSError, SyntaxError):
        return False
    return True


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
def test_whatever_pillow_refuses_is_damage(tmp_path: Path, suffix: str):
    rng = np.random.default_rng(len(suffix))
    content = cv2.imencode(suffix, PIXELS)[1].tobytes()
    paths, refused = [], set()
    for number in range(40):
        spoiled = bytearray(content)
        at = int(rng.integers(20, len(content) - 20))
        spoiled[at : at + 20] = rng.bytes(20)
        paths.append(written(tmp_path, bytes(spoiled), f'{number}{suffix}'))
        if not pillow_reads(bytes(spoiled)):
            refused.add(paths[-1])
    assert refused or suffix == '.bmp', 'no pixel of a BMP is wrong'
    assert refused <= {damage.path for damage in find_damage(paths, images.decode)}


def test_each_is_told_of_its_own_file(tmp_path: Path):
    content = jpeg()
    paths = [written(tmp_path, content, f'{i}.jpg') for i in range(150)]
    bad = [paths[i] for i in (0, 63, 64, 149)]
    for path in bad:
        path.write_bytes(content[:900] + content[-2:])
    (tmp_path / '100.jpg').unlink()
    found = find_damage(paths, images.decode)
    assert [damage.path for damage in found] == sorted([*bad, tmp_path / '100.jpg'], key=paths.index)
    assert Damage(tmp_path / '100.jpg', 'the file is missing') in found


@pytest.mark.parametrize('harm', [lambda: None, lambda: sys.exit(3)])
def test_standard_error_is_as_it_was(tmp_path: Path, harm: Callable, capfd: pytest.CaptureFixture):
    path = written(tmp_path, jpeg()[:900] + b'\xff\xd9')
    before = len(list(Path('/dev/fd').iterdir()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, '_threads', lambda: 1)
        find_damage([path], images.decode)
    try:
        with damage_lines() as lines:
            os.write(2, b'of somebody else\n')
            images.decode(path)
            harm()
    except SystemExit:
        pass
    os.write(2, b'later\n')
    assert lines == ['Corrupt JPEG data: premature end of data segment']
    assert capfd.readouterr().err == 'of somebody else\nlater\n'
    assert len(list(Path('/dev/fd').iterdir())) <= before + 1  # the file for messages stays open


def test_the_sample():
    assert decoding.sample([]) == []
    assert decoding.sample([10]) == [0]
    assert decoding.sample([10] * 5) == [0, 1, 2, 3, 4]
    many = decoding.sample([10] * 1000)
    assert (many[0], many[-1], len(set(many))) == (0, 999, decoding.SAMPLED)
    assert np.diff(many).max() - np.diff(many).min() <= 1
    assert decoding.sample([2**40] * 1000) == [0]
    few = decoding.sample([decoding.SAMPLED_PIXELS // 8] * 1000)
    assert len(few) == 8
    assert np.histogram(few, 4, (0, 1000))[0].tolist() == [2] * 4
