"""The check of the labels of ADE20K-style sets, each fault against what mmseg makes of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from mmseg.models.losses import CrossEntropyLoss
from mmseg.structures import SegDataSample
from PIL import Image

from swin_dense.check import ade20k_sets, label_maps
from swin_dense.console.findings import Finding
from swin_dense.engine import config as configs
from swin_dense.formats.label_maps import IGNORED, StoredLabels, count_labels, read_labels
from tests.check.ade20k_sets import CLASSES, DataSet, as_mmseg_loads, grave, rows

RECIPE = str(Path(__file__).parents[2] / 'configs/demo/upernet_swin_nano.py')


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
    found, loaded = read_labels(path), as_mmseg_loads(path)
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
    monkeypatch.setattr(ade20k_sets, 'SECONDS', -1)
    monkeypatch.setattr(ade20k_sets, 'BATCH', 1)
    monkeypatch.setattr(ade20k_sets, 'SAMPLED', 1)
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


# row 67, and 42 for images


def loss(size: tuple[int, int], labels: torch.Tensor) -> torch.Tensor:
    config = configs.load_config(RECIPE, ['model.data_preprocessor.size=(32,32)'])
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
    blank = loss(size, torch.full((1, *size), IGNORED))
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
    counts = count_labels(labels)
    assert counts.dtype == np.int64
    assert counts[[0, 7]].tolist() == [2**24 + 3, 2]
    histogram = label_maps.Histogram(CLASSES, False)
    for _ in range(3):
        histogram.add(Path('x.png'), StoredLabels((1, labels.size), counts, {}))
    assert histogram.counts[[0, 7]].tolist() == [3 * (2**24 + 3), 6]
