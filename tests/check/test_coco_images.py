"""Checks of the images of a COCO file: there, readable, and of the size that it states."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.check import image_files
from swin_dense.console.findings import Finding, errors
from tests.check.coco_sets import HEIGHT, WIDTH, check, good, the_error

BAD_IMAGES = {
    'empty': (lambda path: path.write_bytes(b''), 'empty'),
    'HTML': (lambda path: path.write_text('<!DOCTYPE html><html></html>'), 'HTML'),
    'cut off': (lambda path: path.write_bytes(path.read_bytes()[:-20]), 'cut off'),
    'a folder': (lambda path: (path.unlink(), path.mkdir()), 'cannot be read'),
    'a dangling link': (lambda path: (path.unlink(), path.symlink_to('absent.png')), 'missing'),
}


@pytest.mark.parametrize('what', BAD_IMAGES)
def test_images_that_cannot_be_read(root: Path, what: str):
    spoil, message = BAD_IMAGES[what]
    spoil(root / '12.png')
    (error,) = errors(check(root, good()))
    assert message in error.message
    assert error.examples == ('12.png',)
    assert error.file == root


@pytest.mark.parametrize('decode', [False, True])
def test_pixels_are_decoded(root: Path, decode: bool):
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode('.png', image)[1].tobytes())
    data[1000:1100] = bytes(100)
    (root / '12.png').write_bytes(bytes(data))
    (error,) = errors(check(root, good(), decode=decode))
    assert 'decoded' in error.message
    assert error.examples == ('12.png',)


def turned(root: Path, orientation: int, stored: tuple[int, int]) -> list[Finding]:
    """The first image with an EXIF orientation; the JSON has its displayed height and width."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((*stored, 3), np.uint8)).save(root / '11.jpg', exif=exif)
    content = good()
    content['images'][0] |= dict(file_name='11.jpg')
    return check(root, content)


def test_exif_sizes_are_of_what_is_displayed(root: Path):
    assert turned(root, 6, (WIDTH, HEIGHT)) == []  # as OpenCV loads it: test_images.py
    error = the_error(turned(root, 6, (HEIGHT, WIDTH)))
    assert 'EXIF turns the image' in error.message
    assert error.examples == (11,)


def test_exif_turns_that_the_size_does_not_show(root: Path):
    (found,) = turned(root, 3, (HEIGHT, WIDTH))
    assert (found.severity, found.examples) == ('warning', (11,))


def test_the_last_of_1000_images_is_missing(root: Path):
    content = good()
    template = content['images'][0]
    content['images'] = [template | dict(id=i, file_name=f'many/{i}.png') for i in range(11, 1011)]
    (root / 'many').mkdir()
    for image in content['images'][:-1]:
        (root / image['file_name']).hardlink_to(root / '11.png')
    error = the_error(check(root, content))
    assert (error.field, error.examples, error.count) == ('images.file_name', ('many/1010.png',), 1)


def test_a_large_set_is_sampled_evenly(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_files, 'ALWAYS_PROBED', 100)
    monkeypatch.setattr(image_files, 'PROBE_SECONDS', 0.0)
    entries = [dict(file_name='11.png', number=i) for i in range(1000)]
    probed = image_files._probe(root, entries, decode=False)
    assert len(probed) == 100
    numbers = [entry['number'] for entry, _ in probed]
    assert np.histogram(numbers, 4, (0, 1000))[0].min() > 10
    content = good()
    content['images'] = [content['images'][0] | dict(id=i) for i in range(11, 1011)]
    notes = [finding.message for finding in check(root, content) if finding.severity == 'note']
    assert any('100 of 1000 images were opened' in note for note in notes)


@pytest.mark.parametrize('seconds', [-1, 1000], ids=['slow', 'at hand'])
def test_slow_images_are_read_in_threads(seconds: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_files, 'AT_HAND', seconds)
    entries = [dict(number=i) for i in range(250)]
    answers = list(image_files._ask_all(lambda entry: (entry, threading.get_ident()), iter(entries)))
    assert [entry for entry, _ in answers] == entries
    here = [thread == threading.get_ident() for _, thread in answers]
    assert here == [i < 100 or seconds > 0 for i in range(250)]


def test_files_that_two_images_name(root: Path):
    content = good()
    content['images'][1]['file_name'] = '11.png'
    (found,) = check(root, content)
    assert (found.severity, found.examples) == ('warning', ('11.png',))
