"""A small COCO set in which nothing is wrong, to be changed, and what the check says of it."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from swin_dense.check import coco_sets
from swin_dense.console.findings import Finding, errors
from swin_dense.data.coco import Split

NAN, INF = float('nan'), float('inf')
SQUARE = [4, 4, 14, 4, 14, 14, 4, 14]
HEIGHT, WIDTH = 32, 48
GARBAGE = 'o' * 50  # in place of compressed RLE


def encoded(mask: np.ndarray) -> dict:
    found = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {'size': list(found['size']), 'counts': found['counts'].decode()}


def good() -> dict:
    """Three images with two objects each: a polygon, and compressed and plain run lengths."""
    rng = np.random.default_rng(0)
    images = [dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH) for i in (11, 12, 13)]
    noise = rng.random((HEIGHT, WIDTH)) > 0.5
    runs = {'size': [HEIGHT, WIDTH], 'counts': [100, 36, HEIGHT * WIDTH - 136]}
    masks = ([SQUARE], encoded(noise), runs, [SQUARE, SQUARE], encoded(~noise), [SQUARE])
    annotations = [
        dict(id=i, image_id=11 + i % 3, category_id=1 + i % 2, bbox=[4, 4, 10, 10], area=100, iscrowd=0)
        | dict(segmentation=copy.deepcopy(mask))
        for i, mask in enumerate(masks, 101)
    ]
    return dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='cat'), dict(id=2, name='dog')]
    )


def check(root: Path, content: object, text: str | None = None, **options: Any) -> list[Finding]:  # noqa: ANN401
    path = root / 'instances.json'
    path.write_text(json.dumps(content) if text is None else text)
    settings = dict(wanted=None, decode=False) | options
    return coco_sets.check_split(Split(path, root), **settings)


def the_error(found: list[Finding]) -> Finding:
    (error,) = errors(found)
    assert error.file.name == 'instances.json'
    return error


def change(content: dict, field: str, value: object) -> None:
    """``'annotations.0.bbox'`` or ``'images.0'``."""
    *path, last = (int(part) if part.isdigit() else part for part in field.split('.'))
    for part in path:
        content = content[part]
    content[last] = value


def assert_one_error(
    root: Path, place: str, value: object, field: str, message: str, examples: tuple | None
) -> None:
    """That a change of the good set is one error, found at once: nothing may hang or end the process.

    Args:
        root: where its images are.
        place, value: what is changed, as of ``change``.
        field, message: the end of the field and a part of the message of the error.
        examples: what it lists, None for anything.
    """
    content = good()
    change(content, place, value)
    begin = time.monotonic()
    error = the_error(check(root, content))
    assert time.monotonic() - begin < 5
    assert error.field.endswith(field)
    assert message in error.message
    if examples is not None:
        assert error.examples == examples
