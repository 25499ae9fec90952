"""COCO-panoptic folders: where their files lie, and pointing a panoptic config at them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from swin_dense.console.terminal import say
from swin_dense.data.coco import class_missing, image_folder
from swin_dense.data.fields import (
    all_datasets,
    evaluators,
    inner_datasets,
    loaders,
    named_classes,
    refuse_code,
    set_classes,
)
from swin_dense.errors import UserError
from swin_dense.formats.panoptic_json import Classes, classes, read_panoptic

# tried in this order below the root; {split} is train or val
ANNOTATIONS = (
    'annotations/panoptic_{split}20*.json',
    'annotations/panoptic_{split}*.json',
    'panoptic_{split}*.json',
)
# arguments of the host's metric that ours has too
KEPT = ('type', 'ann_file', 'seg_prefix', 'outfile_prefix', 'format_only', 'collect_device', 'prefix')


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        annotations: the JSON file.
        images: the folder of the images.
        pngs: the folder of the PNGs with the segments.
    """

    annotations: Path
    images: Path
    pngs: Path


def is_panoptic(config: Config) -> bool:
    """Whether the model of a config predicts panoptic maps."""
    model = config.get('model') or {}
    return 'panoptic_fusion_head' in model and (model.get('test_cfg') or {}).get('panoptic_on', True)


def find_annotations(root: Path, split: str) -> Path:
    """The annotation file of ``split`` ('train' or 'val') below ``root``.

    Raises:
        UserError: no folder, no such file in it, or several.
    """
    if not root.is_dir():
        raise UserError(f'data folder {root} does not exist (looked for {root.absolute()})')
    patterns = [pattern.format(split=split) for pattern in ANNOTATIONS]
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if len(files) > 1:
            raise UserError(f'data folder {root}: several {split} annotations: {", ".join(map(str, files))}')
        if files:
            return files[0]
    looked = ', '.join(patterns)
    raise UserError(f'data folder {root}: no panoptic {split} annotations (looked for {looked})')


def find_split(root: Path, split: str) -> Split:
    """The files of ``split`` below ``root``.

    Raises:
        UserError: one of them is not there.
    """
    annotations = find_annotations(root, split)
    content = read_panoptic(annotations)
    images = image_folder(root, annotations, content, split, annotations.stem.removeprefix('panoptic_'))
    folders = (annotations.with_suffix(''), root / annotations.stem, root / 'annotations' / annotations.stem)
    pngs = next((folder for folder in folders if folder.is_dir()), None)
    if pngs is None:
        raise UserError(f'annotations {annotations}: the folder of their PNGs, {folders[0]}, does not exist')
    return Split(annotations, images, pngs)


def point_at(config: Config, root: Path) -> None:
    """Replace every path of a panoptic config by those below ``root``.

    A CocoMetric beside the panoptic one stays if the folder has annotations of objects for it.

    Raises:
        UserError: the folder lacks something.
    """
    for name, loader in loaders(config).items():
        split = find_split(root, 'train' if name == 'train' else 'val')
        for dataset in inner_datasets(loader['dataset']):
            dataset['data_root'] = ''
            dataset['ann_file'] = str(split.annotations.absolute())
            dataset['data_prefix'] = dict(img=str(split.images.absolute()), seg=str(split.pngs.absolute()))
    if 'data_root' in config:
        config.data_root = str(root.absolute())
    split, objects = find_split(root, 'val'), sorted(root.glob('annotations/instances_val*.json'))
    for name in ('val_evaluator', 'test_evaluator'):
        for metric in evaluators(config, name):
            if _kind(metric) == 'CocoPanopticMetric':
                metric['ann_file'] = str(split.annotations.absolute())
                metric['seg_prefix'] = str(split.pngs.absolute())
            elif _kind(metric) == 'CocoMetric':  # without a file, ``name_classes`` leaves it out
                missing = root / 'annotations/instances_val2017.json'
                metric['ann_file'] = str((objects[0] if objects else missing).absolute())


def name_classes(config: Config) -> None:
    """Make data sets and heads agree on the classes, and take our data set, loading and metric.

    The annotation file of the first loader names the classes. If the config names them too
    (``metainfo.classes``), they must be those of the file. Labels number the things first.

    Raises:
        UserError: an annotation file is missing or broken, or has other classes.
        UnsafeFileError: an annotation file would run code if it were opened.
    """
    refuse_code(config)
    datasets = [dataset for dataset in all_datasets(config) if _kind(dataset) == 'CocoPanopticDataset']
    if not datasets:
        raise UserError(f'config {config.filename}: no loader has a CocoPanopticDataset')
    present = _common_classes(datasets)
    _check_named(config, named_classes(datasets[0]), present, annotation_file(datasets[0]))
    for dataset in datasets:
        things, stuff = present
        dataset['type'] = 'swin_dense.CocoPanopticDataset'
        dataset['metainfo'] = dict(classes=things + stuff, thing_classes=things, stuff_classes=stuff)
        for step in dataset.get('pipeline') or ():
            if _kind(step) == 'LoadPanopticAnnotations':
                step['type'] = 'swin_dense.LoadPanopticAnnotations'
    for name in ('val_evaluator', 'test_evaluator'):
        _use_our_metric(config, name, datasets[-1])
    set_classes(config.model, len(present.things), len(present.stuff))


def annotation_file(dataset: dict) -> Path:
    """The annotation file of a data set's config."""
    return Path(dataset.get('data_root') or '') / dataset['ann_file']


def png_folder(dataset: dict) -> Path:
    """The folder of PNGs of a data set's config."""
    return Path(dataset.get('data_root') or '') / ((dataset.get('data_prefix') or {}).get('seg') or '')


def _use_our_metric(config: Config, name: str, dataset: dict) -> None:
    """Score with our metric, on the ground truth of the data set where the config names none."""
    metrics = []
    for metric in evaluators(config, name):
        if _kind(metric) == 'CocoPanopticMetric':
            metric = {key: value for key, value in metric.items() if key in KEPT}
            metric['type'] = 'swin_dense.CocoPanopticMetric'
            metric['ann_file'] = metric.get('ann_file') or str(annotation_file(dataset))
            metric['seg_prefix'] = metric.get('seg_prefix') or str(png_folder(dataset))
        elif _kind(metric) == 'CocoMetric' and not Path(str(metric.get('ann_file'))).is_file():
            say(f'{name}: no mAP: {metric.get("ann_file")} does not exist')
            continue
        metrics.append(metric)
    if metrics:
        config[name] = metrics


def _common_classes(datasets: Sequence[dict]) -> Classes:
    """The classes of the data sets' files, which must agree."""
    first, *others = dict.fromkeys(annotation_file(dataset) for dataset in datasets)
    wanted = classes(read_panoptic(first))
    if not wanted.names:
        raise UserError(f'annotations {first}: the list "categories" is empty')
    for path in others:
        present = classes(read_panoptic(path))
        for name in wanted.names:
            if name not in present.names:
                raise UserError(f'annotations {first}: {class_missing(name, present.names, path)}')
        if present != wanted:
            raise UserError(f'annotations {path}: categories: not those of {first} in the same order')
    return wanted


def _check_named(config: Config, named: Sequence[str] | None, present: Classes, path: Path) -> None:
    """The classes that a config names must be those of the file."""
    where = f'config {config.filename}: metainfo.classes'
    for name in named or ():
        if name not in present.names:
            raise UserError(f'{where}: {class_missing(name, present.names, path)}')
    if named and len(set(named)) < len(present.names):
        raise UserError(
            f'{where} names {len(set(named))} of the {len(present.names)} categories of {path}: a panoptic '
            f'model learns them all'
        )


def _kind(part: dict) -> str:
    return str(part.get('type')).split('.')[-1]


def check_options(options: Sequence[str]) -> None:
    """Class counts follow the data.

    Raises:
        UserError: an option of the command line states one.
    """
    for option in options:
        key = option.partition('=')[0].split('.')[-1]
        if key in ('num_classes', 'num_things_classes', 'num_stuff_classes'):
            raise UserError(f'--cfg-options {option}: the annotations say how many classes there are')
