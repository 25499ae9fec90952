"""Whole runs: training, its dry run, testing, scoring."""

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

from swin_dense import tasks
from swin_dense.console import terminal
from swin_dense.engine import dry_run as dry
from swin_dense.engine.data_check import check_before
from swin_dense.engine.failures import as_user_errors
from swin_dense.engine.finite import FiniteHook
from swin_dense.engine.hooks import HeaderHook, MetricsHook, PictureHook, ProgressHook, SkipBadHook
from swin_dense.engine.launch import start_processes
from swin_dense.engine.lock import work_dir_lock
from swin_dense.engine.loops import InterruptedEvaluationHook
from swin_dense.engine.prepare import Prepared, check_batch_norm, moved
from swin_dense.engine.processes import no_children_left
from swin_dense.engine.runner import Runner
from swin_dense.engine.signals import StopRequest, TimeBudget
from swin_dense.engine.start import Beginning
from swin_dense.engine.val_loss import ValLossHook
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import DiskFullError, UserError
from swin_dense.evaluate import offline, online
from swin_dense.evaluate.metrics import as_fractions, save
from swin_dense.storage import atomic, folders


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


NO_LIMITS = Limits()


def train(prepared: Prepared, limits: Limits = NO_LIMITS) -> None:
    """Train and evaluate; checkpoints, log, metrics, predictions and pictures go to ``config.work_dir``.

    Raises:
        UserError: a mistake in what it was given, or another run holds the work directory.
        StoppedError: a signal or the time budget stopped it; all is saved.
        NotFiniteError, DiskFullError, FailedRunError: it cannot go on; the last checkpoint is intact.
    """
    config, beginning = prepared.config, prepared.beginning
    work_dir = Path(config.work_dir)
    budget = None if limits.seconds is None else TimeBudget(limits.seconds)
    with StopRequest(budget) as stop, no_children_left(), WorkerWatch() as watch:
        start_processes(config.launcher, config.env_cfg.dist_cfg)
        make_folder(work_dir)
        with (
            work_dir_lock(work_dir),
            as_user_errors(config, watch),
            full_disk_as_user_error(work_dir),
            terminal.quiet_hosts(),
        ):
            atomic.sweep(work_dir)
            beginning.confirm()
            hooks = [*_hooks(), FiniteHook(limits.skip_nan), InterruptedEvaluationHook()]
            if limits.skip_bad:
                hooks.append(SkipBadHook())
            runner = _training_runner(config, beginning, hooks, limits.skip_bad)
            runner.stop, runner.watch = stop, watch
            runner.train()


def dry_run(prepared: Prepared, started: float | None = None) -> dry.Measured:
    """Build all of a training run, measure some iterations, and leave ``dry_run.png`` and ``dry_run.log``.

    Args:
        prepared: the run.
        started: ``time.time()`` when the process began its work; now if None.
    """
    work_dir = Path(prepared.config.work_dir)
    make_folder(work_dir)
    hook = dry.DryRunHook(work_dir, started or time.time())
    with tempfile.TemporaryDirectory(prefix='.dry_run_', dir=work_dir) as scratch, terminal.quiet_hosts():
        config = moved(prepared.config, Path(scratch))
        runner = _training_runner(config, prepared.beginning, (PictureHook(), ValLossHook(), hook))
        try:
            runner.train()
            hook.report(runner)
        finally:
            for log in Path(scratch).glob('*/*.log'):
                shutil.copyfile(log, work_dir / 'dry_run.log')
    return hook.measured


def test(config: Config, out: Path | None = None) -> dict:
    """Evaluate a checkpoint.

    Args:
        config: as ``prepare.evaluation`` returns it.
        out: the file or folder to copy the predictions to.

    Returns:
        The metrics as the host's evaluator returns them.
    """
    work_dir = Path(config.work_dir)
    with (
        no_children_left(),
        WorkerWatch() as watch,
        as_user_errors(config, watch),
        full_disk_as_user_error(work_dir),
    ):
        make_folder(work_dir)
        with terminal.quiet_hosts():
            runner = _runner(config, ('test',), _hooks())
            runner.watch = watch
            metrics = runner.test()
    if out is not None and is_main_process():
        written = online.output(config)
        if written is None:
            kinds = ' or '.join(online.OUTPUTS)
            raise UserError(f'--out {out}: the test_evaluator of {config.filename} has no {kinds}')
        tasks.of_config(config).hand_out(config, written, out)
        terminal.say(f'predictions written to {out}')
    return metrics


def score(config: Config, predictions: Path, data: Path | None = None) -> dict[str, float | None]:
    """Score saved predictions, with no model, as the run does that would write them.

    Args:
        config: as ``prepare.scoring`` returns it.
        predictions: the files that ``tools/test.py --out`` or a run wrote.
        data: root of the folder with the ground truth.

    Returns:
        The metrics as fractions; they, and what is known of each class, are also in ``config.work_dir``
        (``metrics.json``, ``evaluation.json``).
    """
    task = tasks.of_config(config)
    evaluated = task.score(task.ground_truth(config, data), predictions).evaluated
    metrics = as_fractions(evaluated.metrics, task.in_percent)
    terminal.show_metrics(f'{predictions}', metrics)
    for title, rows in evaluated.classes.items():
        terminal.show_rows(title, rows)
    for line in evaluated.notes:
        terminal.say(line)
    save(metrics, Path(config.work_dir))
    offline.save(evaluated, Path(config.work_dir))
    return metrics


def make_folder(work_dir: Path) -> None:
    """Make a work directory that can be written to.

    Raises:
        UserError: it cannot.
    """
    folders.check_writable(work_dir, 'work directory')
    work_dir.mkdir(parents=True, exist_ok=True)


@contextmanager
def full_disk_as_user_error(work_dir: Path) -> Iterator[None]:
    """Turn a full disk, while a log or a result is written, into a one-line error."""
    try:
        yield
    except OSError as error:
        if error.errno not in atomic.NO_SPACE:
            raise
        path = Path(error.filename) if error.filename else work_dir
        raise DiskFullError(path, 0, shutil.disk_usage(work_dir).free) from error


def _hooks() -> tuple[Hook, ...]:
    return HeaderHook(), ProgressHook(), MetricsHook(), PictureHook(), ValLossHook()


def _training_runner(
    config: Config, beginning: Beginning, hooks: Sequence[Hook], skip_bad: bool = False
) -> Runner:
    for note in beginning.run.notes if beginning.run is not None else ():
        terminal.say(note)
    runner = _runner(config, ('train', 'val'), hooks, skip_bad)
    runner.resume_anyway = beginning.anyway
    return runner


def _runner(config: Config, splits: Sequence[str], hooks: Sequence[Hook], skip_bad: bool = False) -> Runner:
    start_processes(config.launcher, config.env_cfg.dist_cfg)
    if 'train' in splits:
        check_batch_norm(config, get_world_size())
    runner = Runner.from_cfg(config)
    check_before(config, splits, skip_bad)  # now that the processes know one another
    for hook in hooks:
        runner.register_hook(hook)
    return runner
