"""The header of an image file: size, channels, bits, orientation. Pixels are decoded only on request."""

import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from swin_dense.storage.regular import other_kind

MAX_PIXELS = 2**30  # OpenCV, with which the hosts load images, refuses more
# no others: Pillow would run Ghostscript for some, and OpenCV knows few
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'PPM', 'JPEG2000', 'GIF')
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
WIDTH, HEIGHT, BITS, ORIENTATION, SAMPLES = 256, 257, 258, 274, 277  # TIFF tags; EXIF is TIFF inside
STRIPS, TILES = (273, 279), (324, 325)  # TIFF tags of the pixels: offsets, lengths
PNG_END = b'\0\0\0\0IEND\xaeB`\x82'
JPEG_START_OF_SCAN, JPEG_END = b'\xff\xda', b'\xff\xd9'
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, OverflowError)

# Pillow raises above twice its limit, and below it would warn, of which it keeps one record a process
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
warnings.filterwarnings('ignore', message='Corrupt EXIF data', module=r'PIL\.')


class BadImageError(Exception):
    """A file that cannot be used as an image; the text says why, and not which."""


@dataclass(frozen=True)
class Probe:
    """An image file as its header describes it.

    Attributes:
        width, height: in pixels, as stored.
        mode: Pillow's, such as ``'RGB'``, ``'P'`` or ``'I;16'``; empty if Pillow has none for it.
        channels: values a pixel as stored, one for a palette image.
        bits: of a value as stored, 1 to 64.
        orientation: EXIF's, 1 to 8; 1 is upright.
    """

    width: int
    height: int
    mode: str
    channels: int
    bits: int
    orientation: int

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as displayed, and as OpenCV loads it: EXIF 5 to 8 lie on their side."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def probe(path: Path) -> Probe:
    """Read an image's header, and test whether the file ends where it should. Safe in threads.

    Raises:
        BadImageError: the file is missing, empty, no file, no image, cut off, or larger than ``MAX_PIXELS``.
    """
    try:
        if kind := other_kind(path):  # asked first: opening a named pipe waits for ever
            raise BadImageError(f'the file cannot be read as an image: it is {kind}')
        with path.open('rb') as file:
            return _probe(file)
    except FileNotFoundError as error:
        raise BadImageError('the file is missing') from error
    except Image.DecompressionBombError as error:
        raise BadImageError(f'more than {MAX_PIXELS} pixels') from error
    except (*UNREADABLE, struct.error) as error:
        raise BadImageError(f'the file cannot be read as an image: {error}') from error


def decode(path: Path) -> np.ndarray:
    """Decode an image as the hosts do.

    Returns:
        (H, W, 3) uint8 BGR, rotated as EXIF says.

    Raises:
        BadImageError: as ``probe``, or the pixels cannot be decoded.
    """
    probe(path)
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise BadImageError(f'the pixels cannot be decoded: {error.err}') from error
    if image is None:
        raise BadImageError('the pixels cannot be decoded: the file is damaged')
    return image


def _probe(file: BinaryIO) -> Probe:
    start = file.read(32)
    size = file.seek(0, 2)
    file.seek(0)
    if not size:
        raise BadImageError('the file is empty')
    if start.startswith(TIFF):
        header, complete = _tiff(file, size)
    else:
        header, complete = _others(file, start, size)
    if header.width * header.height > MAX_PIXELS:
        raise BadImageError(f'{header.width} x {header.height} are more than {MAX_PIXELS} pixels')
    if not complete:
        raise BadImageError('the file is cut off: its end is missing')
    return header


def _others(file: BinaryIO, start: bytes, size: int) -> tuple[Probe, bool]:
    """The header of anything but a TIFF, and whether the file is complete."""
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        text = start.lstrip().lower()
        what = 'HTML' if text.startswith((b'<!doctype', b'<html')) else 'no image that OpenCV reads'
        raise BadImageError(f'the file is {what}') from error
    kind, mode = image.format, image.mode
    channels = len(image.getbands())
    bits = {'1': 1, 'I': 32, 'F': 32}.get(mode, 16 if mode.startswith('I;16') else 8)
    if kind == 'PNG':
        bits = start[24]  # Pillow opens 16-bit colour as 8-bit
    try:
        # PngImageFile's own would decode the whole image in search of EXIF behind it
        orientation = int(Image.Image.getexif(image).get(ORIENTATION, 1))
    except (*UNREADABLE, struct.error):
        orientation = 1
    header = Probe(*image.size, mode, channels, bits, orientation if 1 <= orientation <= 8 else 1)
    if kind in ('JPEG', 'MPO'):
        return header, _jpeg_ends(file, size)
    return header, kind != 'PNG' or _png_ends(file, size)


def _tiff(file: BinaryIO, size: int) -> tuple[Probe, bool]:
    """The header of a TIFF: Pillow opens none of five channels, and swaps the sides of some."""
    start = file.read(8)
    tags = ImageFileDirectory_v2(start + file.read(8) if start[2:4] in (b'+\0', b'\0+') else start)
    file.seek(tags.next)
    tags.load(file)
    bits = tags.get(BITS, (1,))
    orientation = tags.get(ORIENTATION, 1)
    channels = tags.get(SAMPLES, 1)
    file.seek(0)
    try:
        mode = Image.open(file, formats=('TIFF',)).mode
    except (UnidentifiedImageError, OSError):
        mode = ''
    header = Probe(tags[WIDTH], tags[HEIGHT], mode, channels, max(bits), max(1, min(orientation, 8)))
    end = 0
    for offsets, lengths in (STRIPS, TILES):
        pairs = zip(tags.get(offsets, ()), tags.get(lengths, ()), strict=False)
        end = max(end, *(offset + length for offset, length in pairs), 0)
    return header, 0 < end <= size


def _jpeg_ends(file: BinaryIO, size: int) -> bool:
    """Whether there is an end marker behind the first scan; cameras append data of their own to it."""
    file.seek(max(size - 2, 0))
    if file.read() == JPEG_END:
        return True
    at = 2
    while at + 4 <= size:  # past the segments: a thumbnail in one has an end marker too
        file.seek(at)
        marker, length = file.read(2), int.from_bytes(file.read(2), 'big')
        if marker[0] != 0xFF:
            return False
        if marker == JPEG_START_OF_SCAN:
            file.seek(at)
            return JPEG_END in file.read()
        at += 1 if marker[1] == 0xFF else 2 + length  # 0xFF may fill up
    return False


def _png_ends(file: BinaryIO, size: int) -> bool:
    """Whether the last chunk is there."""
    file.seek(max(size - len(PNG_END), 0))
    if file.read() == PNG_END:
        return True
    at = 8
    while at + 12 <= size:
        file.seek(at)
        length, name = int.from_bytes(file.read(4), 'big'), file.read(4)
        if name == b'IEND':
            return True
        at += 12 + length
    return False
