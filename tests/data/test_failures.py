"""What goes wrong while a sample is made is one line that names its file."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.runner.runner import _SlicedDataset
from mmseg.datasets import BaseSegDataset, MultiImageMixDataset
from mmseg.registry import TRANSFORMS

from swin_dense.data import failures
from swin_dense.errors import UserError

PIXELS = cv2.resize(np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8), (80, 60))
LOAD = [dict(type='mmseg.LoadImageFromFile'), dict(type='mmseg.LoadAnnotations')]


class StepWithAMistake(BaseTransform):
    """What a user may write."""

    def transform(self, results: dict) -> dict:
        return results['img'].missing


def folder(root: Path, count: int = 4) -> Path:
    for kind in ('images', 'labels'):
        (root / kind).mkdir(parents=True)
    for i in range(count):
        cv2.imwrite(str(root / 'images' / f'{i}.jpg'), PIXELS)
        cv2.imwrite(str(root / 'labels' / f'{i}.png'), np.ones((60, 80), np.uint8))
    return root


def data_set(root: Path, pipeline: list[dict] = LOAD) -> BaseDataset:
    return BaseSegDataset(
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=('a', 'b')),
        pipeline=pipeline,
    )


def refusal(dataset: object, index: int) -> str:
    with pytest.raises(UserError) as caught:
        failures.load_sample(dataset, index)
    text = str(caught.value)
    assert '\n' not in text
    return text


def broken_tables(content: bytes) -> bytes:
    """The first Huffman table has no code that is possible."""
    at = content.index(b'\xff\xc4')
    return content[: at + 5] + b'\xff' * 20 + content[at + 25 :]


SPOILED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    'end glued on': (lambda content: content[: len(content) // 2] + b'\xff\xd9', 'cut off'),
    'cut off': (lambda content: content[: len(content) // 2], 'cut off'),
    'broken tables': (broken_tables, 'cannot be decoded'),
    'empty': (lambda _: b'', 'empty'),
    'HTML': (lambda _: b'<!DOCTYPE html>', 'HTML'),
}


@pytest.mark.parametrize('what', SPOILED)
def test_a_damaged_image(tmp_path: Path, what: str, capfd: pytest.CaptureFixture):
    path = folder(tmp_path) / 'images' / '2.jpg'
    spoil, reason = SPOILED[what]
    path.write_bytes(spoil(path.read_bytes()))
    dataset = data_set(tmp_path)
    text = refusal(dataset, 2)
    assert text.startswith(f'image {path}: ')
    assert reason in text
    assert failures.load_sample(dataset, 1)['img'].shape == (60, 80, 3)
    assert 'Corrupt' not in capfd.readouterr().err


def test_missing_files_and_label_maps(tmp_path: Path):
    root = folder(tmp_path)
    dataset = data_set(root)
    (root / 'images' / '0.jpg').unlink()
    assert refusal(dataset, 0) == f'image {root}/images/0.jpg: the file is missing'
    (root / 'labels' / '1.png').write_bytes(b'no image')
    assert refusal(dataset, 1).startswith(f'label map {root}/labels/1.png: the file is no image')
    cv2.imwrite(str(root / 'labels' / '2.png'), np.ones((30, 80), np.uint8))
    differing = data_set(root, [*LOAD, StepWithAMistake()])
    assert refusal(differing, 1).endswith('the image is 80 x 60, the label map 80 x 30')


def test_a_mistake_in_a_step_is_named(tmp_path: Path):
    root = folder(tmp_path)
    text = refusal(data_set(root, [*LOAD, StepWithAMistake()]), 3)
    assert text.startswith(f'image {root}/images/3.jpg with label map {root}/labels/3.png: AttributeError')
    assert "'missing'" in text
    assert text.endswith('in the pipeline step StepWithAMistake')
    assert 'not enough memory' in str(failures.sample_error(data_set(root), 0, MemoryError()))


class Wrapped:
    """As engine/samples.py wraps a data set."""

    def __init__(self, dataset: object) -> None:
        self._dataset = dataset

    def __getattr__(self, name: str) -> object:
        return getattr(self._dataset, name)


def test_through_all_wrappers(tmp_path: Path):
    first, second = (data_set(folder(tmp_path / name)) for name in ('a', 'b'))
    both = ConcatDataset([first, second])
    repeated = RepeatDataset(first, 3, lazy_init=True)  # as from a config, which may nest them
    repeated.dataset = both
    repeated.full_init()
    mixture = MultiImageMixDataset(both, [])
    mixture.dataset = repeated
    mixed = Wrapped(_SlicedDataset(mixture, 20))

    def image(dataset: object, index: int) -> str:
        return failures.file_names(dataset, index)[0]

    assert image(mixed, 1) == f'{tmp_path}/a/images/1.jpg'
    assert image(mixed, 2 * 8 + 4 + 3) == f'{tmp_path}/b/images/3.jpg'
    assert failures.file_names(mixed, 1)[1] == f'{tmp_path}/a/labels/1.png'
    balanced = ClassBalancedDataset(first, 0.1, lazy_init=True)
    balanced.repeat_indices, balanced._fully_initialized = [0, 2, 2, 3], True
    assert [Path(image(balanced, i)).stem for i in range(4)] == ['0', '2', '2', '3']
    assert failures.file_names(object(), 5) == []
    assert 'sample 5: ' in str(failures.sample_error(object(), 5, ValueError('bad')))


def test_the_image_that_a_mixture_drew_is_named(tmp_path: Path):
    root = folder(tmp_path)
    path = root / 'images' / '3.jpg'
    path.write_bytes(broken_tables(path.read_bytes()))
    mosaic = dict(type='mmseg.RandomMosaic', prob=1.0, img_scale=(60, 80))
    mixture = MultiImageMixDataset(ConcatDataset([data_set(root)]), [])
    step = TRANSFORMS.build(mosaic)
    step.get_indices = step.get_indexes = lambda dataset: [3, 1, 2]
    mixture.pipeline, mixture.pipeline_types = [step], ['RandomMosaic']
    assert refusal(mixture, 0).startswith(f'image {path}: ')
