"""Headers of image files: held against OpenCV, and what is no image."""

import io
import struct
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from swin_dense.formats import images
from swin_dense.formats.images import BadImageError, Probe

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8), (80, 60))


def encoded(
    kind: str, mode: str = 'RGB', orientation: int | None = None, pixels: np.ndarray = PIXELS
) -> bytes:
    image, exif, buffer = Image.fromarray(pixels).convert(mode), Image.Exif(), io.BytesIO()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(buffer, kind, **({'exif': exif} if orientation else {}))
    return buffer.getvalue()


def written(folder: Path, content: bytes, name: str = 'image') -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def reason(path: Path) -> str:
    with pytest.raises(BadImageError) as caught:
        images.probe(path)
    return str(caught.value)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_the_shown_size_is_what_opencv_loads(tmp_path: Path, kind: str, orientation: int):
    path = written(tmp_path, encoded(kind, orientation=orientation))
    found = images.probe(path)
    assert (found.width, found.height, found.orientation) == (80, 60, orientation)
    loaded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    assert found.shown_size == loaded.shape[1::-1]
    assert np.array_equal(images.decode(path), loaded)


@pytest.mark.parametrize(
    ('kind', 'mode', 'channels', 'bits'),
    [
        *[('PNG', '1', 1, 1), ('PNG', 'L', 1, 8), ('PNG', 'LA', 2, 8), ('PNG', 'P', 1, 8)],
        *[('PNG', 'RGBA', 4, 8), ('JPEG', 'L', 1, 8), ('JPEG', 'CMYK', 4, 8), ('BMP', 'RGB', 3, 8)],
        *[('TIFF', 'RGB', 3, 8), ('TIFF', 'RGBA', 4, 8), ('TIFF', 'F', 1, 32)],
    ],
)
def test_modes(tmp_path: Path, kind: str, mode: str, channels: int, bits: int):
    found = images.probe(written(tmp_path, encoded(kind, mode)))
    assert found == Probe(80, 60, mode, channels, bits, 1)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_16_bits(tmp_path: Path, suffix: str, channels: int):
    pixels = np.zeros((60, 80, channels), np.uint16)
    path = written(tmp_path, cv2.imencode(suffix, pixels)[1].tobytes())
    found = images.probe(path)
    assert (found.shown_size, found.channels, found.bits) == ((80, 60), channels, 16)


def tiff(width: int, height: int, channels: int, bits: int) -> bytes:
    """An uncompressed TIFF of as many channels as wanted, which neither Pillow nor OpenCV writes."""
    pixels = bytes(width * height * channels * bits // 8)
    after = 8 + 2 + 9 * 12 + 4
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, after),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
    ]
    tags += [(273, 4, 1, after + 2 * channels), (277, 3, 1, channels), (278, 4, 1, height)]
    tags += [(279, 4, 1, len(pixels))]
    entries = b''.join(struct.pack('<HHII', *tag) for tag in tags)
    bits_of_each = struct.pack(f'<{channels}H', *[bits] * channels)
    return b'II*\0' + struct.pack('<IH', 8, len(tags)) + entries + bytes(4) + bits_of_each + pixels


def test_a_tiff_of_six_channels(tmp_path: Path):
    content = tiff(80, 60, 6, 16)
    found = images.probe(written(tmp_path, content))
    assert (found.shown_size, found.channels, found.bits) == ((80, 60), 6, 16)
    assert 'cut off' in reason(written(tmp_path, content[:-1]))


def test_missing_and_empty_and_folders(tmp_path: Path):
    assert reason(tmp_path / 'absent.jpg') == 'the file is missing'
    assert reason(written(tmp_path, b'')) == 'the file is empty'
    assert 'cannot be read' in reason(tmp_path)


@pytest.mark.parametrize('content', [b'<!DOCTYPE html><html>', b'\n <HTML><body>404'])
def test_html(tmp_path: Path, content: bytes):
    assert reason(written(tmp_path, content, 'photo.jpg')) == 'the file is HTML'


@pytest.mark.parametrize(
    'content', [b'\xff', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'II*\0', b'II*\0\xff\xff\xff\xff']
)
def test_no_image(tmp_path: Path, content: bytes):
    assert reason(written(tmp_path, content)).startswith('the file ')
    rng = np.random.default_rng(len(content))
    assert reason(written(tmp_path, content + rng.bytes(1000))).startswith('the file ')


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9, None])
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF'])
def test_cut_off(tmp_path: Path, kind: str, share: float | None):
    """None: one byte is missing. What the hosts load with gives nothing for a cut file."""
    content = encoded(kind)
    cut = written(tmp_path, content[: int(share * len(content)) if share else -1])
    assert reason(cut).startswith('the file ')
    if share and share >= 0.5 and kind != 'TIFF':
        assert 'cut off' in reason(cut)
        assert cv2.imdecode(np.fromfile(cut, np.uint8), cv2.IMREAD_COLOR) is None


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_data_behind_the_end_is_no_harm(tmp_path: Path, kind: str):
    path = written(tmp_path, encoded(kind) + bytes(5000))
    assert images.probe(path).shown_size == (80, 60)
    assert cv2.imread(str(path)) is not None


def test_the_thumbnail_of_a_cut_jpeg_does_not_hide_it(tmp_path: Path):
    content = encoded('JPEG')
    thumbnail = encoded('JPEG', pixels=PIXELS[::4, ::4].copy())
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    whole = content[:2] + segment + content[2:]
    assert images.probe(written(tmp_path, whole)).shown_size == (80, 60)
    assert 'cut off' in reason(written(tmp_path, whole[:-100]))


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))


def huge_png(side: int) -> bytes:
    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    parts = [chunk(b'IHDR', header), chunk(b'IDAT', zlib.compress(bytes(1000))), chunk(b'IEND', b'')]
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def test_too_many_pixels(tmp_path: Path):
    path = written(tmp_path, huge_png(60000))
    begin = time.monotonic()
    tracemalloc.start()
    assert f'more than {images.MAX_PIXELS} pixels' in reason(path)
    with pytest.raises(BadImageError, match='pixels'):
        images.decode(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
    assert time.monotonic() - begin < 1
    assert images.probe(written(tmp_path, huge_png(20000))).shown_size == (
        20000,
        20000,
    )  # Pillow's own limit is less


def test_pixels_that_cannot_be_decoded(tmp_path: Path):
    content = bytearray(encoded('PNG'))
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    path = written(tmp_path, bytes(content))
    assert images.probe(path).shown_size == (80, 60)
    with pytest.raises(BadImageError, match='cannot be decoded'):
        images.decode(path)


def test_threads_agree(tmp_path: Path):
    paths = [
        written(tmp_path, encoded(kind), f'{i}.{kind}') for i in range(20) for kind in ('JPEG', 'PNG', 'TIFF')
    ]
    with ThreadPoolExecutor(8) as threads:
        assert {found.shown_size for found in threads.map(images.probe, paths)} == {(80, 60)}
