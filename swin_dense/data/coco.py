"""COCO folders: where annotations and images lie, and pointing a detection config at them."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from swin_dense.data.fields import (
    all_datasets,
    check_options,
    evaluators,
    head_classes,
    inner_datasets,
    loaders,
    named_classes,
    refuse_code,
    set_classes,
)
from swin_dense.errors import UserError
from swin_dense.formats.coco_json import has_repeats, read_annotations

# tried in this order below the root; {split} is train or val
ANNOTATIONS = (
    'annotations/instances_{split}20*.json',
    'annotations/instances_{split}*.json',
    'annotations/{split}.json',
    'instances_{split}*.json',
    '{split}.json',
    '{split}/_annotations.coco.json',
)
IMAGES = ('{name}', '{split}', '{split}2017', 'images/{name}', 'images/{split}', 'images', '{folder}', '.')

SOUGHT = 20  # images by which their folder is found: single ones may be missing


@dataclass(frozen=True)
class Split:
    """One split of a data set: the annotation file and the folder that its file names are relative to."""

    annotations: Path
    images: Path


def find_annotations(root: Path, split: str) -> Path:
    """The annotation file of ``split`` ('train' or 'val') below ``root``.

    Raises:
        UserError: no folder, or no such file in it; the message says what was looked for.
    """
    if not root.is_dir():
        raise UserError(f'data folder {root} does not exist (looked for {root.absolute()})')
    patterns = [pattern.format(split=split) for pattern in ANNOTATIONS]
    if split == 'val':
        patterns.append('valid/_annotations.coco.json')  # Roboflow's name for it
    for pattern in patterns:
        # COCO names result files instances_SPLIT_ALGORITHM_results.json
        files = sorted(path for path in root.glob(pattern) if not path.stem.endswith('_results'))
        if len(files) > 1:
            raise UserError(f'data folder {root}: several {split} annotations: {", ".join(map(str, files))}')
        if files:
            return files[0]
    raise UserError(f'data folder {root}: no {split} annotations (looked for {", ".join(patterns)})')


def classes(content: dict) -> tuple[str, ...]:
    """The class names in the file's own order, which is the order of mmdet's labels."""
    return tuple(category['name'] for category in content['categories'])


def class_missing(name: str, present: Sequence[str], path: Path) -> str:
    """Says that an annotation file lacks a class, and which one may have been meant."""
    near = difflib.get_close_matches(name, present, 1)
    hint = f'; did you mean {near[0]!r}?' if near else ''
    return f'{name!r} is not among the {len(present)} categories of {path}{hint}'


def find_split(root: Path, split: str) -> Split:
    """The annotation file and image folder of ``split`` below ``root``.

    Raises:
        UserError: one of the two is not found.
    """
    annotations = find_annotations(root, split)
    content = read_annotations(annotations)
    # instances_train2017.json describes train2017/
    name = annotations.stem.removeprefix('instances_')
    return Split(annotations, image_folder(root, annotations, content, split, name))


def image_folder(root: Path, annotations: Path, content: dict, split: str, name: str) -> Path:
    """The folder that the file names of an annotation file are relative to.

    Args:
        root: of the data set.
        annotations: the file.
        content: its content.
        split: ``'train'`` or ``'val'``.
        name: of the folder, if it is named as the file is.

    Raises:
        UserError: there are no images, or they are in none of the usual folders.
    """
    if not content['images']:
        raise UserError(f'annotations {annotations}: the list "images" is empty')
    names = [image['file_name'] for image in content['images'][:SOUGHT]]
    beside = annotations.parent.relative_to(root)
    folders = list(dict.fromkeys(part.format(name=name, split=split, folder=beside) for part in IMAGES))
    for folder in folders:
        if any(_is_file(root / folder / name) for name in names):
            return root / folder
    raise UserError(
        f'annotations {annotations}: image {names[0]!r} is in none of the folders '
        f'{", ".join(folders)} of {root}'
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def point_at(config: Config, root: Path) -> None:
    """Replace every path of a detection config, in loaders and evaluators, by those below ``root``.

    Raises:
        UserError: the folder lacks something.
    """
    for name, loader in loaders(config).items():
        split = find_split(root, 'train' if name == 'train' else 'val')
        for dataset in inner_datasets(loader['dataset']):
            dataset['data_root'] = ''
            dataset['ann_file'] = str(split.annotations.absolute())
            dataset['data_prefix'] = dict(img=str(split.images.absolute()))
    if 'data_root' in config:
        config.data_root = str(root.absolute())  # the config file's variable: nothing reads it but people
    for name in ('val_evaluator', 'test_evaluator'):
        for metric in evaluators(config, name):
            if metric.get('ann_file'):
                metric['ann_file'] = str(find_annotations(root, 'val').absolute())


def name_classes(config: Config, options: Sequence[str] = ()) -> None:
    """Make data sets and heads agree on the classes.

    If the config names them (``metainfo.classes``), every annotation file must have them. If it does
    not, the annotation file of the first loader names them, and every head gets as many. Their order is
    that of this file.

    Args:
        config: changed in place.
        options: the ``KEY=VALUE`` of the command line that are in it.

    Raises:
        UserError: an annotation file is missing or broken, or lacks a class; or an option says otherwise.
        UnsafeFileError: an annotation file would run code if it were opened.
    """
    refuse_code(config)
    datasets = [x for x in all_datasets(config) if str(x.get('type')).split('.')[-1] == 'CocoDataset']
    if not datasets:
        return
    files = dict.fromkeys(Path(dataset.get('data_root') or '') / dataset['ann_file'] for dataset in datasets)
    contents = {path: classes(read_annotations(path)) for path in files}
    first = next(iter(files))
    named = named_classes(datasets[0])
    wanted = tuple(named or contents[first])
    if not wanted:
        raise UserError(f'annotations {first}: the list "categories" is empty')
    source = f'config {config.filename}: metainfo.classes' if named else f'annotations {first}'
    for path, present in contents.items():
        for name in wanted:
            if name not in present:
                raise UserError(f'{source}: {class_missing(name, present, path)}')
    check_options(config, options, len(wanted), source)
    counts = head_classes(config.model)
    if named and counts - {len(wanted)}:
        raise UserError(
            f'config {config.filename}: metainfo.classes names {len(wanted)} classes, but num_classes of the '
            f'heads is {" and ".join(map(str, sorted(counts)))}'
        )
    # mmdet numbers labels in the order of the file, whatever that of the names
    wanted = tuple(name for name in contents[first] if name in wanted)
    for dataset in datasets:
        dataset['metainfo'] = {**(dataset.get('metainfo') or {}), 'classes': wanted}
        if has_repeats(Path(dataset.get('data_root') or '') / dataset['ann_file']):
            dataset['type'] = 'swin_dense.CocoDataset'
    set_classes(config.model, len(wanted))
