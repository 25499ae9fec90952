"""The check of ADE20K-style sets, each fault against what mmseg makes of it."""

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample
from PIL import Image

from swin_dense.data import check_ade20k, label_maps
from swin_dense.data.check_ade20k import check_split
from swin_dense.data.findings import Finding
from swin_dense.data.images import BadImageError
from swin_dense.engine import config as configs

RECIPE = str(Path(__file__).parents[2] / 'configs/demo/upernet_swin_nano.py')
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


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)


def rows(*labels: int, dtype: type = np.uint8) -> np.ndarray:
    """(12, 16), each label in as many rows."""
    return np.repeat(np.array(labels, dtype), 12 // len(labels))[:, None].repeat(16, 1)


def grave(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity != 'note']


def as_mmseg_loads(path: Path, reduce_zero_label: bool = False) -> np.ndarray:
    sample = dict(seg_map_path=str(path), reduce_zero_label=reduce_zero_label, seg_fields=[])
    return LoadAnnotations()(sample)['gt_seg_map']


@FULL
def test_a_good_set_has_notes_alone(data: DataSet, decode: bool):
    found = data.check(decode=decode)
    assert not grave(found)
    text = '\n'.join(finding.line() for finding in found)
    assert 'label 0 covers 25 % of pixels and reduce_zero_label=True: it is ignored' in text
    assert 'road 25 %, house 25 %, tree 25 %, ignored 25 %' in text


# row 62


@pytest.mark.parametrize(('reduce', 'label'), [(True, 4), (False, 3), (False, 254), (True, 254)])
def test_a_label_beyond_the_classes(data: DataSet, reduce: bool, label: int):
    good = (1, 2, 3) if reduce else (0, 1, 2)
    for number in range(3):
        data.label(f'{number}', rows(*good))
    data.label('1', rows(*good, label))
    logits = torch.zeros(1, 3, 12, 16)
    loaded = torch.from_numpy(as_mmseg_loads(data.labels / '1.png', reduce)).long()
    with pytest.raises(IndexError):
        CrossEntropyLoss()(logits, loaded[None])
    text = data.error(reduce_zero_label=reduce)
    assert text.startswith(f'{data.labels / "1.png"}: label {label}: 3 classes')
    assert f'labels are {good[0]} to {good[-1]}' in text


def test_many_labels_beyond_the_classes_are_no_flood(data: DataSet):
    data.label('0', np.arange(192, dtype=np.uint8).reshape(12, 16))
    errors = [finding for finding in data.check() if finding.severity == 'error']
    assert len(errors) == label_maps.SHOWN_VALUES + 1
    assert errors[-1].count == 192 - 4 - label_maps.SHOWN_VALUES


# row 63


def test_rgb_label_maps(data: DataSet):
    colours = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(colours).save(data.labels / '2.png')
    assert as_mmseg_loads(data.labels / '2.png').ndim == 3
    assert data.error() == (
        f'{data.labels / "2.png"}: a label map has one channel, this one 3 (colours?): save class indices'
    )
    Image.fromarray(np.dstack([rows(1, 2)] * 3)).save(data.labels / '2.png')
    assert 'with the same values: save one of them' in data.error()


def palette(labels: np.ndarray, bits: int) -> Callable[[Path], None]:
    image = Image.fromarray(labels).convert('L')
    image = Image.frombytes('P', image.size, image.tobytes())
    image.putpalette([200, 10, 10, 3, 90, 3, 7, 7, 7, 0, 0, 255])
    return lambda path: image.save(path, bits=bits)


KINDS = {
    'gray': lambda path: Image.fromarray(rows(0, 1, 3)).save(path),
    'palette': palette(rows(0, 1, 3), 8),
    'palette of 4 bits': palette(rows(0, 1, 3), 4),
    'palette of 2 bits': palette(rows(0, 1, 3), 2),
    'bilevel': lambda path: Image.fromarray(rows(0, 1) > 0).save(path),
    '16-bit': lambda path: Image.fromarray(rows(0, 1, 3, dtype=np.uint16)).save(path),
    'wrapping': lambda path: Image.fromarray(rows(1, 300, 3, dtype=np.uint16)).save(path),
}


@pytest.mark.parametrize('kind', KINDS)
def test_labels_are_counted_as_mmseg_reads_them(tmp_path: Path, kind: str):
    """Of a palette the indices, of 16 bits the lower eight."""
    path = tmp_path / 'x.png'
    KINDS[kind](path)
    found, loaded = label_maps.read(path), as_mmseg_loads(path)
    np.testing.assert_array_equal(found.counts, np.bincount(loaded.ravel(), minlength=256))
    assert found.size == loaded.shape == (12, 16)
    assert found.wrapped == ({300: 44} if kind == 'wrapping' else {})


def test_labels_that_wrap(data: DataSet):
    data.label('1', rows(1, 2, 258, dtype=np.uint16))
    text = data.error()
    assert text.startswith(f'{data.labels / "1.png"}: label 258: mmseg casts labels to uint8: 258 becomes 2')
    assert text.endswith("is trained as class 'house'")
    data.label('1', rows(1, 2, 65535, dtype=np.uint16))  # unlabelled, as many write it
    (found,) = grave(data.check())
    assert (found.severity, found.field) == ('warning', 'label 65535')
    assert 'becomes 255 and is ignored' in found.message


def test_labels_with_fractions_or_signs(data: DataSet):
    Image.fromarray(rows(1, 2, 3).astype(np.float32) + 0.5).save(data.labels / '0.tif')
    for path in data.labels.glob('*.png'):
        Image.open(path).save(path.with_suffix('.tif'))
    Image.fromarray(rows(1, 2, 3).astype(np.float32) + 0.5).save(data.labels / '0.tif')
    errors = [finding for finding in data.check(suffixes=('.jpg', '.tif')) if finding.severity == 'error']
    assert {finding.field for finding in errors} == {'label 1.5', 'label 2.5', 'label 3.5'}
    Image.fromarray(rows(-1, 2, 3, dtype=np.int32)).save(data.labels / '0.tif')
    (found,) = grave(data.check(suffixes=('.jpg', '.tif')))
    assert (found.severity, found.field) == ('warning', 'label -1')


# row 64


def test_zero_is_unlabelled_but_is_trained(data: DataSet):
    text = data.error(reduce_zero_label=False)
    assert 'label 3' in text
    assert 'with reduce_zero_label=True the labels fit' in text


def zero_finding(data: DataSet, **options: object) -> Finding:
    (found,) = [finding for finding in data.check(**options) if finding.field == 'reduce_zero_label']
    return found


def relabel(data: DataSet, *labels: int) -> None:
    for number in range(3):
        data.label(f'{number}', rows(*labels))


def test_zero_is_a_class_but_is_ignored(data: DataSet, monkeypatch: pytest.MonkeyPatch):
    """Certain if the first class is the background, or if one class alone is left; else it may be chance."""
    relabel(data, 0, 1, 2)
    found = zero_finding(data)
    assert found.severity == 'warning'
    assert 'label 0 covers 33.3 % of pixels and reduce_zero_label=True' in found.message
    assert "as if 0 were class 'road'" in found.message
    background = ('Background', 'house', 'tree')
    assert zero_finding(data, classes=background).severity == 'error'
    relabel(data, 0, 1)
    assert zero_finding(data, classes=('wall', 'crack')).severity == 'error'
    relabel(data, 0, 1, 2)
    monkeypatch.setattr(check_ade20k, 'SECONDS', -1)
    monkeypatch.setattr(check_ade20k, 'BATCH', 1)
    assert zero_finding(data, classes=background).severity == 'warning', 'one file proves nothing'


def test_zero_may_be_either(data: DataSet):
    relabel(data, 0, 2, 1)
    found = zero_finding(data, reduce_zero_label=False)
    assert found.severity == 'note'
    assert "reduce_zero_label=False: it is trained as class 'road'" in found.message
    relabel(data, 0, 1, 3)
    assert zero_finding(data).severity == 'note'
    relabel(data, 1, 2, 3)
    assert not [finding for finding in data.check() if finding.field == 'reduce_zero_label']


# row 65


def test_sizes_that_differ(data: DataSet):
    data.label('1', rows(1, 2, 3)[:, :15])
    assert data.error() == (
        f'{data.labels / "1.png"}: size: 15 x 12, but image {data.images / "1.jpg"} is 16 x 12'
    )


def test_an_image_that_exif_turns(data: DataSet):
    exif = Image.Exif()
    exif[274] = 6
    Image.open(data.images / '1.jpg').save(data.images / '1.jpg', exif=exif)
    assert data.error().endswith('is 12 x 16 as its EXIF orientation 6 shows it')
    data.label('1', rows(1, 2, 3).T)  # drawn on what is shown
    (found,) = grave(data.check())
    assert (found.severity, found.field) == ('warning', 'EXIF orientation')


# row 66


def test_a_label_map_is_missing(data: DataSet):
    (data.labels / '1.png').unlink()
    text = data.error()
    assert text == (
        f'{data.labels / "1.png"}: image {data.images / "1.jpg"} has no label map: '
        'training fails where it is drawn'
    )


def test_an_image_is_missing(data: DataSet):
    (data.images / '1.jpg').unlink()
    (found,) = grave(data.check())
    assert (found.severity, found.examples) == ('warning', ('1.png',))


@pytest.mark.parametrize('suffix', ['.jpeg', '.JPG', '_rgb.jpg.jpg'])
def test_the_wrong_image_suffix_names_the_right_one(data: DataSet, suffix: str):
    text = data.error(suffixes=(suffix, '.png'))
    assert text.startswith(f'{data.images}: img_suffix: no image ends with {suffix!r}: 3 end with ')
    assert "'.jpg'" in text
    assert 'hangs under InfiniteSampler' in text


def test_the_wrong_label_suffix_names_the_right_one(data: DataSet):
    for path in sorted(data.labels.iterdir()):
        path.rename(path.with_name(f'{path.stem}_labelTrainIds.png'))
    text = data.error(suffixes=('.jpg', '_gtFine.png'))
    assert text == (
        f"{data.labels}: seg_map_suffix: no label map ends with '_gtFine.png': "
        "3 end with '_labelTrainIds.png'"
    )
    text = data.error()
    assert text.startswith(
        f"{data.labels}: seg_map_suffix: no label map has the name of an image and '.png': "
        "3 end with '_labelTrainIds.png'"
    )


def test_images_of_another_suffix_are_left_out(data: DataSet):
    Image.open(data.images / '0.jpg').save(data.images / '9.JPEG')
    (found,) = grave(data.check())
    assert (found.severity, found.examples) == ('warning', ('9.JPEG',))


@pytest.mark.parametrize('decode', [False, True])
def test_nothing_there(tmp_path: Path, decode: bool):
    folders = (tmp_path / 'images', tmp_path / 'labels')
    options = ('.jpg', '.png', CLASSES, True, decode)
    assert 'the folder does not exist' in check_split(*folders, *options)[0].line()
    for folder in folders:
        folder.mkdir()
    found = check_split(*folders, *options)
    assert [finding.severity for finding in found] == ['error', 'error']
    assert 'there are no image files at all' in found[0].message
    assert 'hangs under InfiniteSampler' in found[0].message


def test_folders_below_are_searched_once_as_mmseg_does(data: DataSet):
    for folder in (data.images, data.labels):
        (folder / 'below').mkdir()
        for path in list(folder.glob('0.*')):
            path.rename(folder / 'below' / path.name)
        (folder / 'below' / 'loop').symlink_to(folder)
        (folder / '.hidden.jpg').write_bytes(b'')
    assert not grave(data.check())
    (data.labels / 'below' / '0.png').unlink()
    assert str(data.labels / 'below' / '0.png') in data.error()


# row 67, and 42 for images


def loss(size: tuple[int, int], labels: torch.Tensor) -> torch.Tensor:
    config = configs.load(RECIPE, ['model.data_preprocessor.size=(32,32)'])
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(config.model)
    sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
    batch = dict(inputs=[torch.zeros(3, *size, dtype=torch.uint8)] * 2, data_samples=[sample, sample.clone()])
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    return model.parse_losses(losses)[0]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('size', [(32, 32), (1, 1), (1, 32)])
def test_the_loss_is_finite_without_labels_and_for_the_smallest_images(size: tuple[int, int]):
    assert torch.isfinite(loss(size, torch.ones(1, *size, dtype=torch.long)))
    blank = loss(size, torch.full((1, *size), label_maps.IGNORED))
    assert torch.isfinite(blank)
    assert blank == 0


def test_label_maps_without_labels_are_counted(data: DataSet):
    data.label('1', rows(255, 0))
    (found,) = [finding for finding in data.check() if 'every pixel' in finding.message]
    assert (found.severity, found.examples) == ('note', ('1.png',))
    relabel(data, 0)
    assert 'every pixel of every label map is ignored' in data.error()


def test_label_maps_of_one_row(data: DataSet):
    data.label('1', np.ones((1, 16), np.uint8))
    assert as_mmseg_loads(data.labels / '1.png').shape == (16,)
    assert data.error() == f'{data.labels / "1.png"}: 16 x 1: mmseg drops a side of one pixel'


# row 68


def test_counts_are_exact_beyond_what_single_precision_holds():
    """mmseg's histc counts in float32, which has no 2 ** 24 + 1."""
    labels = np.zeros(2**24 + 5, np.uint8)
    labels[-2:] = 7
    counts = label_maps.count_labels(labels)
    assert counts.dtype == np.int64
    assert counts[[0, 7]].tolist() == [2**24 + 3, 2]
    histogram = label_maps.Histogram(CLASSES, False)
    for _ in range(3):
        histogram.add(Path('x.png'), label_maps.LabelMap((1, labels.size), counts, {}))
    assert histogram.counts[[0, 7]].tolist() == [3 * (2**24 + 3), 6]


# rows 35, 36 and 41


@FULL
@pytest.mark.parametrize('which', ['images', 'labels'])
@pytest.mark.parametrize('content', ['nothing', 'HTML', 'half', 'huge'])
def test_files_that_are_no_images(data: DataSet, which: str, content: str, decode: bool):
    path = data.images / '1.jpg' if which == 'images' else data.labels / '1.png'
    good = path.read_bytes()
    said = {'nothing': 'empty', 'HTML': 'HTML', 'half': 'cut off', 'huge': 'more than'}[content]
    bad = {'nothing': b'', 'HTML': b'<!DOCTYPE html>', 'half': good[:-15], 'huge': huge()}[content]
    path.write_bytes(bad)
    text = data.error(decode=decode)
    assert text.startswith(f'{path}: ')
    assert said in text


def huge() -> bytes:
    """A PNG of 60000 x 60000, as far as its header goes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        rest = kind + content
        return struct.pack('>I', len(content)) + rest + struct.pack('>I', zlib.crc32(rest))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'\0' * 100)) + chunk(b'IEND', b'')


def test_pixels_that_cannot_be_decoded(data: DataSet):
    """The header and the end are there: the full check finds it in images, and both in label maps."""
    path = data.labels / '1.png'
    content = bytearray(path.read_bytes())
    start = content.index(b'IDAT') + 4
    content[start : start + 8] = b'\xff' * 8
    path.write_bytes(content)
    with pytest.raises(BadImageError):
        label_maps.read(path)
    assert data.error().startswith(f'{path}: the pixels cannot be decoded')


# what the hosts' loader does not take as it is


def test_images_of_other_kinds(data: DataSet):
    for path in data.images.glob('*.jpg'):
        pixels = np.dstack([np.asarray(Image.open(path)), rows(1, 2)]).astype(np.uint16) * 257
        style = dict(photometric='minisblack', planarconfig='contig')
        tifffile.imwrite(path.with_suffix('.tif'), pixels, **style)
        path.unlink()
    (found,) = grave(data.check(suffixes=('.tif', '.png'), decode=True))
    assert (found.severity, found.count) == ('warning', 3)
    assert "dict(type='swin_dense.LoadImage', channels=4)" in found.message
    tifffile.imwrite(data.images / '1.tif', pixels[..., :3], photometric='rgb')
    text = data.error(suffixes=('.tif', '.png'))
    assert text == f'{data.images / "1.tif"}: image: 3 channels, but other images have 4'


def test_sixteen_bits_and_alpha(data: DataSet):
    for path in data.images.glob('*.jpg'):
        image = Image.open(path)
        image.putalpha(Image.fromarray(rows(9, 200)))
        image.save(path.with_suffix('.tif'))
        path.unlink()
    (found,) = grave(data.check(suffixes=('.tif', '.png')))
    assert 'multiplies' in found.message
    for path in data.images.glob('*.tif'):
        Image.fromarray(rows(9, 60000, dtype=np.uint16)).save(path.with_suffix('.png'))
        path.unlink()
    (found,) = grave(data.check(suffixes=('.png', '.png')))
    assert '16 bits a value' in found.message


def test_a_large_set_is_sampled(data: DataSet, monkeypatch: pytest.MonkeyPatch):
    for number in range(3, 12):
        data.add(f'{number}')
    data.label('7', rows(9))
    (data.images / '11.jpg').write_bytes(b'')
    monkeypatch.setattr(check_ade20k, 'SECONDS', -1)
    monkeypatch.setattr(check_ade20k, 'BATCH', 4)
    found = data.check()
    assert '4 of 12 pairs were read' in found[-1].message
    assert any('11.jpg' in finding.line() for finding in found), 'empty files come first'
    full = '\n'.join(finding.line() for finding in data.check(decode=True))
    assert 'pairs were read' not in full
    assert re.search(r'7\.png: label 9', full)


def test_any_beginning_of_the_order_is_evenly_spread():
    stems = [f'{i}' for i in range(1000)]
    first = sorted(int(stem) for stem in check_ade20k._ordered(stems, set())[:100])
    assert check_ade20k._ordered(stems, {'777'})[0] == '777'
    assert max(np.diff(first)) <= 20
    assert first[0] <= 20
    assert first[-1] >= 980
