"""ADE20K folders: where images and label maps lie, and pointing a segmentation config at them."""

import inspect
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS
from rich.progress import track

from swin_dense.data.fields import (
    all_datasets,
    check_options,
    inner_datasets,
    loaders,
    named_classes,
    refuse_code,
    set_classes,
)
from swin_dense.data.zero_label import ZeroLabel, labels_of, of_labels
from swin_dense.errors import UserError
from swin_dense.formats.class_names import read_class_names
from swin_dense.formats.images import BadImageError
from swin_dense.formats.label_maps import IGNORED, stored_labels

# (images, label maps) below the root for train and val; tried in this order
LAYOUTS = (
    (('images/training', 'annotations/training'), ('images/validation', 'annotations/validation')),
    (('img_dir/train', 'ann_dir/train'), ('img_dir/val', 'ann_dir/val')),
    (('images', 'annotations'), ('images', 'annotations')),  # one split for both
)
COUNTED = 'the label maps'  # where numbered classes are from
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
        for dataset in inner_datasets(loader['dataset']):
            dataset['data_root'] = str(folder.absolute())
            dataset['ann_file'] = ''
            dataset['data_prefix'] = dict(img_path=images, seg_map_path=labels)
            dataset['img_suffix'] = _suffix(folder / images)
            dataset['seg_map_suffix'] = _suffix(folder / labels)


def name_classes(
    config: Config,
    root: Path | None,
    file: Path | None,
    options: Sequence[str] = (),
    zero_label: ZeroLabel | None = None,
) -> None:
    """Make data sets and heads agree on the classes.

    They are taken from the first of: ``file`` (``--classes``), the config's ``metainfo``, ``classes.txt``
    in ``root`` (``--data``) or beside the images and labels, the config's data set type (ADE20KDataset
    has 150), the label maps.

    Args:
        config: changed in place.
        root, file: what the command line names.
        options: the ``KEY=VALUE`` of the command line that are in the config.
        zero_label: whether label 0 is a class; None for what options, label maps or config say.

    Raises:
        UserError: the file is missing or empty, or the label maps hold no class; or an option says otherwise.
        UnsafeFileError: a file that the config names would run code if it were opened.
    """
    refuse_code(config)
    check_folders(config)
    datasets = all_datasets(config)
    stated = [option for option in options if option.partition('=')[0].endswith('reduce_zero_label')]
    if zero_label is not None and stated:
        raise UserError(f'--zero-label {zero_label} and --cfg-options {stated[0]}: give one of them')
    if zero_label is not None:
        _set_zero_label(datasets, zero_label)
    source, names = _find_classes(config, datasets[0], root, file)
    check_options(config, options, len(names), source)
    from_config = file is None and bool(named_classes(datasets[0]))
    if not from_config and source == datasets[0]['type']:
        return  # the heads of such a config are made for these classes
    is_open = root is not None or 'reduce_zero_label' not in datasets[0]
    if zero_label is None and not stated and is_open and not (from_config and _type_names(datasets[0])):
        _set_zero_label(datasets, _of_labels(datasets[0], names))
    for dataset in datasets:
        if not from_config or not _type_names(dataset):
            dataset['reduce_zero_label'] = dataset.get('reduce_zero_label', _reduces(dataset))
        if not from_config:
            # a type with names of its own accepts no others, and a palette goes with its names
            dataset['type'], dataset['metainfo'] = 'mmseg.BaseSegDataset', {}
        dataset['metainfo'] = {**(dataset.get('metainfo') or {}), 'classes': names}
    set_classes(config.model, len(names))


def _find_classes(
    config: Config, dataset: dict, root: Path | None, file: Path | None
) -> tuple[str, tuple[str, ...]]:
    """Where the class names are found, for a person, and the names."""
    if file is not None:
        return f'--classes {file}', read_class_names(file, '--classes')
    if named := named_classes(dataset):
        return f'config {config.filename}: metainfo.classes', named
    folders = [Path(folder) for folder in (root, dataset.get('data_root')) if folder]
    for path in (folder / 'classes.txt' for folder in folders):
        if path.is_file():
            return str(path), read_class_names(path, 'class names')
    if names := _type_names(dataset):
        return dataset['type'], names
    return COUNTED, _count_classes(dataset)


def _of_labels(dataset: dict, names: Sequence[str]) -> ZeroLabel | None:
    """The meaning of label 0 by the label maps of a data set; None if they leave it open."""
    folder = Path(dataset.get('data_root') or '') / (dataset.get('data_prefix') or {}).get('seg_map_path', '')
    return of_labels(labels_of(folder, dataset.get('seg_map_suffix', '.png')), names)


def _set_zero_label(datasets: Sequence[dict], zero_label: ZeroLabel | None) -> None:
    """State it in data sets, and in the steps of their pipelines that state it; None changes nothing."""
    if zero_label is None:
        return
    for dataset in datasets:
        steps = [step for step in dataset.get('pipeline') or () if 'reduce_zero_label' in step]
        for part in (dataset, *steps):
            part['reduce_zero_label'] = zero_label == 'ignored'


def check_folders(config: Config) -> None:
    """Every folder that a loader names must exist.

    Raises:
        UserError: the first that does not.
    """
    for name, loader in loaders(config).items():
        for dataset in inner_datasets(loader['dataset']):
            for key, part in (dataset.get('data_prefix') or {}).items():
                folder = Path(dataset.get('data_root') or '') / (part or '')
                if not folder.is_dir():
                    raise UserError(
                        f'config {config.filename}: {name}_dataloader.dataset.data_prefix.{key}: folder '
                        f'{folder} does not exist (looked for {folder.absolute()}); try --data DIR'
                    )


def of_folder(root: Path, file: Path | None = None, zero_label: ZeroLabel | None = None) -> list[dict]:
    """The training and the validation data set of a folder, as a config would have them.

    Args:
        root: the folder.
        file: names of the classes; None for its ``classes.txt``, or, where there is none, numbers.
        zero_label: whether label 0 is a class; None for what the label maps say.

    Raises:
        UserError: there are no images with label maps, or no class in these.
    """
    folder, layout = find_layout(root)
    datasets = [_dataset(folder, images, labels) for images, labels in layout]
    _set_zero_label(datasets, zero_label)
    beside = [path for place in (root, folder) if (path := place / 'classes.txt').is_file()]
    named = file or next(iter(beside), None)
    field = '--classes' if file else 'class names'
    names = read_class_names(named, field) if named else _count_classes(datasets[0])
    if zero_label is None:
        _set_zero_label(datasets, _of_labels(datasets[0], names) if named else None)
    for dataset in datasets:
        dataset['reduce_zero_label'] = ignores_zero(dataset)
        dataset['metainfo'] = dict(classes=names)
    return datasets


def _dataset(folder: Path, images: str, labels: str) -> dict:
    return dict(
        type='mmseg.BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path=images, seg_map_path=labels),
        img_suffix=_suffix(folder / images),
        seg_map_suffix=_suffix(folder / labels),
    )


def classes_of(dataset: dict) -> tuple[str, ...]:
    """The classes of a data set after ``name_classes``: its own, or those of its type."""
    return tuple((dataset.get('metainfo') or {}).get('classes') or _type_names(dataset))


def ignores_zero(dataset: dict) -> bool:
    """Whether label 0 means unlabelled in a data set after ``name_classes``."""
    return bool(dataset.get('reduce_zero_label', _reduces(dataset)))


def _suffix(folder: Path) -> str | None:
    """The suffix of the images in a folder, None if there are none."""
    suffixes = (path.suffix for path in sorted(folder.iterdir()))
    return next((suffix for suffix in suffixes if suffix.lower() in IMAGE_SUFFIXES), None)


def _type_names(dataset: dict) -> tuple[str, ...]:
    return tuple(_type(dataset).METAINFO.get('classes', ()))


def _type(dataset: dict) -> type[BaseSegDataset]:
    cls = DATASETS.get(dataset['type'])
    if cls is None:
        raise UserError(f'data set type {dataset["type"]!r} is not registered in mmseg')
    return cls


def _reduces(dataset: dict) -> bool:
    """Whether label 0 means unlabelled: yes in ADE20K's layout, unless the type with its classes knows."""
    if not _type_names(dataset):
        return True
    parameters = inspect.signature(_type(dataset).__init__).parameters
    return 'reduce_zero_label' in parameters and parameters['reduce_zero_label'].default


def _count_classes(dataset: dict) -> tuple[str, ...]:
    """Numbered classes, up to the highest label in the data set's label maps."""
    folder = Path(dataset.get('data_root') or '') / (dataset.get('data_prefix') or {}).get('seg_map_path', '')
    highest = 0
    paths = sorted(folder.rglob(f'*{dataset.get("seg_map_suffix", ".png")}'))
    for path in track(paths, 'counting classes', transient=True):
        try:
            labels = stored_labels(path)
        except BadImageError as error:
            raise UserError(f'label map {path}: {error}') from error
        highest = max(highest, int(labels[labels != IGNORED].max(initial=0)))
    first = 1 if dataset.get('reduce_zero_label', _reduces(dataset)) else 0
    if highest < first:
        raise UserError(f'label maps in {folder}: no class in any of them, only label 0 and {IGNORED}')
    return tuple(f'class_{label}' for label in range(first, highest + 1))
