"""Label 0: a class, or unlabelled; by the option, by the labels, by the config."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS

from swin_dense.data import ade20k, fields
from swin_dense.data.zero_label import labels_of, of_labels
from swin_dense.errors import UserError
from tests.data.test_ade20k import data_set, recipe, stock
from tests.tools.running import in_process
from tests.tools.runs import SEGMENTATION, iterations

tool = pytest.fixture(in_process)
NAMES = ('background', 'roof', 'tree')


@pytest.mark.parametrize(
    ('labels', 'classes', 'expected'),
    [
        ({0, 1, 2, 3}, NAMES, 'ignored'),  # 3 is a class only if 1 is the first
        ({1, 3, 255}, NAMES, 'ignored'),
        ({0, 1, 2}, NAMES, 'class'),
        ({0, 1, 2, 255}, ('Void ', 'a', 'b'), 'class'),
        ({0, 1, 2}, ('roof', 'tree', 'water'), None),  # water may not occur
        ({0, 2}, NAMES, None),
        ({1, 2}, NAMES, None),
        ({0, 1}, ('a', 'b'), 'class'),  # or 'a' alone would be learnt
        ({0, 1, 9}, NAMES, None),  # fits neither: an error of its own
        ({255}, NAMES, None),
        (set(), NAMES, None),
        ({0}, ('a',), None),
    ],
)
def test_what_labels_say(labels: set[int], classes: tuple[str, ...], expected: str | None):
    assert of_labels(labels, classes) == expected


@pytest.mark.parametrize(('name', 'labels'), [('dubai/annotations/training', {0, 1, 2, 3, 4, 5})])
def test_the_labels_of_real_maps(shared: Callable[[str], Path], name: str, labels: set[int]):
    folder, _, rest = name.partition('/')
    assert labels_of(shared(folder) / rest, '.png') - {255} == labels


def reduces(config: Config) -> set[bool]:
    """What mmseg's own data sets make of a config."""
    datasets = [
        d for loader in fields.loaders(config).values() for d in fields.inner_datasets(loader['dataset'])
    ]
    return {DATASETS.build({**dataset, 'pipeline': []}).reduce_zero_label for dataset in datasets}


def named(root: Path, names: tuple[str, ...]) -> Path:
    (root / 'classes.txt').write_text('\n'.join(names))
    return root


def prepared(config: Config, root: Path, option: str | None = None, options: tuple[str, ...] = ()) -> Config:
    ade20k.point_at(config, root)
    ade20k.name_classes(config, root, None, options, option)
    return config


@pytest.mark.parametrize(
    ('labels', 'option', 'expected'),
    [
        ((0, 1, 2), None, False),  # the recipe says True, of its own data
        ((0, 1, 2, 3), None, True),
        ((0, 2), None, True),
        ((0, 2), 'class', False),
        ((0, 1, 2), 'ignored', True),
        ((0, 1, 2, 3), 'class', False),
    ],
)
def test_the_folder_of_data(tmp_path: Path, labels: tuple[int, ...], option: str | None, expected: bool):
    root = named(data_set(tmp_path, labels=labels), NAMES)
    assert reduces(prepared(recipe(), root, option)) == {expected}


def test_an_option_of_the_config_has_the_last_word(tmp_path: Path):
    root = named(data_set(tmp_path, labels=(0, 1, 2)), NAMES)
    stated = ('train_dataloader.dataset.reduce_zero_label=True',)
    assert reduces(prepared(recipe(), root, None, stated)) == {True}
    with pytest.raises(UserError, match=r'--zero-label class and --cfg-options .*: give one of them'):
        prepared(recipe(), root, 'class', stated)


@pytest.mark.parametrize('option', ['ignored', 'class'])
def test_every_place_agrees(tmp_path: Path, option: str):
    """mmseg asserts that a step which states it agrees with its data set."""
    root = data_set(tmp_path, labels=(0, 1, 2, 3))
    config = recipe()
    config.train_dataloader.dataset.pipeline[1].reduce_zero_label = True
    prepared(config, named(root, NAMES), option)
    assert reduces(config) == {option == 'ignored'}
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert dataset.pipeline.transforms[1].reduce_zero_label is (option == 'ignored')


@pytest.mark.parametrize(('option', 'classes'), [('ignored', 3), ('class', 4), (None, 3)])
def test_classes_that_are_counted(tmp_path: Path, option: str | None, classes: int):
    config = prepared(recipe(), data_set(tmp_path, labels=(0, 1, 2, 3)), option)
    assert len(config.train_dataloader.dataset.metainfo.classes) == classes


@pytest.mark.parametrize(('option', 'expected'), [(None, True), ('class', False)])
def test_a_type_with_classes_of_its_own(
    shared: Callable[[str], Path], tmp_path: Path, option: str | None, expected: bool
):
    config = prepared(stock(tmp_path), shared('ade20k-sample'), option)
    assert reduces(config) == {expected}
    assert config.train_dataloader.dataset.type == 'ADE20KDataset'


def small(tmp_path: Path) -> Path:
    """Two images a split whose label 0 is the background."""
    random = np.random.default_rng(0)
    for split in ('training', 'validation'):
        for kind in ('images', 'annotations'):
            (tmp_path / 'ade' / kind / split).mkdir(parents=True)
        for number in range(2):
            labels = np.kron(random.permutation(9).reshape(3, 3) % 3, np.ones((48, 48))).astype(np.uint8)
            cv2.imwrite(str(tmp_path / 'ade' / 'annotations' / split / f'{number}.png'), labels)
            cv2.imwrite(
                str(tmp_path / 'ade' / 'images' / split / f'{number}.jpg'),
                np.repeat(labels[..., None] * 80, 3, axis=2),
            )
    return named(tmp_path / 'ade', NAMES)


@pytest.mark.parametrize(
    ('options', 'row'), [((), "the class 'background'"), (('--zero-label', 'ignored'), 'unlabelled: ignored')]
)
def test_the_header_says_it(tmp_path: Path, tool: Callable, options: tuple[str, ...], row: str):
    arguments = ['--data', small(tmp_path), '--work-dir', tmp_path / 'run', '--device', 'cpu', *options]
    ended = tool('train', SEGMENTATION, *arguments, '--cfg-options', *iterations(2))
    # the check of the data stops a run in which label 0 is the background, and is to be ignored
    assert (ended.status == 0) == (not options), ended.err
    if options:
        assert '--zero-label class' in ended.err
    else:
        line = next(line for line in ended.out.splitlines() if line.startswith('label 0'))
        assert row in line


def test_check_data_names_the_option(tmp_path: Path, tool: Callable):
    root = small(tmp_path)
    wrong = tool('check_data', SEGMENTATION, '--data', root, '--zero-label', 'ignored')
    assert wrong.status == 2
    assert '(--zero-label class)' in ' '.join(wrong.out.split())
    right = tool('check_data', SEGMENTATION, '--data', root, '--zero-label', 'class')
    assert (right.status, right.err) == (0, '')
    assert tool('check_data', root).status == 0
    assert tool('check_data', root, '--zero-label', 'ignored').status == 2


def test_it_is_for_label_maps(tmp_path: Path, tool: Callable):
    line = tool('train', 'configs/demo/mask_rcnn_swin_nano.py', '--zero-label', 'class').error()
    assert line == 'error: --zero-label is for segmentation: COCO annotations have no label 0\n'
