"""Build the model that a checkpoint was trained as, and fill it."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from swin_dense import tasks, trust
from swin_dense.checkpoints import files
from swin_dense.checkpoints.load import load_weights
from swin_dense.checkpoints.report import Report
from swin_dense.console import terminal
from swin_dense.data.fields import head_classes, inner_datasets
from swin_dense.engine import config as configs
from swin_dense.errors import UserError
from swin_dense.models.layout import connect
from swin_dense.tasks import Task
from swin_dense.trust.data_files import CONFIGS


@dataclass(frozen=True)
class Loaded:
    """A filled model, and what is needed to feed it.

    Attributes:
        scope: the host, ``'mmdet'`` or ``'mmseg'``.
        pipeline: config of the test pipeline.
        channels: of the images it takes.
        report: what the checkpoint gave.
        task: of the config.
        source: what the config is from: ``'checkpoint x.pth'``, or ``'config x.py'``.
        trusted: the config is one that the user named, not the checkpoint's own.
    """

    model: nn.Module
    scope: str
    classes: tuple[str, ...]
    pipeline: list[dict]
    channels: int
    reduces_zero_label: bool
    report: Report
    task: Task
    source: str
    trusted: bool

    def guarded(self, allowed_files: Sequence[Path] = ()) -> AbstractContextManager[None]:
        """The guard around a checkpoint's own pipeline; a trusted pipeline has none."""
        if self.trusted:
            return nullcontext()
        return trust.guarded(allowed_files, self.source, dict(test_pipeline=self.pipeline))


def load_model(checkpoint: str, config: Config | None) -> Loaded:
    """Build and fill a model.

    Args:
        checkpoint: path or address.
        config: a config that is trusted; None for the checkpoint's own, which is not.

    Raises:
        UserError: the file is missing or damaged, has no config, or does not fit the model.
        UnsafeFileError: the file, or the config in it, would run code.
    """
    path = files.fetch(checkpoint)
    with trust.guarded([path], f'checkpoint {checkpoint}'):
        content = files.read_checkpoint(path, mapped=True)
    meta = _dict_in(content, 'meta')
    source = f'checkpoint {checkpoint}' if config is None else f'config {config.filename}'
    own = config is None
    config = _saved(meta, checkpoint) if config is None else config
    scope = config.default_scope
    init_default_scope(scope)
    data = _dict_in(meta, 'dataset_meta')
    classes, test_set = _classes(data, meta), _test_set(config)
    model = trust.without_weights(config.model)
    if classes and not own:  # a config file may be for other classes
        tasks.of_config(config).fit_heads(model, {**data, 'classes': classes})
    guard = trust.guarded([path], source, dict(model=model)) if own else nullcontext()
    with guard:
        built = _build(model, source)
    report = load_weights(built, files.state_dict(content), checkpoint, adapt=False, partial=False)
    classes = classes or _classes_of_config(config, test_set)
    mean = getattr(getattr(built, 'data_preprocessor', None), 'mean', None)
    return Loaded(
        built,
        scope,
        classes,
        _pipeline(config, test_set, source),
        3 if mean is None else mean.numel(),
        bool(data.get('reduce_zero_label', test_set.get('reduce_zero_label', False))),
        report,
        tasks.of_config(config),
        source,
        trusted=not own,
    )


def _dict_in(content: Mapping, key: str) -> dict:
    """A part of a checkpoint, which may hold anything; empty if it is no dict."""
    part = content.get(key)
    return part if isinstance(part, dict) else {}


def _saved(meta: dict, checkpoint: str) -> Config:
    """The config in a checkpoint, once nothing in it can do harm."""
    text, what = meta.get('cfg'), f'checkpoint {checkpoint}'
    if not isinstance(text, str):
        raise UserError(f'{what} holds no config: give one (CONFIG --checkpoint FILE, or config=)')
    values = trust.parse(text, what, 'meta.cfg')
    scope = values.get('default_scope')
    if scope not in tasks.scopes() or not isinstance(values.get('model'), dict):
        raise UserError(f'{what}: the config in it is no detection or segmentation config')
    test_set = _test_set(values)
    trust.check_model(trust.without_weights(values['model']), what, scope)
    steps = trust.check_pipeline(_pipeline(ConfigDict(values), test_set, what), what, scope)
    # nothing but this is read of it, and nothing else built
    config = Config({key: values[key] for key in ('default_scope', 'model')})
    config.test_pipeline = steps
    config.test_dataloader = dict(
        dataset={key: test_set.get(key) for key in ('metainfo', 'reduce_zero_label')}
    )
    return config


def _test_set(config: Mapping) -> Mapping:
    """The data set of a config's test or validation loader; empty if there is none."""
    for name in ('test_dataloader', 'val_dataloader'):
        with suppress(AttributeError, IndexError, KeyError, TypeError):  # a checkpoint may hold any shape
            test_set = inner_datasets(config[name]['dataset'])[0]
            if isinstance(test_set, dict) and test_set:
                return test_set
    return {}


def _pipeline(config: Mapping, test_set: Mapping, source: str) -> list[dict]:
    steps = test_set.get('pipeline') or config.get('test_pipeline')
    if not isinstance(steps, (list, tuple)) or not all(isinstance(x, dict) and 'type' in x for x in steps):
        raise UserError(f'{source}: neither test_dataloader.dataset.pipeline nor test_pipeline is a pipeline')
    return list(steps)


def _build(model: ConfigDict, source: str) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of the hosts, on their own deprecations
            return connect(MODELS.build(model))
    except UserError:
        raise
    except Exception as error:  # arguments that are not this version's may fail in any way
        raise UserError(f'{source}: model: {type(error).__name__}: {error}') from error


def _classes(data: dict, meta: dict) -> tuple[str, ...]:
    """The class names in a checkpoint's meta data, under the names of this and of older versions."""
    for names in (data.get('classes'), data.get('CLASSES'), meta.get('CLASSES')):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return ()


def _classes_of_config(config: Config, test_set: Mapping) -> tuple[str, ...]:
    """The names that go with the heads: of the data set, or numbers."""
    counts = head_classes(config.model)
    count = max(counts, default=1)
    kind = test_set.get('type')
    if isinstance(kind, str):
        kind = DATASETS.get(kind if '.' in kind else f'{config.default_scope}.{kind}')
    for names in (
        (test_set.get('metainfo') or {}).get('classes'),
        getattr(kind, 'METAINFO', {}).get('classes'),
    ):
        if isinstance(names, (list, tuple)) and len(names) == count:
            return tuple(map(str, names))
    return tuple(f'class_{label}' for label in range(count))


def newest(work_dir: Path) -> str:
    """The checkpoint that a run's ``last_checkpoint`` names, or else the newest that can be read.

    Only the last part of the name counts, and only in this folder: a run may have been moved or copied.

    Raises:
        UserError: there is none.
    """
    pointer = work_dir / 'last_checkpoint'
    named = _named(pointer)
    if named is not None and (work_dir / named).is_file():
        return str(work_dir / named)
    candidates = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in candidates:
        with suppress(UserError):
            files.read_checkpoint(path, mapped=True)
            files.check_whole(path)
            terminal.say(f'{pointer} names no checkpoint of this folder: {path} is taken, the newest')
            return str(path)
    state = 'names none' if pointer.is_file() else 'does not exist'
    raise UserError(f'no checkpoint in {work_dir} ({pointer} {state}): give --checkpoint FILE')


def _named(pointer: Path) -> str | None:
    """The file name that a pointer file ends in; None if it holds no name."""
    try:
        text = pointer.read_text(encoding='utf-8').strip()
    except (OSError, UnicodeDecodeError):
        return None
    name = text.replace('\\', '/').rpartition('/')[2]
    return name if name not in ('', '.', '..') and name.isprintable() and len(name) < 256 else None


def choose(
    first: str, checkpoint: str | None, options: Sequence[str], backbone: str | None = None
) -> tuple[Config | None, str]:
    """The config and checkpoint that a command line means.

    Args:
        first: a config file, which ends in ``.py``, ``.yaml``, ``.yml`` or ``.json``, or a checkpoint.
        checkpoint: what ``--checkpoint`` names.
        options: ``KEY=VALUE`` overrides of the config.
        backbone: what takes the place of the config's own backbone.

    Returns:
        The config, None for the checkpoint's own, and the checkpoint.

    Raises:
        UserError: they do not go together, or the config's run has left no checkpoint.
    """
    if not first.endswith(('.py', *CONFIGS)):
        if checkpoint is not None or options or backbone is not None:
            raise UserError(
                f'{first} is no config (.py): --checkpoint, --backbone and --cfg-options go with one'
            )
        return None, first
    config = configs.load_config(first, options, backbone)
    work_dir = Path(config.get('work_dir') or f'work_dirs/{Path(first).stem}')
    return config, checkpoint or newest(work_dir)
