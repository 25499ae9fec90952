"""A small ADE20K-style set in which nothing is wrong, to be changed, and what the check says of it."""

from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from swin_dense.check.ade20k_sets import check_split
from swin_dense.console.findings import Finding

CLASSES = ('road', 'house', 'tree')
FULL = pytest.mark.parametrize('decode', [False, True], ids=['quick', 'full'])


class DataSet:
    """Three images of 16 x 12 with label maps whose labels are 1, 2, 3 and a few 0."""

    def __init__(self, root: Path) -> None:
        self.images, self.labels = root / 'images', root / 'labels'
        for folder in (self.images, self.labels):
            folder.mkdir(parents=True)
        for number in range(3):
            self.add(f'{number}')

    def add(self, name: str, labels: np.ndarray | None = None) -> None:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).save(self.images / f'{name}.jpg')
        self.label(name, rows(0, 1, 2, 3) if labels is None else labels)

    def label(self, name: str, labels: np.ndarray) -> None:
        Image.fromarray(labels).save(self.labels / f'{name}.png')

    def check(
        self,
        classes: tuple[str, ...] = CLASSES,
        reduce_zero_label: bool = True,
        suffixes: tuple[str, str] = ('.jpg', '.png'),
        decode: bool = False,
    ) -> list[Finding]:
        return check_split(self.images, self.labels, *suffixes, classes, reduce_zero_label, decode)

    def error(self, **options: object) -> str:
        """The line of the only error."""
        (found,) = [finding for finding in self.check(**options) if finding.severity == 'error']
        return found.line()


def rows(*labels: int, dtype: type = np.uint8) -> np.ndarray:
    """(12, 16), each label in as many rows."""
    return np.repeat(np.array(labels, dtype), 12 // len(labels))[:, None].repeat(16, 1)


def grave(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity != 'note']


def as_mmseg_loads(path: Path, reduce_zero_label: bool = False) -> np.ndarray:
    sample = dict(seg_map_path=str(path), reduce_zero_label=reduce_zero_label, seg_fields=[])
    return LoadAnnotations()(sample)['gt_seg_map']
