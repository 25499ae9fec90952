"""From the command line to the config that runs: a config is prepared here, and nothing changes it later."""

import copy
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from swin_dense import tasks
from swin_dense.data.fields import listed, loaders
from swin_dense.data.zero_label import ZeroLabel
from swin_dense.engine import config as configs
from swin_dense.engine import launch, start
from swin_dense.engine.start import Start
from swin_dense.errors import UserError
from swin_dense.evaluate import online
from swin_dense.tasks.task import DataOptions

FRESH = Start()


@dataclass(frozen=True)
class Command:
    """The options of a command line about a run.

    Attributes:
        config: config file, or the work directory of a run.
        options: ``KEY=VALUE`` overrides.
        data: root of a data folder that replaces every path.
        classes: file with one class name a line.
        zero_label: whether label 0 of label maps is a class; None where it is not said.
        work_dir: where the run is saved; ``work_dirs/CONFIG`` if None.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.
        precision: ``'bf16'``, ``'fp16'``, or None for the config's own.
        scale_rate: scale the learning rate with the batch; None leaves the choice to the config.
        tensorboard: log to TensorBoard too.
        seed: of every random generator; None for the config's own.
        begin: where a training run begins.
        backbone: what takes the place of the config's own backbone.
        swin_schedule: with ``backbone``, train as Swin's recipes do.
    """

    config: str
    options: Sequence[str] = ()
    data: Path | None = None
    classes: Path | None = None
    zero_label: ZeroLabel | None = None
    work_dir: str | None = None
    launcher: str = 'none'
    precision: str | None = None
    scale_rate: bool | None = None
    tensorboard: bool = False
    seed: int | None = None
    begin: Start = FRESH
    backbone: str | None = None
    swin_schedule: bool = False

    def of_data(self) -> DataOptions:
        """The part about the data."""
        return DataOptions(self.data, self.classes, self.zero_label, self.options)


@dataclass(frozen=True)
class Prepared:
    """A training run that can begin.

    Attributes:
        config: the config, which nothing changes any more.
        beginning: the checkpoint that it begins with.
    """

    config: Config
    beginning: start.Beginning


def training(command: Command) -> Prepared:
    """The config of a training run, checked: every path in it exists, and classes and heads agree.

    Raises:
        UserError: a mistake in the command, the config or the data set's files, or no run to continue.
        UnsafeFileError: a file that is named would run code.
    """
    command.begin.check()
    config = _loaded(command)
    _set_data(config, command)
    set_precision(config, command.precision, get_device())
    set_rate(config, command.scale_rate, command.options)
    if command.tensorboard:
        add_tensorboard(config)
    set_seed(config, command.seed)
    beginning = start.choose(Path(config.work_dir), command.begin)
    start.apply(config, beginning)
    _finish(config, command.launcher)
    return Prepared(config, beginning)


def evaluation(command: Command, checkpoint: str) -> Config:
    """The config of an evaluation of a checkpoint; errors as ``training``."""
    config = _loaded(command)
    _set_data(config, command)
    config.load_from, config.resume = checkpoint, False
    _finish(config, command.launcher)
    return config


def of_data(command: Command) -> Config:
    """The config of a check of the data, as that of a training run would be; errors as ``training``."""
    config = _loaded(command)
    _set_data(config, command)
    return config


def scoring(command: Command) -> Config:
    """The config of a scoring without a model, which needs the ground truth alone; errors as ``training``."""
    config = _loaded(command)
    task = tasks.of_config(config)
    task.prepare_truth(config, command.of_data())
    return config


def moved(config: Config, folder: Path) -> Config:
    """A copy of a prepared config that leaves all its files in another folder: that of a dry run."""
    copied = copy.deepcopy(config)
    copied.work_dir = str(folder)
    online.move_predictions(copied, Path(config.work_dir), folder)
    if copied.get('visualizer'):
        copied.visualizer.name = str(folder)  # mmengine keeps one by name, and the folder will be deleted
    return copied


def _loaded(command: Command) -> Config:
    config = configs.load_config(command.config, command.options, command.backbone, command.swin_schedule)
    stem = Path(command.config).stem
    config.work_dir = command.work_dir or config.get('work_dir') or f'work_dirs/{stem}'
    return config


def _set_data(config: Config, command: Command) -> None:
    task = tasks.of_config(config)
    if command.data is not None:
        task.point_at(config, command.data)
    task.name_classes(config, command.of_data())
    single_process_loaders(config)


def _finish(config: Config, launcher: str) -> None:
    online.keep_predictions(config, Path(config.work_dir))
    config.launcher = launcher
    launch.set_timeout(config)


def set_precision(config: Config, precision: str | None, device: str) -> None:
    """Train in mixed precision: ``'bf16'``, ``'fp16'`` (a GPU only) or None for the config's own."""
    if precision is None:
        return
    if precision == 'fp16' and device == 'cpu':
        raise UserError('--amp fp16 needs a GPU: on the CPU use --amp bf16')
    wrapper = config.optim_wrapper
    if precision == 'fp16':
        wrapper.type, wrapper.dtype = 'AmpOptimWrapper', 'float16'
    else:
        wrapper.type = 'swin_dense.BFloat16OptimWrapper'


def set_rate(config: Config, scale: bool | None, options: Sequence[str] = ()) -> None:
    """Scale the learning rate with the batch wherever the config states its own, or never.

    Args:
        config: changed in place.
        scale: False keeps the config's rate; None leaves the choice to the config.
        options: those after ``--cfg-options``: ``auto_scale_lr.enable`` among them stays as it is.
    """
    rule = config.get('auto_scale_lr') or ConfigDict()
    named = any(option.startswith('auto_scale_lr.enable=') for option in options)
    if scale is not None and rule.get('base_batch_size') and not named:
        rule.enable = scale


def set_seed(config: Config, seed: int | None) -> None:
    """Set ``randomness.seed``, if there is one, and leave the rest of ``randomness`` as it is."""
    if seed is not None:
        config.randomness = {**(config.get('randomness') or {}), 'seed': seed}


def add_tensorboard(config: Config) -> None:
    """Log to TensorBoard too, in ``vis_data`` of the run.

    Raises:
        UserError: the package is missing.
    """
    if importlib.util.find_spec('tensorboard') is None:
        raise UserError('--tensorboard needs the tensorboard package: pip install tensorboard')
    if not config.get('visualizer'):
        config.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    backends = list(config.visualizer.get('vis_backends') or ())
    if not any(backend['type'] == 'TensorboardVisBackend' for backend in backends):
        config.visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]


def single_process_loaders(config: Config) -> None:
    """``num_workers=0`` and ``persistent_workers`` exclude each other; the first is what a user sets."""
    for loader in loaders(config).values():
        if not loader.get('num_workers'):
            loader['persistent_workers'] = False


def check_batch_norm(config: Config, processes: int) -> None:
    """A map pooled to one value a channel has no variance in a batch of one image.

    Args:
        config: of a training run.
        processes: that train together; SyncBN joins their batches.

    Raises:
        UserError: a head has such a map, and BatchNorm behind it.
    """
    if config.train_dataloader.get('batch_size') != 1:
        return
    for name in ('decode_head', 'auxiliary_head'):
        for head in listed(config.model.get(name)):
            norm = (head.get('norm_cfg') or {}).get('type', '')
            alone = norm in ('BN', 'BN2d') or (norm == 'SyncBN' and processes == 1)
            if alone and 1 in head.get('pool_scales', ()):
                raise UserError(
                    f'config {config.filename}: train_dataloader.batch_size=1: {norm} behind the pooling '
                    f'to 1 x 1 in model.{name} needs two images or more'
                )
