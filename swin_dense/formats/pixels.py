"""The pixels of image files: photographs, N-channel TIFF, 16 and 32 bits a value."""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.formats.images import TIFF, UNREADABLE, BadImageError, Probe, probe

SIXTEEN_BITS = 257  # 65535 / 257 = 255: the scale of 8 bits, and nothing is cut off
# what tifffile gives as it is shown; others (palette, white is zero, CMYK, YCbCr) are Pillow's to convert
AS_STORED = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
GRAY = ('1', 'L', 'LA', 'I;16', 'I;16B', 'I')


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image as ``LoadImage`` gives it: (H, W, channels) uint8, or float32 where 8 bits do not do.

    Raises:
        UserError: the file is missing, broken, or of another number of channels.
    """
    image = read_stored(path, channels)
    if channels == 3 and image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] != channels:
        raise UserError(
            f'image {path}: the file has {image.shape[2]} channels, but LoadImage(channels={channels})'
        )
    return as_float(image[..., ::-1] if channels == 3 else image)


def read_stored(path: Path, channels: int | None = None) -> np.ndarray:
    """Decode an image file, its values as stored.

    Args:
        path: image file.
        channels: how many are wanted, which decides whether an alpha channel or colours are kept; None
            takes the file as it comes, without alpha.

    Returns:
        (H, W, C) of any type, colours as red, green, blue.

    Raises:
        UserError: the file is missing or broken.
    """
    try:
        header = probe(path)
        with path.open('rb') as file:
            is_tiff = file.read(4) in TIFF
        return _read_tiff(path, header, channels) if is_tiff else _read_photo(path, header, channels)
    except BadImageError as error:
        raise UserError(f'image {path}: {error}') from error


def read_picture(path: Path) -> np.ndarray:
    """Any image file as a picture to look at: (H, W, 3) uint8 RGB, of many bands the first three.

    What is not 8-bit is stretched from the 1st to the 99th percentile of each channel.

    Raises:
        UserError: the file is missing or broken.
    """
    image = read_stored(path)
    bands = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, axis=2)
    if bands.dtype == np.uint8:
        return np.ascontiguousarray(bands)
    low, high = np.nanpercentile(bands, (1, 99), axis=(0, 1))
    shares = (bands - low) / np.maximum(high - low, 1e-6)
    return (np.nan_to_num(shares).clip(0, 1) * 255).astype(np.uint8)


def as_float(image: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 divided by 257, anything else as it is; float32 but for uint8."""
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    scale = SIXTEEN_BITS if image.dtype == np.uint16 else 1
    return np.ascontiguousarray(image, np.float32) / np.float32(scale)


def _read_photo(path: Path, header: Probe, channels: int | None) -> np.ndarray:
    """Read an image that is no TIFF: gray for one channel, with alpha for four, colours otherwise."""
    flag = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    if channels == 1 and header.mode in GRAY:
        flag = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    elif channels == header.channels == 4 and header.mode == 'RGBA':
        flag = cv2.IMREAD_UNCHANGED
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), flag)
    except cv2.error as error:
        raise BadImageError(f'the pixels cannot be decoded: {error.err}') from error
    if image is None:
        raise BadImageError('the pixels cannot be decoded: the file is damaged')
    return image[..., None] if image.ndim == 2 else image[..., [2, 1, 0, 3][: image.shape[2]]]


def _read_tiff(path: Path, header: Probe, channels: int | None) -> np.ndarray:
    """The first image of a TIFF."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if page.photometric not in AS_STORED or header.bits == 1:
                return _read_tiff_picture(path)
            image = _upright(_pixels(file, path), header.orientation)
    except (*UNREADABLE, tifffile.TiffFileError) as error:
        advice = ': pip install imagecodecs' if 'imagecodecs' in str(error) else ''
        raise BadImageError(f'the pixels cannot be decoded: {error}{advice}') from error
    return image if image.shape[2] == channels else _without_alpha(image, page)


def _pixels(file: tifffile.TiffFile, path: Path) -> np.ndarray:
    """(H, W, C) as stored; by OpenCV where tifffile lacks a codec and OpenCV reads all channels."""
    page, series = file.pages.first, file.series[0]
    try:
        return _bands_last(series.asarray(), series.axes)
    except ValueError as error:
        colours = page.photometric == tifffile.PHOTOMETRIC.RGB and page.planarconfig == 1
        if 'imagecodecs' not in str(error) or page.samplesperpixel not in ((1, 3) if colours else (1,)):
            raise
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise BadImageError('the pixels cannot be decoded: the file is damaged')
    return image[..., None] if image.ndim == 2 else image[..., ::-1]


def _read_tiff_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=('TIFF',)) as image:
            pixels = np.asarray(image.convert('L' if image.mode in GRAY else 'RGB'))
    except UNREADABLE as error:
        raise BadImageError(f'the pixels cannot be decoded: {error}') from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _bands_last(array: np.ndarray, axes: str) -> np.ndarray:
    """(H, W, C), whether the bands are samples of a pixel, planes or pages."""
    others = [i for i, name in enumerate(axes) if name not in 'YX' and array.shape[i] > 1]
    if 'Y' not in axes or 'X' not in axes or len(others) > 1:
        raise BadImageError(f'the axes {axes} of shape {array.shape} are not those of one image')
    if not np.can_cast(array.dtype, np.float64, 'same_kind'):
        raise BadImageError(f'values of type {array.dtype}')
    height, width = array.shape[axes.index('Y')], array.shape[axes.index('X')]
    moved = np.moveaxis(array, others, [-1]) if others else array
    return moved.reshape(height, width, -1)


def _without_alpha(image: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Drop what the file itself calls alpha beside a colour or gray; an unnamed fourth band stays."""
    alpha = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
    colours = 3 if page.photometric == tifffile.PHOTOMETRIC.RGB else 1
    if image.shape[2] == colours + 1 and len(page.extrasamples) == 1 and page.extrasamples[0] in alpha:
        return image[..., :colours]
    return image


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror as EXIF's orientation 1 to 8 says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return image
