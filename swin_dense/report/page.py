"""One self-contained HTML page about a run, or about predictions alone."""

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from swin_dense import tasks, trust
from swin_dense.data.fields import inner_datasets
from swin_dense.data.zero_label import ZeroLabel
from swin_dense.drawing.colours import colours
from swin_dense.engine import foreign_config
from swin_dense.errors import UserError
from swin_dense.evaluate.metrics import as_fractions
from swin_dense.report import gallery, history
from swin_dense.report.history import Curves
from swin_dense.storage import atomic
from swin_dense.tasks.task import DataOptions, Scored, Task

# the figures at the top, and what they mean to a person who has never met them
HEADLINES = {
    'bbox_mAP': ('box mAP', 'average precision of the boxes over IoU 0.50 to 0.95; 1 is perfect'),
    'segm_mAP': ('mask mAP', 'average precision of the masks over IoU 0.50 to 0.95; 1 is perfect'),
    'bbox_mAP_50': ('box AP50', 'the same where half an overlap (IoU 0.5) is enough'),
    'segm_mAP_50': ('mask AP50', 'the same where half an overlap (IoU 0.5) is enough'),
    'PQ': ('PQ', 'panoptic quality: matched segments and their overlap, mean over the classes; 1 is perfect'),
    'PQ_th': ('PQ of things', 'panoptic quality, mean over the classes whose objects are told apart'),
    'PQ_st': ('PQ of stuff', 'panoptic quality, mean over the other classes'),
    'mIoU': ('mIoU', 'overlap of predicted and true area, mean over the classes; 1 is perfect'),
    'aAcc': ('pixel accuracy', 'share of the labelled pixels with the right class'),
    'mAcc': ('mean accuracy', 'share of each class that is found, mean over the classes'),
}
HINTS = {
    'objects': 'annotated objects, without crowds',
    'detections': 'predictions of any score',
    'AP': 'average precision over IoU 0.50 to 0.95',
    'AP50': 'average precision at IoU 0.50',
    'AP75': 'average precision at IoU 0.75',
    'AP_s': 'AP of objects below 32x32 pixels',
    'AP_m': 'AP of objects from 32x32 to 96x96 pixels',
    'AP_l': 'AP of objects above 96x96 pixels',
    'AR@100': 'average recall with 100 detections an image',
    'kind': 'a thing, whose objects are told apart, or stuff',
    'PQ': 'panoptic quality: SQ times RQ',
    'SQ': 'segmentation quality: mean IoU of the matched segments',
    'RQ': 'recognition quality: F1 of the segments, matched above IoU 0.5',
    'matched': 'true segments with a match',
    'missed': 'true segments without a match',
    'invented': 'predicted segments without a match',
    'IoU': 'intersection over union of predicted and true pixels',
    'Acc': 'share of the true pixels that are found',
    'share': 'share of the labelled pixels',
}
BUILT = ('test_dataloader', 'test_evaluator')  # what a page builds of a run's config
MINOR = ('detections', 'AP75', 'AP_s', 'AP_m', 'AP_l', 'pixels')  # columns that a phone leaves out


@dataclass
class Page:
    """The content of the page, in the form of JSON; see ``page.js``."""

    title: str
    texts: dict[str, object]
    headlines: list[dict]
    counts: dict[str, int]
    classes: list[str]
    colours: list[str]
    tables: list[dict]
    curves: dict[str, dict[str, list[float]]]
    confusion: list[list[int]]
    gallery: dict
    notes: list[str] = field(default_factory=list)
    history: dict[str, Curves] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)


def of_run(work_dir: Path, data: Path | None = None) -> Page:
    """The page of a run, from its work directory; no model is needed.

    Args:
        work_dir: with the config that the run saved there, its log and its last predictions.
        data: root of the data set, where it is no longer where the run found it.

    Nothing in the folder is run: its config is parsed, and read under ``trust.guarded``.

    Raises:
        UserError: the folder is no run's, or something in it is missing or broken.
        UnsafeFileError: the config is code, or what is built of it would read more than the data.
    """
    values, file = foreign_config.saved_values(work_dir)
    what, scope = f'config {file}', values['default_scope']
    try:
        config = Config(_read_parts(values), filename=str(file))
        for dataset in inner_datasets(config.test_dataloader.dataset):
            dataset['pipeline'] = []  # no image is loaded by it
        trust.check_config(dict(config), what, scope, set(BUILT))
        places = [work_dir, *([data] if data else []), *_places(config)]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'{what} is not that of a run: {type(error).__name__}: {error}') from error
    task = tasks.of_config(config)
    init_default_scope(scope)
    with trust.guarded(places, f'results folder {work_dir}', {name: config[name] for name in BUILT}):
        scored = task.score(task.ground_truth(config, data), task.of_run(work_dir))
        page = _page(scored, task, work_dir.resolve().name)
        records = history.read_scalars(work_dir)
        page.history = history.learning_curves(records, task.in_percent)
        page.facts = history.facts(config, work_dir.resolve(), records)
    return page


def _read_parts(values: Mapping) -> dict:
    """The parts of a run's config that the page needs; what is not in ``BUILT`` is shown, never built."""
    names = ('default_scope', 'model', 'train_cfg', 'optim_wrapper', *BUILT)
    return {name: values[name] for name in (*names, 'train_dataloader', 'val_dataloader') if name in values}


def _places(config: Config) -> list[Path]:
    """Folders with the ground truth and the images of a config's test loader."""
    places = []
    for dataset in inner_datasets(config.test_dataloader.dataset):
        root = Path(dataset.get('data_root') or '')
        named = [dataset.get('ann_file') or '', *(dataset.get('data_prefix') or {}).values()]
        places += [root / name for name in named if isinstance(name, str) and name]
        places += [root] if dataset.get('data_root') else []
    return places


def of_predictions(predictions: Path, data: Path, zero_label: ZeroLabel | None = None) -> Page:
    """The page of predictions alone: COCO results, or a folder of label maps.

    Args:
        predictions: as ``tools/test.py --out`` writes them.
        data: root of the COCO or ADE20K folder with the ground truth.
        zero_label: whether label 0 of its label maps is a class; None for what they say.
    """
    task = tasks.of_predictions(predictions)
    truth = task.truth_of_folder(DataOptions(data, zero_label=zero_label))
    return _page(task.score(truth, predictions), task, predictions.resolve().stem)


def is_run(path: Path) -> bool:
    """Whether a folder is a run's work directory: it holds the config that the run saved."""
    return path.is_dir() and any(path.glob('*.py'))


def save(page: Page, path: Path) -> Path:
    """Write the page; everything that it shows is in the file."""
    atomic.write_text(path, fill(page))
    return path


def fill(page: Page) -> str:
    """The page as HTML. No name in it can become markup or code."""
    folder = files('swin_dense.report')
    parts = {
        name: (folder / name).read_text(encoding='utf-8') for name in ('page.html', 'page.css', 'page.js')
    }
    # in a script element only '<' could end it, or begin a comment
    data = json.dumps(vars(page), allow_nan=False, ensure_ascii=True).replace('<', '\\u003c')
    text = parts['page.html'].replace('{{css}}', parts['page.css']).replace('{{js}}', parts['page.js'])
    # the data last: what it holds is looked at by no replacement
    return text.replace('{{title}}', html.escape(page.title)).replace('{{data}}', data)


def _page(scored: Scored, task: Task, title: str) -> Page:
    evaluated, examples = scored.evaluated, scored.examples()
    if not evaluated.names:
        raise UserError('the ground truth has no classes')
    return Page(
        title=title,
        texts=asdict(task.texts),
        headlines=_headlines(as_fractions(evaluated.metrics, task.in_percent)),
        counts=evaluated.counts,
        classes=evaluated.names,
        colours=['#{:02x}{:02x}{:02x}'.format(*colour) for colour in colours(len(evaluated.names))],
        tables=[_table(name, rows) for name, rows in evaluated.classes.items()],
        curves=evaluated.curves,
        confusion=evaluated.confusion,
        gallery=dict(items=gallery.embed(examples), total=len(examples)),
        notes=evaluated.notes,
    )


def _headlines(metrics: Mapping[str, float | None]) -> list[dict]:
    """The figures at the top."""
    return [
        dict(label=label, hint=hint, value=metrics[name])
        for name, (label, hint) in HEADLINES.items()
        if name in metrics
    ]


def _table(title: str, rows: list[dict]) -> dict:
    columns = [
        dict(key=key, label='class' if key == 'name' else key, hint=HINTS.get(key, ''), minor=key in MINOR)
        for key in rows[0]
    ]
    return dict(title=title, columns=columns, rows=rows)
