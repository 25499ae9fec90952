"""Label maps as mmseg reads them: the indices of a palette image, and uint8 of whatever is stored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from swin_dense.formats.images import FORMATS, UNREADABLE, BadImageError, probe

IGNORED = 255  # mmseg's ignore_index
CHUNK = 2**22  # pixels counted at a time: bincount makes eight bytes of each


@dataclass(frozen=True)
class StoredLabels:
    """The labels that a file stores.

    Attributes:
        size: height, width.
        counts: (256,) int64, pixels of each label as mmseg casts it, before ``reduce_zero_label``.
        wrapped: stored values that uint8 does not hold, with what becomes of them.
    """

    size: tuple[int, int]
    counts: np.ndarray
    wrapped: dict[float, int]


def stored_labels(path: Path) -> np.ndarray:
    """(H, W) the values of a label map as they are stored, of a palette image the indices.

    Raises:
        BadImageError: it cannot be read, or has more than one channel; the text says what follows.
    """
    probe(path)
    try:
        with Image.open(path, formats=(*FORMATS, 'TIFF')) as image:
            stored = np.array(image)
    except UNREADABLE as error:
        raise BadImageError(f'the pixels cannot be decoded: {error}') from error
    if stored.ndim != 2:
        gray = all(np.array_equal(stored[..., 0], stored[..., i]) for i in range(1, min(stored.shape[2], 3)))
        raise BadImageError(
            f'a label map has one channel, this one {stored.shape[2]} '
            + ('with the same values: save one of them' if gray else '(colours?): save class indices')
        )
    return stored


def read_labels(path: Path) -> StoredLabels:
    """Read a label map as mmseg's LoadAnnotations does: of a palette image the indices, then as uint8.

    Raises:
        BadImageError: as ``stored_labels``, and for a side of one pixel, which mmseg cannot load.
    """
    stored = stored_labels(path)
    if min(stored.shape) == 1:
        raise BadImageError(f'{stored.shape[1]} x {stored.shape[0]}: mmseg drops a side of one pixel')
    if stored.dtype in (np.uint8, bool):
        return StoredLabels(stored.shape, count_labels(stored), {})
    with np.errstate(invalid='ignore'):
        labels = stored.astype(np.uint8)
    changed = stored != labels
    values = np.unique(stored[changed])
    with np.errstate(invalid='ignore'):
        wrapped = dict(zip(values.tolist(), values.astype(np.uint8).tolist(), strict=True))
    return StoredLabels(stored.shape, count_labels(labels), wrapped)


def count_labels(labels: np.ndarray) -> np.ndarray:
    """(256,) int64: pixels of each label in a uint8 or bool array of any shape, exact."""
    flat, counts = labels.reshape(-1), np.zeros(256, np.int64)
    for start in range(0, flat.size, CHUNK):
        counts += np.bincount(flat[start : start + CHUNK], minlength=256)
    return counts
