"""Label maps: exact counts, mmseg's own scores, and what stands in for a missing map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.evaluation import IoUMetric
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.evaluate import ade20k, offline
from swin_dense.tasks.segmentation import Segmentation

NAMES = ('water', 'land', 'road', 'never')


def save(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


@pytest.fixture(params=[True, False], ids=['reduce_zero_label', 'plain labels'])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Config, Path]:
    """A config of four images of different sizes, and the folder of predictions."""
    rng, first = np.random.default_rng(0), int(request.param)
    for number in range(4):
        shape = (20 + number, 30)
        truth = rng.integers(0, 3, shape)
        predicted = np.where(rng.random(shape) < 0.7, truth, rng.integers(0, 3, shape)) + first
        truth = np.where(rng.random(shape) < 0.1, 0 if first else 255, truth + first)
        save(tmp_path / 'labels' / f'{number}.png', truth.astype(np.uint8))
        save(tmp_path / 'images' / f'{number}.jpg', np.zeros((*shape, 3), np.uint8))
        save(tmp_path / 'maps' / f'{number}.png', predicted.astype(np.uint8))
    leaf = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        reduce_zero_label=request.param,
        metainfo=dict(classes=NAMES),
    )
    return Config(dict(test_dataloader=dict(dataset=leaf))), tmp_path / 'maps'


def by_mmseg(folder: Path, reduced: bool) -> dict[str, float]:
    """Its metric, given what its pipeline and model would give."""
    metric = IoUMetric()
    metric.dataset_meta = dict(classes=NAMES)
    for path in sorted((folder / 'labels').iterdir()):
        truth, predicted = (np.asarray(Image.open(folder / kind / path.name)) for kind in ('labels', 'maps'))
        if reduced:
            truth, predicted = np.where(truth == 0, 255, truth - 1), predicted - 1
        maps = (torch.tensor(m.astype(np.int64))[None] for m in (truth, predicted))
        sample = dict(zip(('gt_sem_seg', 'pred_sem_seg'), (dict(data=m) for m in maps), strict=True))
        metric.process({}, [sample])
    return metric.evaluate(4)


def scored(config: Config, maps: Path) -> offline.Evaluated:
    task = Segmentation()
    return task.score(task.ground_truth(config), maps).evaluated


def test_the_scores_are_mmsegs(data: tuple[Config, Path]):
    config, maps = data
    found = scored(config, maps)
    online = by_mmseg(maps.parent, config.test_dataloader.dataset.reduce_zero_label)
    assert {name: round(value, 2) for name, value in found.metrics.items()} == pytest.approx(online, abs=1e-5)
    assert 60 < online['mIoU'] < 90
    assert found.classes['classes'][3] == dict(name='never', pixels=0, share=0.0, IoU=None, Acc=None)
    assert found.counts == dict(
        images=4, labelled_pixels=np.sum(found.confusion), images_without_predictions=0
    )


def test_by_hand():
    truth = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
    predicted = np.array([[0, 1, 1, 3], [2, 0, 0, 3]])  # 3: no label, or no prediction
    matrix = ade20k.confusion(truth, predicted, 3)
    assert matrix.tolist() == [[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0]]
    assert matrix.dtype == np.int64
    values = ade20k.ratios(matrix)
    assert values['IoU'].tolist() == [1 / 3, 1 / 3, 1 / 2]
    assert values['Acc'].tolist() == [1 / 2, 1 / 2, 1 / 2]
    expected = dict(aAcc=50.0, mIoU=100 * (1 / 3 + 1 / 3 + 1 / 2) / 3, mAcc=50.0)
    assert ade20k.metrics(matrix) == pytest.approx(expected, abs=1e-12)


def test_counts_above_2_to_the_24_are_exact():
    pixels = np.zeros((4097, 4096), np.int64)  # 2^24 + 4096 of them
    matrix = ade20k.confusion(pixels, pixels, 2)
    counted = ade20k.Counted(('a', 'b'), [matrix, matrix, np.eye(2, 3, dtype=np.int64)], [], [])
    assert counted.matrix.tolist() == [[2 * 4097 * 4096 + 1, 0, 0], [0, 1, 0]]


def test_an_image_without_prediction_is_wholly_missed(data: tuple[Config, Path]):
    config, maps = data
    before = scored(config, maps)
    (maps / '1.png').unlink()
    found = scored(config, maps)
    assert found.counts['images_without_predictions'] == 1
    assert found.counts['labelled_pixels'] == before.counts['labelled_pixels']
    lost = np.array(found.confusion)[:, -1]
    assert lost.sum() > 400
    assert np.array(found.confusion).sum(axis=1).tolist() == np.array(before.confusion).sum(axis=1).tolist()
    assert found.metrics['aAcc'] < before.metrics['aAcc'] - 10
    assert found.notes == ['1 of 4 images have no prediction: they count, as wholly missed']
    for path in maps.iterdir():
        path.unlink()
    nothing = scored(config, maps)
    assert nothing.metrics == dict(aAcc=0.0, mIoU=0.0, mAcc=0.0)


def broken(data: tuple[Config, Path], labels: np.ndarray) -> str:
    config, maps = data
    save(maps / '2.png', labels)
    with pytest.raises(UserError) as caught:
        scored(config, maps)
    return str(caught.value).replace(str(maps), 'maps')


def test_label_maps_that_cannot_be_scored(data: tuple[Config, Path]):
    first = int(data[0].test_dataloader.dataset.reduce_zero_label)
    assert (
        broken(data, np.ones((5, 6), np.uint8))
        == 'predictions maps/2.png: 6x5 pixels, the ground truth has 30x22'
    )
    wrong = np.full((22, 30), 4 + first, np.uint8)
    assert broken(data, wrong) == f'label map maps/2.png: label {4 + first}, but there are 4 classes'
    assert 'label 300,' in broken(data, np.full((22, 30), 300, np.uint16)), '16 bits are not wrapped'
    assert 'has one channel, this one 3' in broken(data, np.ones((22, 30, 3), np.uint8))
    (data[1] / '2.png').write_bytes(b'<html>')
    with pytest.raises(UserError, match='the file is HTML'):
        scored(*data)
    with pytest.raises(UserError, match='no folder of PNG label maps'):
        scored(data[0], data[1] / 'absent')


def test_a_label_of_the_ground_truth_that_is_no_class(data: tuple[Config, Path]):
    config, maps = data
    save(maps.parent / 'labels' / '2.png', np.full((22, 30), 99, np.uint8))
    with pytest.raises(UserError, match=r'labels/2.png: label 99, but there are 4 classes'):
        scored(config, maps)
