"""Check every data set of a config, or a bare folder, before anything is trained on it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config
from rich.markup import escape
from rich.table import Table

from swin_dense.check import ade20k_sets, coco_sets, panoptic_sets, pipeline
from swin_dense.console.findings import Finding, as_json, errors, skippable, table
from swin_dense.data import ade20k, coco
from swin_dense.data.fields import (
    all_datasets,
    evaluators,
    head_classes,
    inner_datasets,
    listed,
    loaders,
    refuse_code,
)
from swin_dense.data.zero_label import ZeroLabel
from swin_dense.errors import UserError
from swin_dense.formats import coco_json
from swin_dense.printable import printable

SPLITS = ('train', 'val', 'test')
Check = Callable[[Config, bool], list[Finding]]


@dataclass(frozen=True)
class Result:
    """What ``tools/check_data.py`` tells.

    Attributes:
        findings: of all data sets.
        instances: objects of each class, for each COCO annotation file that could be read.
    """

    findings: list[Finding]
    instances: dict[Path, dict[str, int]]

    def as_json(self) -> dict:
        """``{'findings': [...], 'instances': {file: {class: count}}}``."""
        instances = {str(path): counts for path, counts in self.instances.items()}
        return dict(findings=as_json(self.findings), instances=instances)

    def tables(self) -> list[Table | str]:
        """The findings by severity, and the instances with a column for each file."""
        shown: list[Table | str] = [table(self.findings) if self.findings else 'nothing found']
        if self.instances:
            shown.append(_instance_table(self.instances))
        return shown


@dataclass
class _Use:
    """What a config does with one annotation file."""

    split: coco.Split
    classes: tuple[str, ...]
    masks: bool
    scored: bool
    datasets: list[dict] = field(default_factory=list)


def check_objects(
    config: Config, decode: bool, splits: Sequence[str] = SPLITS, skip_bad: bool = False
) -> list[Finding]:
    """Check the COCO data sets of a config, each once. Others are passed over.

    Args:
        config: its paths exist, and its classes are those of the files.
        decode: decode every image and label map, rather than reading headers and decoding a few.
        splits: the loaders whose data sets are meant.
        skip_bad: training goes on without bad images, which are warnings then. Evaluation needs them all.

    Raises:
        UserError: a file or folder that the config names is missing.
        UnsafeFileError: a file that the config names would run code if it were opened.
    """
    refuse_code(config)
    findings = _check_heads(config)
    uses = _uses(config, _chosen(config, splits))
    for use in uses:
        of_split = coco_sets.check_split(use.split, use.classes, decode, use.masks, use.scored)
        if not errors(of_split):
            content = coco_json.read_annotations(use.split.annotations)
            for dataset in use.datasets:
                of_split += _check_use(dataset, use.split, content)
        findings += skippable(of_split) if skip_bad and not use.scored else of_split
    files = [use.split.annotations for use in uses]
    return findings + _check_order(files, set(uses[0].classes if uses else ()))


def check_label_maps(
    config: Config, decode: bool, splits: Sequence[str] = SPLITS, skip_bad: bool = False
) -> list[Finding]:
    """Check the label maps of a config's data sets; arguments and errors as ``check_objects``."""
    refuse_code(config)
    return _check_heads(config) + _check_label_maps(_chosen(config, splits), decode, skip_bad)


def _chosen(config: Config, splits: Sequence[str]) -> dict[str, dict]:
    return {name: loader for name, loader in loaders(config).items() if name in splits}


def check_folder(
    root: Path, decode: bool, classes: Path | None = None, zero_label: ZeroLabel | None = None
) -> list[Finding]:
    """Check a COCO, COCO-panoptic or ADE20K folder, with no config.

    Args:
        root: the folder.
        decode: as ``check_objects``.
        classes: file with a class name a line, of an ADE20K folder.
        zero_label: whether label 0 is a class there; None for what the label maps say.

    Raises:
        UserError: the folder holds none of them.
    """
    files = annotation_files(root)
    panoptic = panoptic_sets.check_folder(root, decode) if panoptic_sets.splits_of(root) else None
    if files or panoptic is not None:
        return (_check_coco_folder(root, files, decode) if files else []) + (panoptic or [])
    try:
        ade20k.find_layout(root)
    except UserError as error:
        looked = 'no COCO annotations either (such as annotations/instances_train*.json)'
        raise UserError(f'{error}; {looked}') from error
    datasets = ade20k.of_folder(root, classes, zero_label)
    findings = []
    for dataset in datasets[:1] if datasets[0] == datasets[1] else datasets:
        folder, places = Path(dataset['data_root']), dataset['data_prefix']
        findings += ade20k_sets.check_split(
            images=folder / places['img_path'],
            labels=folder / places['seg_map_path'],
            img_suffix=dataset['img_suffix'],
            seg_map_suffix=dataset['seg_map_suffix'],
            classes=ade20k.classes_of(dataset),
            reduce_zero_label=ade20k.ignores_zero(dataset),
            decode=decode,
        )
    return findings


def annotation_files(root: Path) -> dict[str, Path]:
    """The COCO annotation files of a folder by split (train, val); empty if there are none.

    Raises:
        UserError: there is no such folder, or several candidates for a split.
    """
    findings = {}
    for split in SPLITS[:2]:
        try:
            findings[split] = coco.find_annotations(root, split)
        except UserError as error:
            if f'no {split} annotations' not in str(error):
                raise
    return findings


def try_config(prepare: Callable[[], Config], check: Check, path: Path, decode: bool) -> Result:
    """Check what a config names; a config that cannot be prepared is a finding too.

    Args:
        prepare: makes the config.
        check: checks the data sets of its task.
        path: its file.
        decode: as ``check_objects``.
    """
    try:
        config = prepare()
        files = [use.split.annotations for use in _uses(config, loaders(config))]
        return Result(check(config, decode), _instances(files))
    except UserError as error:
        return _failed(path, error)


def try_folder(
    root: Path, decode: bool, classes: Path | None = None, zero_label: ZeroLabel | None = None
) -> Result:
    """Check a folder; a folder that cannot be understood is a finding too."""
    try:
        findings = check_folder(root, decode, classes, zero_label)
        return Result(findings, _instances(annotation_files(root).values()))
    except UserError as error:
        return _failed(root, error)


def _failed(path: Path, error: UserError) -> Result:
    if type(error) is not UserError:
        raise error
    return Result([Finding('error', path, '', str(error))], {})


def _instances(files: Iterable[Path]) -> dict[Path, dict[str, int]]:
    counts = {}
    for path in files:
        if not errors(coco_json.read_with_findings(path)[1]):
            counts[path] = coco_sets.count_instances(path)
    return counts


def _instance_table(instances: dict[Path, dict[str, int]]) -> Table:
    shown = Table()
    shown.add_column('instances of class')
    for path in instances:
        # Roboflow's files differ by their folder alone
        shown.add_column(
            path.name if path.name[0] != '_' else f'{path.parent.name}/{path.name}', justify='right'
        )
    for name in dict.fromkeys(name for counts in instances.values() for name in counts):
        shown.add_row(escape(printable(name)), *(str(counts.get(name, '-')) for counts in instances.values()))
    return shown


def _uses(config: Config, chosen: dict[str, dict]) -> list[_Use]:
    """The annotation files of a config, each once, with all that is done with it."""
    uses: dict[Path, _Use] = {}
    for name, loader in chosen.items():
        metrics = evaluators(config, f'{name}_evaluator')
        kinds = {kind for metric in metrics for kind in listed(metric.get('metric'))}
        scored = name != 'train' and not all(metric.get('format_only') for metric in metrics)
        for dataset in inner_datasets(loader['dataset']):
            if str(dataset.get('type')).split('.')[-1] != 'CocoDataset':
                continue
            root = Path(dataset.get('data_root') or '')
            path = root / dataset['ann_file']
            images = root / ((dataset.get('data_prefix') or {}).get('img') or '')
            steps = dataset.get('pipeline') or ()
            masks = 'segm' in kinds or any(step.get('with_mask') for step in steps)
            classes = tuple((dataset.get('metainfo') or {}).get('classes') or ())
            use = uses.setdefault(path.absolute(), _Use(coco.Split(path, images), classes, masks, scored))
            use.masks, use.scored = use.masks or masks, use.scored or scored
            use.datasets.append(dataset)
    return list(uses.values())


def _check_heads(config: Config) -> list[Finding]:
    """Heads and data sets agree, which ``name_classes`` sees to where it knows the classes."""
    named = (list((dataset.get('metainfo') or {}).get('classes') or ()) for dataset in all_datasets(config))
    classes = next(filter(None, named), [])
    wrong = head_classes(config.model) - {len(classes)} if classes else set()
    return [
        Finding(
            'error',
            Path(config.filename),
            'model: num_classes',
            f'{count}, but the data sets have {len(classes)} classes',
        )
        for count in sorted(wrong)
    ]


def _check_use(dataset: dict, split: coco.Split, content: dict) -> list[Finding]:
    """What filter and pipeline of one data set make of the images of its annotation file."""
    findings = pipeline.check_filter(dataset, split.annotations, content)
    images = pipeline.large_enough(dataset, content)
    names = [image['file_name'] for image in images]
    sizes = [(image['width'], image['height']) for image in images]
    return findings + pipeline.check_sizes(
        split.images, names, sizes, pipeline.scales(dataset.get('pipeline') or ())
    )


def _check_order(files: Sequence[Path], wanted: set[str]) -> list[Finding]:
    """mmdet numbers labels in the order of each file's categories, whatever the names in the config."""
    orders = {}
    for path in files:
        try:
            orders[path] = [name for name in coco.classes(coco_json.read_annotations(path)) if name in wanted]
        except UserError:
            continue  # its own findings say so
    if not orders:
        return []
    first = next(iter(orders))
    message = f'in another order than in {first}: mmdet numbers labels in it, and would take one for another'
    return [
        Finding('error', path, 'categories', f'{message}; write them in the same order')
        for path, order in orders.items()
        if order != orders[first] and set(order) == set(orders[first])
    ]


def _check_coco_folder(root: Path, files: dict[str, Path], decode: bool) -> list[Finding]:
    findings: list[Finding] = []
    wanted: tuple[str, ...] | None = None
    for split, path in files.items():
        content, problems = coco_json.read_with_findings(path)
        try:
            where = coco.find_split(root, split)
        except UserError as error:
            own = [problem for problem in problems if problem.severity == 'error']
            findings += own or [Finding('error', path, '', str(error).removeprefix(f'annotations {path}: '))]
            continue
        # the classes of the first are what a config without names would take
        findings += coco_sets.check_split(where, wanted, decode, None, split == 'val')
        wanted = wanted or coco.classes(content)
    return findings + _check_order(list(files.values()), set(wanted or ()))


def _check_label_maps(chosen: dict[str, dict], decode: bool, skip_bad: bool) -> list[Finding]:
    uses: dict[Path, list[tuple[str, dict]]] = {}
    for name, loader in chosen.items():
        for dataset in inner_datasets(loader['dataset']):
            prefix = dataset.get('data_prefix') or {}
            root = Path(dataset.get('data_root') or '')
            labels = root / (prefix.get('seg_map_path') or '')
            if 'seg_map_path' in prefix:
                uses.setdefault(labels, []).append((name, dataset))
    findings = []
    for labels, named in uses.items():
        dataset = named[0][1]
        images = Path(dataset.get('data_root') or '') / ((dataset['data_prefix']).get('img_path') or '')
        ours = any(str(step['type']) == 'swin_dense.LoadImage' for step in dataset.get('pipeline') or ())
        resizes = [scale for _, dataset in named for scale in pipeline.scales(dataset.get('pipeline') or ())]
        of_split = ade20k_sets.check_split(
            images=images,
            labels=labels,
            img_suffix=dataset.get('img_suffix', '.jpg'),
            seg_map_suffix=dataset.get('seg_map_suffix', '.png'),
            classes=ade20k.classes_of(dataset),
            reduce_zero_label=ade20k.ignores_zero(dataset),
            decode=decode,
            host_loads=not ours,
            resizes=list(dict.fromkeys(resizes)),
        )
        trained = {name for name, _ in named} == {'train'}
        findings += skippable(of_split) if skip_bad and trained else of_split
    return findings
