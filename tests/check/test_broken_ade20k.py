"""The real sets pass, and each of a number of ways to break one is found before training."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mmseg.datasets import ADE20KDataset
from PIL import Image

from swin_dense.check.ade20k_sets import check_split
from swin_dense.console.findings import Finding, errors

CLASSES = ('building', 'land', 'road', 'vegetation', 'water')
TILE = 'tile3_006'


@dataclass
class Copy:
    """The training split of dubai, of links; what is written replaces the link."""

    images: Path
    labels: Path

    def check(self, decode: bool, reduce_zero_label: bool = True) -> list[Finding]:
        return check_split(self.images, self.labels, '.jpg', '.png', CLASSES, reduce_zero_label, decode)

    def image(self) -> Path:
        return self.images / f'{TILE}.jpg'

    def label(self) -> Path:
        return self.labels / f'{TILE}.png'

    def relabel(self, change: Callable[[np.ndarray], np.ndarray], *paths: Path) -> None:
        for path in paths or (self.label(),):
            labels = change(np.asarray(Image.open(path)))
            path.unlink()
            Image.fromarray(labels).save(path)

    def replace(self, path: Path, content: bytes) -> None:
        path.unlink()
        path.write_bytes(content)


@pytest.fixture
def dubai(shared: Callable[[str], Path], tmp_path: Path) -> Copy:
    root = shared('dubai')
    for kind in ('images', 'annotations'):
        (tmp_path / kind).mkdir()
        for path in (root / kind / 'training').iterdir():
            (tmp_path / kind / path.name).symlink_to(path.resolve())
    return Copy(tmp_path / 'images', tmp_path / 'annotations')


def with_a_label(value: int, dtype: type = np.uint8) -> Callable[[np.ndarray], np.ndarray]:
    def change(labels: np.ndarray) -> np.ndarray:
        changed = labels.astype(dtype)
        changed[:9, :9] = value
        return changed

    return change


def truncate(data: Copy, path: Path) -> None:
    data.replace(path, path.read_bytes()[:-500])


def turn(data: Copy) -> None:
    """Wide and upside down as stored, with the orientation that a camera adds."""
    image = Image.open(data.image())
    width, height = image.size
    exif = Image.Exif()
    exif[274] = 6
    data.image().unlink()
    image.crop((0, 0, width, height - 16)).save(data.image(), exif=exif)
    data.relabel(lambda labels: labels[:-16])


def rename(data: Copy) -> None:
    for path in data.labels.iterdir():
        path.rename(path.with_name(f'{path.stem}_mask.png'))


def swap_colours(labels: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (6, 3), np.uint8)[labels]


BROKEN: dict[str, tuple[Callable[[Copy], None], tuple[str, ...]]] = {
    'label beyond the classes': (lambda d: d.relabel(with_a_label(6)), (f'{TILE}.png', 'label 6')),
    '16-bit label': (lambda d: d.relabel(with_a_label(300, np.uint16)), (f'{TILE}.png', '300 becomes 44')),
    'RGB label map': (lambda d: d.relabel(swap_colours), (f'{TILE}.png', 'one channel, this one 3')),
    'label map cropped': (lambda d: d.relabel(lambda x: x[1:]), (f'{TILE}.png', f'{TILE}.jpg is ')),
    'label map missing': (lambda d: d.label().unlink(), (f'{TILE}.png', 'has no label map')),
    'label suffix': (rename, ('seg_map_suffix', "56 end with '_mask.png'")),
    'truncated image': (lambda d: truncate(d, d.image()), (f'{TILE}.jpg', 'cut off')),
    'truncated label map': (lambda d: truncate(d, d.label()), (f'{TILE}.png', 'cut off')),
    'empty image': (lambda d: d.replace(d.image(), b''), (f'{TILE}.jpg', 'empty')),
    'HTML': (lambda d: d.replace(d.image(), b'<html>Not found</html>'), (f'{TILE}.jpg', 'HTML')),
    'EXIF': (turn, (f'{TILE}.png', 'EXIF orientation 6')),
    'no images': (lambda d: [path.unlink() for path in d.images.iterdir()], ('img_suffix', 'hangs')),
    'nothing labelled': (
        lambda d: d.relabel(lambda x: np.full_like(x, 255), *d.labels.iterdir()),
        ('every pixel of every label map is ignored',),
    ),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken(dubai: Copy, name: str):
    spoil, said = BROKEN[name]
    spoil(dubai)
    lines = [finding.line() for finding in errors(dubai.check(decode=False))]
    assert any(all(part in line for part in said) for line in lines), lines
    assert len(lines) <= 2


def test_zero_label_the_wrong_way(dubai: Copy):
    (found,) = {finding.message for finding in errors(dubai.check(decode=False, reduce_zero_label=False))}
    assert 'with reduce_zero_label=True the labels fit' in found


@pytest.mark.parametrize('decode', [False, True])
def test_the_real_set_passes(dubai: Copy, decode: bool):
    links = [finding for finding in dubai.check(decode) if finding.field == 'links']
    assert [(finding.severity, finding.count) for finding in links] == [('warning', 56)] * 2
    found = [finding for finding in dubai.check(decode) if finding.field != 'links']
    assert {finding.severity for finding in found} == {'note'}
    counts = np.zeros(256, np.int64)
    for path in dubai.labels.iterdir():
        counts += np.bincount(np.asarray(Image.open(path)).ravel(), minlength=256)
    (line,) = [finding.message for finding in found if finding.field == 'pixels']
    for label, name in enumerate(CLASSES, 1):
        assert f'{name} {100 * counts[label] / counts.sum():.3g} %' in line
    assert f'label 0 covers {100 * counts[0] / counts.sum():.3g} % of pixels' in found[0].message


def test_real_ade20k_passes(shared: Callable[[str], Path]):
    root = shared('ade20k-sample') / 'sampleData'
    classes = ADE20KDataset.METAINFO['classes']
    found = check_split(root / 'images', root / 'annotations', '.jpg', '.png', classes, True, True)
    assert {finding.severity for finding in found} == {'note'}
    (absent,) = [finding for finding in found if finding.field == 'classes']
    assert absent.count == 150 - 15
