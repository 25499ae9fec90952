"""ADE20K folders: where images and label maps lie, and pointing a segmentation config at them."""

import inspect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from PIL import Image
from rich.progress import track

from swin_dense.data.fields import (
    check_options,
    leaf_datasets,
    loaders,
    named_classes,
    refuse_code,
    set_classes,
)
from swin_dense.errors import UserError
from swin_dense.formats.class_names import read_class_names
from swin_dense.formats.label_maps import IGNORED
from swin_dense.storage.regular import other_kind

# (images, label maps) below the root for train and val; tried in this order
LAYOUTS = (
    (('images/training', 'annotations/training'), ('images/validation', 'annotations/validation')),
    (('img_dir/train', 'ann_dir/train'), ('img_dir/val', 'ann_dir/val')),
    (('images', 'annotations'), ('images', 'annotations')),  # one split for both
)
IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp')


def find_layout(root: Path) -> tuple[Path, tuple[tuple[str, str], tuple[str, str]]]:
    """The folder that holds images and label maps, ``root`` or one inside it, and how they lie there.

    Raises:
        UserError: nothing is found; the message says what was looked for.
    """
    if not root.is_dir():
        raise UserError(f'data folder {root} does not exist (looked for {root.absolute()})')
    # the official archive unpacks into a folder of its own, ADEChallengeData2016
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        for layout in LAYOUTS:
            if all((folder / part).is_dir() and _suffix(folder / part) for split in layout for part in split):
                return folder, layout
    looked = '; '.join(' with '.join(split) for layout in LAYOUTS for split in dict.fromkeys(layout))
    raise UserError(f'data folder {root}: no images with label maps (looked for {looked})')


def point_at(config: Config, root: Path) -> None:
    """Replace every path of a segmentation config's loaders by those below ``root``.

    Raises:
        UserError: the folder lacks something.
    """
    folder, (train, val) = find_layout(root)
    if 'data_root' in config:
        config.data_root = str(folder.absolute())  # the config file's variable: nothing reads it but people
    for name, loader in loaders(config).items():
        images, labels = train if name == 'train' else val
        for leaf in leaf_datasets(loader['dataset']):
            leaf['data_root'] = str(folder.absolute())
            leaf['ann_file'] = ''
            leaf['data_prefix'] = dict(img_path=images, seg_map_path=labels)
            leaf['img_suffix'] = _suffix(folder / images)
            leaf['seg_map_suffix'] = _suffix(folder / labels)


def settle_classes(config: Config, root: Path | None, file: Path | None, options: Sequence[str] = ()) -> None:
    """Make data sets and heads agree on the classes.

    They are taken from the first of: ``file`` (``--classes``), the config's ``metainfo``, ``classes.txt``
    in ``root`` (``--data``) or beside the images and labels, the config's data set type (ADE20KDataset
    has 150), the label maps.

    Args:
        config: changed in place.
        root, file: what the command line names.
        options: the ``KEY=VALUE`` of the command line that are in the config.

    Raises:
        UserError: the file is missing or empty, or the label maps hold no class; or an option says otherwise.
        UnsafeFileError: a file that the config names would run code if it were opened.
    """
    refuse_code(config)
    check_folders(config)
    leaves = [leaf for loader in loaders(config).values() for leaf in leaf_datasets(loader['dataset'])]
    named = named_classes(leaves[0])
    folders = [Path(folder) for folder in (root, leaves[0].get('data_root')) if folder]
    beside = [path for folder in folders if (path := folder / 'classes.txt').is_file()]
    if file is not None:
        source, names = f'--classes {file}', read_class_names(file, '--classes')
    elif named:
        source, names = f'config {config.filename}: metainfo.classes', named
    elif beside:
        source, names = str(beside[0]), read_class_names(beside[0], 'class names')
    elif _type_names(leaves[0]):
        check_options(config, options, len(_type_names(leaves[0])), leaves[0]['type'])
        return  # the heads of such a config are made for these classes
    else:
        source, names = 'the label maps', _count_classes(leaves[0])
    check_options(config, options, len(names), source)
    from_config = file is None and named
    for leaf in leaves:
        if not from_config or not _type_names(leaf):
            leaf['reduce_zero_label'] = leaf.get('reduce_zero_label', _reduces(leaf))
        if not from_config:
            # a type with names of its own accepts no others, and a palette goes with its names
            leaf['type'], leaf['metainfo'] = 'mmseg.BaseSegDataset', {}
        leaf['metainfo'] = {**(leaf.get('metainfo') or {}), 'classes': names}
    set_classes(config.model, len(names))


def check_folders(config: Config) -> None:
    """Every folder that a loader names must exist.

    Raises:
        UserError: the first that does not.
    """
    for name, loader in loaders(config).items():
        for leaf in leaf_datasets(loader['dataset']):
            for key, part in (leaf.get('data_prefix') or {}).items():
                folder = Path(leaf.get('data_root') or '') / (part or '')
                if not folder.is_dir():
                    raise UserError(
                        f'config {config.filename}: {name}_dataloader.dataset.data_prefix.{key}: folder '
                        f'{folder} does not exist (looked for {folder.absolute()}); try --data DIR'
                    )


def leaf_of(folder: Path, images: str, labels: str) -> dict:
    """The data set of one split of a folder that ``find_layout`` found, as a config would have it."""
    return dict(
        type='mmseg.BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path=images, seg_map_path=labels),
        img_suffix=_suffix(folder / images),
        seg_map_suffix=_suffix(folder / labels),
    )


def folder_classes(root: Path, leaf: dict, file: Path | None) -> tuple[str, ...]:
    """The classes of a folder without a config: of ``file``, of its ``classes.txt``, or counted."""
    beside = [
        path for folder in (root, leaf['data_root']) if (path := Path(folder) / 'classes.txt').is_file()
    ]
    named = file or next(iter(beside), None)
    field = '--classes' if file else 'class names'
    return read_class_names(named, field) if named else _count_classes(leaf)


def settled_classes(leaf: dict) -> tuple[str, ...]:
    """The classes of a data set after ``settle_classes``: its own, or those of its type."""
    return tuple((leaf.get('metainfo') or {}).get('classes') or _type_names(leaf))


def ignores_zero(leaf: dict) -> bool:
    """Whether label 0 means unlabelled in a data set after ``settle_classes``."""
    return bool(leaf.get('reduce_zero_label', _reduces(leaf)))


def _suffix(folder: Path) -> str | None:
    """The suffix of the images in a folder, None if there are none."""
    suffixes = (path.suffix for path in sorted(folder.iterdir()))
    return next((suffix for suffix in suffixes if suffix.lower() in IMAGE_SUFFIXES), None)


def _type_names(leaf: dict) -> tuple[str, ...]:
    return tuple(_type(leaf).METAINFO.get('classes', ()))


def _type(leaf: dict) -> type[BaseSegDataset]:
    found = DATASETS.get(leaf['type'])
    if found is None:
        raise UserError(f'data set type {leaf["type"]!r} is not registered in mmseg')
    return found


def _reduces(leaf: dict) -> bool:
    """Whether label 0 means unlabelled: yes in ADE20K's layout, unless the type with its classes knows."""
    if not _type_names(leaf):
        return True
    parameters = inspect.signature(_type(leaf).__init__).parameters
    return 'reduce_zero_label' in parameters and parameters['reduce_zero_label'].default


def _count_classes(leaf: dict) -> tuple[str, ...]:
    """Numbered classes, up to the highest label in the data set's label maps."""
    folder = Path(leaf.get('data_root') or '') / (leaf.get('data_prefix') or {}).get('seg_map_path', '')
    highest = 0
    paths = sorted(folder.rglob(f'*{leaf.get("seg_map_suffix", ".png")}'))
    for path in track(paths, 'counting classes', transient=True):
        try:
            if kind := other_kind(path):
                raise UserError(f'label map {path} cannot be read as an image: it is {kind}')
            labels = np.asarray(Image.open(path))  # of a palette PNG, the indices
        except OSError as error:
            raise UserError(f'label map {path} cannot be read as an image') from error
        if labels.ndim != 2:
            raise UserError(f'label map {path} is a colour image: a label map has one channel')
        highest = max(highest, int(labels[labels != IGNORED].max(initial=0)))
    first = 1 if leaf.get('reduce_zero_label', _reduces(leaf)) else 0
    if highest < first:
        raise UserError(f'label maps in {folder}: no class in any of them, only label 0 and {IGNORED}')
    return tuple(f'class_{label}' for label in range(first, highest + 1))
