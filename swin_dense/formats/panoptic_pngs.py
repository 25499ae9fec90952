"""The PNGs of COCO's panoptic format: the id of a pixel's segment is R + 256 G + 65536 B, and 0 none."""

from pathlib import Path

import cv2
import numpy as np

from swin_dense.formats.images import BadImageError, probe


def read_ids(path: Path) -> np.ndarray:
    """(H, W) int32 the segment of each pixel.

    Raises:
        BadImageError: it cannot be read, or is no PNG of three channels with 8 bits each.
    """
    header = probe(path)
    if header.mode not in ('RGB', 'RGBA') or header.bits != 8:
        kind = f'{header.channels} channels of {header.bits} bits'
        raise BadImageError(f'no panoptic PNG, which has three channels of 8 bits, but an image of {kind}')
    if path.suffix.lower() != '.png':
        raise BadImageError('no PNG: another format may change colours, and with them the ids of segments')
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BadImageError('the pixels cannot be decoded')
    return ids_of(image[..., ::-1])


def ids_of(colours: np.ndarray) -> np.ndarray:
    """(H, W) int32 ids of (H, W, 3) uint8 RGB."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue


def colours_of(ids: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of (H, W) ids below 2^24."""
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
