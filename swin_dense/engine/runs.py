"""Whole runs: a config made ready from the command line, training, testing, scoring."""

import copy
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook

from swin_dense.console import terminal
from swin_dense.data import ade20k, coco
from swin_dense.engine import config as configs
from swin_dense.engine import dry_run as dry
from swin_dense.engine import start
from swin_dense.engine.data_check import check_before
from swin_dense.engine.failures import told
from swin_dense.engine.finite import FiniteHook
from swin_dense.engine.hooks import HeaderHook, MetricsHook, PictureHook, ProgressHook, SkipBadHook
from swin_dense.engine.launch import set_timeout, start_processes
from swin_dense.engine.lock import work_dir_lock
from swin_dense.engine.loops import InterruptedEvaluationHook
from swin_dense.engine.processes import no_children_left
from swin_dense.engine.runner import Runner
from swin_dense.engine.signals import StopRequest, TimeBudget
from swin_dense.engine.start import Start
from swin_dense.engine.val_loss import ValLossHook
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import DiskFullError, UserError
from swin_dense.evaluate import ade20k as label_maps
from swin_dense.evaluate import offline, online
from swin_dense.evaluate.metrics import as_fractions, save
from swin_dense.storage import atomic, folders


def ready_config(
    path: str,
    options: Sequence[str] = (),
    data: Path | None = None,
    classes: Path | None = None,
    work_dir: str | None = None,
) -> Config:
    """The config of a run, checked: every path in it exists, and classes and heads agree.

    Args:
        path: config file.
        options: ``KEY=VALUE`` overrides.
        data: root of a COCO or ADE20K folder that replaces every path.
        classes: file with one class name a line (segmentation).
        work_dir: where the run is saved; ``work_dirs/CONFIG`` if None.

    Raises:
        UserError: whatever the user got wrong.
    """
    config = configs.load(path, options)
    config.work_dir = work_dir or config.get('work_dir') or f'work_dirs/{Path(path).stem}'
    if configs.task(config) == 'detection':
        if classes is not None:
            raise UserError('--classes is for segmentation: a COCO annotation file names its classes itself')
        if data is not None:
            coco.point_at(config, data)
        coco.settle_classes(config, options)
    else:
        if data is not None:
            ade20k.point_at(config, data)
        ade20k.settle_classes(config, data, classes, options)
    configs.single_process_loaders(config)
    return config


def scoring_config(
    path: str,
    options: Sequence[str] = (),
    data: Path | None = None,
    classes: Path | None = None,
    work_dir: str | None = None,
) -> Config:
    """The config of a scoring without a model; arguments as ``ready_config``'s.

    Of a COCO folder it needs the annotations to score against, and no images.
    """
    config = configs.load(path, options)
    if configs.task(config) == 'segmentation':
        return ready_config(path, options, data, classes, work_dir)
    config.work_dir = work_dir or config.get('work_dir') or f'work_dirs/{Path(path).stem}'
    return config


@dataclass(frozen=True)
class Limits:
    """When a training run ends before its schedule, and what it goes on after.

    Attributes:
        seconds: the run saves and stops before they have passed; None for no limit.
        skip_nan: iterations with a loss or gradient that is not finite that are left out.
        skip_bad: whether images that cannot be read are left out.
    """

    seconds: float | None = None
    skip_nan: int = 0
    skip_bad: bool = False


FRESH, NO_LIMITS = Start(), Limits()


def train(
    config: Config,
    launcher: str = 'none',
    begin: Start = FRESH,
    limits: Limits = NO_LIMITS,
) -> None:
    """Train and evaluate; checkpoints, log, metrics, predictions and pictures go to ``config.work_dir``.

    Raises:
        UserError: a mistake in what it was given, or another run holds the work directory.
        StoppedError: a signal or the time budget stopped it; all is saved.
        NotFiniteError, DiskFullError, FailedRunError: it cannot go on; the last checkpoint is intact.
    """
    work_dir = Path(config.work_dir)
    budget = None if limits.seconds is None else TimeBudget(limits.seconds)
    set_timeout(config)
    with StopRequest(budget) as stop, no_children_left(), WorkerWatch() as watch:
        start_processes(launcher, config.env_cfg.dist_cfg)
        make_folder(work_dir)
        with work_dir_lock(work_dir), told(config, watch), full_disk_told(work_dir), terminal.quiet_hosts():
            atomic.sweep(work_dir)
            start.apply(config, begin, terminal.say)
            online.keep_predictions(config, work_dir)
            hooks = [*_hooks(), FiniteHook(limits.skip_nan), InterruptedEvaluationHook()]
            if limits.skip_bad:
                hooks.append(SkipBadHook())
            runner = _runner(config, launcher, ('train', 'val'), hooks, limits.skip_bad)
            runner.stop, runner.watch, runner.resume_anyway = stop, watch, begin.anyway
            runner.train()


def dry_run(
    config: Config, launcher: str = 'none', started: float | None = None, begin: Start = FRESH
) -> dry.Measured:
    """Build all of a training run, measure some iterations, and leave ``dry_run.png`` and ``dry_run.log``.

    Args:
        config: as ``ready_config`` returns it.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        started: ``time.time()`` when the process began its work; now if None.
        begin: where the run would begin.
    """
    work_dir = Path(config.work_dir)
    make_folder(work_dir)
    start.apply(config, begin, terminal.say)
    hook = dry.DryRunHook(work_dir, started or time.time())
    with tempfile.TemporaryDirectory(prefix='.dry_run_', dir=work_dir) as scratch, terminal.quiet_hosts():
        config = copy.deepcopy(config)
        config.work_dir = scratch
        online.keep_predictions(config, Path(scratch))
        if config.get('visualizer'):
            config.visualizer.name = scratch  # mmengine keeps one by name, and this one's folder will be gone
        runner = _runner(config, launcher, ('train', 'val'), (PictureHook(), ValLossHook(), hook))
        runner.resume_anyway = begin.anyway
        try:
            runner.train()
            hook.report(runner)
        finally:
            for log in Path(scratch).glob('*/*.log'):
                shutil.copyfile(log, work_dir / 'dry_run.log')
    return hook.measured


def test(config: Config, checkpoint: str, launcher: str = 'none', out: Path | None = None) -> dict:
    """Evaluate a checkpoint.

    Args:
        config: as ``ready_config`` returns it.
        checkpoint: path of the weights.
        launcher: 'none', 'pytorch', 'slurm' or 'mpi'.
        out: a COCO JSON file (detection) or a folder of PNG label maps (segmentation) to write.

    Returns:
        The metrics as the host's evaluator returns them.
    """
    config.load_from, config.resume = checkpoint, False
    online.keep_predictions(config, Path(config.work_dir))
    work_dir = Path(config.work_dir)
    with no_children_left(), WorkerWatch() as watch, told(config, watch), full_disk_told(work_dir):
        make_folder(work_dir)
        with terminal.quiet_hosts():
            runner = _runner(config, launcher, ('test',), _hooks())
            runner.watch = watch
            metrics = runner.test()
    if out is not None and is_main_process():
        _hand_out(config, out)
        terminal.say(f'predictions written to {out}')
    return metrics


def score(config: Config, predictions: Path, data: Path | None = None) -> dict[str, float | None]:
    """Score saved predictions, with no model, as the run does that would write them.

    Args:
        config: as ``scoring_config`` returns it.
        predictions: COCO results, a file or the folder of a run (detection); a folder of PNG label maps.
        data: root of a COCO folder; its validation annotations are the ground truth.

    Returns:
        The metrics as fractions; they, and what is known of each class, are also in ``config.work_dir``
        (``metrics.json``, ``evaluation.json``).
    """
    task = configs.task(config)
    if task == 'detection':
        found = offline.detection(config, predictions, data)
    else:
        found = offline.segmentation(config, predictions)
    metrics = as_fractions(found.metrics, task)
    terminal.show_metrics(f'{predictions}', metrics)
    for title, rows in found.classes.items():
        terminal.show_rows(title, rows)
    for line in found.notes:
        terminal.say(line)
    save(metrics, Path(config.work_dir))
    offline.save(found, Path(config.work_dir))
    return metrics


def _hand_out(config: Config, out: Path) -> None:
    """Copy the predictions that the evaluation left: the label maps, or the masks with their boxes."""
    prefix = online.output(config)
    if prefix is None:
        raise UserError(
            f'--out {out}: the test_evaluator of {config.filename} has no CocoMetric or IoUMetric'
        )
    if configs.task(config) == 'segmentation':
        out.mkdir(parents=True, exist_ok=True)
        for sample in label_maps.samples(config):
            target = out / f'{sample.name}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(prefix / f'{sample.name}.png', target)
        return
    written = [Path(f'{prefix}.{kind}.json') for kind in ('segm', 'bbox')]
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(next(path for path in written if path.is_file()), out)


def make_folder(work_dir: Path) -> None:
    """Make a work directory that can be written to.

    Raises:
        UserError: it cannot.
    """
    folders.check_writable(work_dir, 'work directory')
    work_dir.mkdir(parents=True, exist_ok=True)


@contextmanager
def full_disk_told(work_dir: Path) -> Iterator[None]:
    """A disk that fills up while a log or a result is written ends a run in one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in atomic.NO_SPACE:
            raise
        path = Path(error.filename) if error.filename else work_dir
        raise DiskFullError(path, 0, shutil.disk_usage(work_dir).free) from error


def _hooks() -> tuple[Hook, ...]:
    return HeaderHook(), ProgressHook(), MetricsHook(), PictureHook(), ValLossHook()


def _runner(
    config: Config, launcher: str, splits: Sequence[str], hooks: Sequence[Hook], skip_bad: bool = False
) -> Runner:
    config.launcher = launcher
    set_timeout(config)
    start_processes(launcher, config.env_cfg.dist_cfg)
    if 'train' in splits:
        configs.check_batch_norm(config, get_world_size())
    runner = Runner.from_cfg(config)
    check_before(config, splits, skip_bad)  # now that the processes know one another
    for hook in hooks:
        runner.register_hook(hook)
    return runner
