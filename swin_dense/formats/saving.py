"""Image files that are written: whole or not at all."""

from pathlib import Path

import cv2
import numpy as np

from swin_dense.storage.atomic import write_bytes

QUALITY = 95  # of JPEG: a lower one smears thin coloured lines


def save_image(path: Path, image: np.ndarray) -> None:
    """Write a picture (H, W, 3) BGR or a label map (H, W), whole or not at all.

    Raises:
        DiskFullError: there is no space.
        UserError: it cannot be written for another reason.
    """
    # OpenCV's own writing fails in silence
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if path.suffix == '.jpg' else []
    write_bytes(path, cv2.imencode(path.suffix, image, options)[1].tobytes())
