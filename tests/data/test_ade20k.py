"""ADE20K folders: what is found, and where the classes of a segmentation config come from."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.datasets import ADE20KDataset
from mmseg.registry import DATASETS
from PIL import Image

from swin_dense.data import ade20k, fields
from swin_dense.engine import config as configs
from swin_dense.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / 'configs/demo/upernet_swin_nano.py')
OFFICIAL = ('images/{}', 'annotations/{}', ('training', 'validation'))
MMSEG = ('img_dir/{}', 'ann_dir/{}', ('train', 'val'))
ONE_SPLIT = ('images', 'annotations', ('',))


def label_map(path: Path, labels: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.array([labels] * 4, np.uint8))


def data_set(
    root: Path,
    layout: tuple[str, str, tuple[str, ...]] = OFFICIAL,
    suffixes: tuple[str, str] = ('.jpg', '.png'),
    labels: tuple[int, ...] = (0, 1, 2, 3, 255),
) -> Path:
    """A folder with one image a split."""
    images, maps, splits = layout
    for split in splits:
        folder = root / images.format(split)
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f'1{suffixes[0]}'), np.zeros((4, len(labels), 3), np.uint8))
        label_map(root / maps.format(split) / f'1{suffixes[1]}', list(labels))
    return root


def stock(
    folder: Path, text: str = '', base: str = 'upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
) -> Config:
    """A user's config on top of one of mmseg's."""
    (folder / 'config.py').write_text(f"_base_ = 'mmseg::{base}'\n{text}")
    return configs.load_config(str(folder / 'config.py'))


@cache
def loaded() -> Config:
    return configs.load_config(RECIPE)


def recipe() -> Config:
    init_default_scope('mmseg')  # as loading does
    return copy.deepcopy(loaded())


def leaves(config: Config) -> list[dict]:
    return [
        leaf for part in fields.loaders(config).values() for leaf in fields.inner_datasets(part['dataset'])
    ]


def names(config: Config) -> tuple[str, ...]:
    found = {tuple(leaf['metainfo']['classes']) for leaf in leaves(config)}
    assert len(found) == 1
    return found.pop()


def message(call: Callable, *args: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    text = str(caught.value)
    assert '\n' not in text
    return text


def settled(config: Config, root: Path, file: Path | None = None) -> Config:
    ade20k.point_at(config, root)
    ade20k.name_classes(config, root, file)
    return config


@pytest.mark.parametrize('layout', [OFFICIAL, MMSEG, ONE_SPLIT], ids=['official', 'mmseg', 'one split'])
@pytest.mark.parametrize('folder', ['.', 'ADEChallengeData2016'])
def test_layouts(tmp_path: Path, layout: tuple[str, str, tuple[str, ...]], folder: str):
    root = data_set(tmp_path / folder, layout)
    found, splits = ade20k.find_layout(tmp_path)
    assert found == root
    images, maps, names_of_splits = layout
    train, val = (names_of_splits * 2)[:2]
    assert splits == ((images.format(train), maps.format(train)), (images.format(val), maps.format(val)))


@pytest.mark.parametrize('suffixes', [('.jpg', '.png'), ('.png', '.png'), ('.JPG', '.PNG'), ('.tif', '.tif')])
def test_suffixes(tmp_path: Path, suffixes: tuple[str, str]):
    config = settled(recipe(), data_set(tmp_path, suffixes=suffixes))
    for leaf in leaves(config):
        assert (leaf['img_suffix'], leaf['seg_map_suffix']) == suffixes
        assert len(DATASETS.build({**leaf, 'pipeline': []})) == 1


def test_other_files_beside_the_images_are_passed_over(tmp_path: Path):
    root = data_set(tmp_path)
    (root / 'images' / 'training' / '.DS_Store').write_bytes(b'')
    (root / 'images' / 'training' / '0_readme.txt').write_text('')
    assert ade20k.find_layout(root)[0] == root


@pytest.mark.parametrize(
    ('name', 'inner', 'counts'), [('dubai', '.', (56, 16)), ('ade20k-sample', 'sampleData', (3, 3))]
)
def test_real_data(
    shared: Callable[[str], Path], name: str, inner: str, counts: tuple[int, int], tmp_path: Path
):
    root = shared(name)
    config = settled(stock(tmp_path), root)
    for split, count in zip(('train', 'val'), counts, strict=True):
        leaf = config[f'{split}_dataloader'].dataset
        assert Path(leaf.data_root) == (root / inner).resolve() or Path(leaf.data_root).samefile(root / inner)
        assert len(DATASETS.build({**leaf, 'pipeline': []})) == count


def test_no_folder(tmp_path: Path):
    text = message(ade20k.find_layout, tmp_path / 'absent')
    assert f'data folder {tmp_path / "absent"} does not exist' in text


@pytest.mark.parametrize('present', ['nothing', 'images alone', 'COCO'])
def test_nothing_found(tmp_path: Path, present: str):
    if present != 'nothing':
        (tmp_path / 'images').mkdir()
        cv2.imwrite(str(tmp_path / 'images' / '1.jpg'), np.zeros((4, 4, 3), np.uint8))
    if present == 'COCO':
        (tmp_path / 'annotations').mkdir()
        (tmp_path / 'annotations' / 'instances.json').write_text('{}')
    text = message(ade20k.find_layout, tmp_path)
    assert f'data folder {tmp_path}: no images with label maps (looked for ' in text
    for looked in (
        'images/training with annotations/training',
        'img_dir/val with ann_dir/val',
        'images with annotations',
    ):
        assert looked in text


def test_without_data_the_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = message(ade20k.name_classes, recipe(), None, None)
    assert 'train_dataloader.dataset.data_prefix.img_path: folder data/shapes/ade/images/training' in text
    assert text.endswith('try --data DIR')


WRAPPED = """
leaf = dict(type='ADE20KDataset', data_root='old/root', pipeline=_base_.train_pipeline,
            data_prefix=dict(img_path='old/images', seg_map_path='old/labels'))
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(
    type='ConcatDataset', datasets=[leaf, leaf])))
"""


def test_point_at_replaces_every_path(tmp_path: Path):
    root = data_set(tmp_path / 'new')
    config = stock(tmp_path, WRAPPED)
    assert 'data/ade' in str(config.to_dict())
    ade20k.point_at(config, root)
    config.pop('leaf')  # the file's own variable
    assert 'old/' not in str(config.to_dict())
    assert 'data/ade' not in str(config.to_dict())
    assert len(leaves(config)) == 4
    for leaf, split in zip(leaves(config), ('training', 'training', 'validation', 'validation'), strict=True):
        assert leaf.data_root == str(root)
        assert leaf.data_prefix == dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}')


def with_metainfo(metainfo: dict) -> str:
    loaders = (
        f'{split}_dataloader = dict(dataset=dict(metainfo=metainfo))' for split in ('train', 'val', 'test')
    )
    return '\n'.join([f'metainfo = {metainfo!r}', *loaders])


def test_the_file_of_the_command_line_comes_first(tmp_path: Path):
    root = data_set(tmp_path)
    (root / 'classes.txt').write_text('a\nb\nc\n')
    (tmp_path / 'mine.txt').write_text('\n'.join(['sky', ' house ', 'tree', 'road']) + '\n')
    named = with_metainfo(dict(classes=('wall', 'sky'), palette=[[1, 2, 3], [4, 5, 6]]))
    config = settled(stock(tmp_path, named), root, tmp_path / 'mine.txt')
    assert names(config) == ('sky', 'house', 'tree', 'road')
    built = DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []})
    assert built.metainfo['classes'] == ('sky', 'house', 'tree', 'road')
    assert built.label_map is None, 'labels are the numbers of the lines'
    assert built.reduce_zero_label


def test_then_the_config(tmp_path: Path):
    """A type with classes of its own maps its labels to those that are named."""
    root = data_set(tmp_path)
    (root / 'classes.txt').write_text('a\nb\nc\n')
    config = settled(stock(tmp_path, with_metainfo(dict(classes=('sky', 'wall')))), root)
    assert names(config) == ('sky', 'wall')
    assert config.val_dataloader.dataset.type == 'ADE20KDataset'
    built = DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []})
    wall, sky = (ADE20KDataset.METAINFO['classes'].index(name) for name in ('wall', 'sky'))
    assert (built.label_map[sky], built.label_map[wall]) == (0, 1)
    assert built.reduce_zero_label


@pytest.mark.parametrize('inner', ['.', 'ADEChallengeData2016'])
def test_then_the_file_in_the_folder(tmp_path: Path, inner: str):
    root = data_set(tmp_path / 'data' / inner)
    (root / 'classes.txt').write_text('a\nb\nc\n')
    config = settled(stock(tmp_path), tmp_path / 'data')
    assert names(config) == ('a', 'b', 'c')
    assert DATASETS.build({**config.val_dataloader.dataset, 'pipeline': []}).reduce_zero_label


def test_then_the_type(tmp_path: Path):
    config = settled(stock(tmp_path), data_set(tmp_path))
    for leaf in leaves(config):
        assert leaf['type'] == 'ADE20KDataset'
        assert 'classes' not in (leaf.get('metainfo') or {})
    assert fields.head_classes(config.model) == {150}


@pytest.mark.parametrize(
    ('labels', 'expected'),
    [((0, 1, 3, 255), ('class_1', 'class_2', 'class_3')), ((1, 1), ('class_1',)), ((0, 4), 4)],
)
def test_then_the_label_maps(tmp_path: Path, labels: tuple[int, ...], expected: tuple[str, ...] | int):
    config = settled(recipe(), data_set(tmp_path, labels=labels))
    found = names(config)
    assert (found == expected) if isinstance(expected, tuple) else (len(found) == expected)
    assert fields.head_classes(config.model) == {len(found)}


def test_labels_are_counted_from_zero_where_zero_is_a_class(tmp_path: Path):
    config = recipe()
    for leaf in leaves(config):
        leaf['reduce_zero_label'] = False
    settled(config, data_set(tmp_path, labels=(0, 1, 2)))
    assert names(config) == ('class_0', 'class_1', 'class_2')
    assert not any(leaf['reduce_zero_label'] for leaf in leaves(config))


def test_label_maps_with_a_palette(tmp_path: Path):
    """Labels are the indices, not the colours."""
    root = data_set(tmp_path)
    for path in root.glob('annotations/*/*.png'):
        picture = Image.fromarray(np.array([[0, 1, 2, 2]] * 4, np.uint8), mode='P')
        picture.putpalette([0, 0, 0, 200, 10, 10, 10, 10, 200])
        picture.save(path)
    assert names(settled(recipe(), root)) == ('class_1', 'class_2')


def test_without_data_the_configs_own_folder_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As the recipe's first lines say: write the shapes to data/shapes, and train."""
    root = data_set(tmp_path / 'data' / 'shapes' / 'ade')
    monkeypatch.chdir(tmp_path)
    config = recipe()
    ade20k.name_classes(config, None, None)
    assert names(config) == ('class_1', 'class_2', 'class_3')
    (root / 'classes.txt').write_text('a\nb\nc\n')
    config = recipe()
    ade20k.name_classes(config, None, None)
    assert names(config) == ('a', 'b', 'c')


@pytest.mark.parametrize(
    ('kind', 'given', 'expected'),
    [
        ('ADE20KDataset', None, True),
        ('ADE20KDataset', False, False),
        ('BaseSegDataset', None, True),
        ('BaseSegDataset', False, False),
        ('mmseg.LoveDADataset', None, True),
        ('PascalContextDataset', None, False),
        ('CityscapesDataset', None, False),
        ('CityscapesDataset', True, True),
    ],
)
def test_whether_label_zero_is_a_class(tmp_path: Path, kind: str, given: bool | None, expected: bool):
    config = recipe()
    for leaf in leaves(config):
        leaf['type'] = kind
        leaf.pop('reduce_zero_label')
        if given is not None:
            leaf['reduce_zero_label'] = given
    (tmp_path / 'classes.txt').write_text('a\nb\n')
    settled(config, data_set(tmp_path / 'data'), tmp_path / 'classes.txt')
    for leaf in leaves(config):
        assert DATASETS.build({**leaf, 'pipeline': []}).reduce_zero_label is expected


@pytest.mark.parametrize(
    ('base', 'heads'),
    [
        ('upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', 2),
        ('pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', 2),
        ('icnet/icnet_r50-d8_4xb2-80k_cityscapes-832x832.py', 3),  # a list of auxiliary heads
    ],
)
def test_every_head_gets_the_classes(tmp_path: Path, base: str, heads: int):
    root = data_set(tmp_path / 'data')
    (root / 'classes.txt').write_text('a\nb\nc\n')
    config = settled(stock(tmp_path, base=base), root)
    assert fields.head_classes(config.model) == {3}
    auxiliary = config.model.auxiliary_head
    found = [config.model.decode_head, *(auxiliary if isinstance(auxiliary, list) else [auxiliary])]
    assert [head.num_classes for head in found] == [3] * heads


def test_logits_follow_the_classes():
    model = dict(decode_head=dict(num_classes=2, out_channels=2), neck=dict(out_channels=64))
    fields.set_classes(model, 5)
    assert model == dict(decode_head=dict(num_classes=5, out_channels=5), neck=dict(out_channels=64))


def class_file_errors(tmp_path: Path) -> dict[str, tuple[Path, str]]:
    (tmp_path / 'empty.txt').write_text(' \n\n')
    (tmp_path / 'picture.png').write_bytes(b'\x89PNG\r\n\x1a\n\xff\xff')
    return {
        'absent': (tmp_path / 'absent.txt', 'does not exist'),
        'empty': (tmp_path / 'empty.txt', 'is empty'),
        'no text': (tmp_path / 'picture.png', 'no UTF-8 text'),
    }


@pytest.mark.parametrize('what', ['absent', 'empty', 'no text'])
def test_a_file_without_classes(tmp_path: Path, what: str):
    path, expected = class_file_errors(tmp_path)[what]
    text = message(settled, recipe(), data_set(tmp_path / 'data'), path)
    assert f'--classes {path}: the file' in text
    assert expected in text


LABEL_ERRORS = {
    'none': lambda path: label_map(path, [0, 255, 0]),
    'damaged': lambda path: path.write_bytes(b'no image'),
    'colours': lambda path: cv2.imwrite(str(path), np.zeros((4, 4, 3), np.uint8)),
}


@pytest.mark.parametrize(
    ('what', 'expected'),
    [
        ('none', 'no class in any of them'),
        ('damaged', 'no image that OpenCV reads'),
        ('colours', 'has one channel, this one 3'),
    ],
)
def test_label_maps_without_classes(tmp_path: Path, what: str, expected: str):
    root = data_set(tmp_path)
    LABEL_ERRORS[what](root / 'annotations' / 'training' / '1.png')
    text = message(settled, recipe(), root)
    assert expected in text
    assert str(root / 'annotations' / 'training') in text


def test_a_type_that_does_not_exist(tmp_path: Path):
    config = recipe()
    config.train_dataloader.dataset.type = 'ADE2KDataset'
    assert "'ADE2KDataset' is not registered" in message(settled, config, data_set(tmp_path))
