"""The hooks that show a run and save its results: header, progress, metrics, pictures."""

import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from swin_dense import tasks
from swin_dense.console import terminal
from swin_dense.console.times import clock
from swin_dense.data.failures import LeftOut
from swin_dense.drawing import pictures
from swin_dense.engine import header
from swin_dense.engine.runner import Runner
from swin_dense.evaluate import metrics as fractions

PLAIN_LINE_SECONDS = 20.0  # off a terminal, a line at most this often
SMOOTHED = 20  # iterations over which shown losses and times are averaged


class HeaderHook(Hook):
    """The header before the first iteration: model, data and settings."""

    def before_train(self, runner: Runner) -> None:
        terminal.show_header(header.training_header(runner))
        warning = header.unscaled_rate(runner)
        if warning:
            terminal.warn(warning)

    def before_test(self, runner: Runner) -> None:
        terminal.show_header(header.test_header(runner))


class ProgressHook(Hook):
    """A bar for each epoch or interval with losses and ETA; plain lines off a terminal."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.bar: Progress | None = None
        self.name, self.total, self.done = '', 0, 0
        self.last_line = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        if self.total:
            return
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._start(f'epoch {runner.epoch + 1}/{runner.max_epochs}', len(runner.train_loop.dataloader))
        else:
            interval = min(runner.val_interval if runner.val_loop else runner.max_iters, runner.max_iters)
            begin = runner.iter - runner.iter % interval
            end = min(begin + interval, runner.max_iters)
            self._start(f'iterations {begin + 1}-{end}', end - begin)
            self.done = runner.iter - begin
            return
        self.done = batch_idx  # of an epoch that was resumed in its middle

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        scalars = runner.message_hub.log_scalars
        losses = {
            name.removeprefix('train/').replace('loss_', ''): buffer.mean(SMOOTHED)
            for name, buffer in scalars.items()
            if name.startswith('train/') and 'loss' in name
        }
        text = '  '.join(f'{name} {value:.3f}' for name, value in losses.items())
        per_iter = scalars['train/time'].mean(SMOOTHED)
        left = (runner.max_iters - runner.iter - 1) * per_iter
        self._advance(f'{text}  {per_iter:.2f} s/it  ETA {clock(left)}')

    def before_val_epoch(self, runner: Runner) -> None:
        self._stop()
        self._start('evaluating', len(runner.val_loop.dataloader))

    def before_test_epoch(self, runner: Runner) -> None:
        self._start('evaluating', len(runner.test_loop.dataloader))

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Sequence | None = None,
    ) -> None:
        self._advance('')

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._stop()

    after_test_epoch = after_val_epoch

    def after_run(self, runner: Runner) -> None:
        self._stop()

    def _start(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        if is_main_process() and terminal.console.is_terminal:
            columns = (
                TextColumn('{task.description}'),
                BarColumn(24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self.bar = Progress(*columns, TextColumn('{task.fields[text]}'), console=terminal.console)
            self.bar.add_task(name, total=total, text='')
            self.bar.start()

    def _advance(self, text: str) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, text=text)
        elif time.monotonic() - self.last_line > PLAIN_LINE_SECONDS or self.done == self.total:
            self.last_line = time.monotonic()
            terminal.say(f'{self.name}  {self.done}/{self.total}  {text}')
        if self.done >= self.total:
            self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
        self.bar, self.total = None, 0


class SkipBadHook(Hook):
    """Lets a run go on without the images that cannot be read, and says in the end how many they were."""

    def before_run(self, runner: Runner) -> None:
        self.left_out = LeftOut(Path(runner.work_dir))
        if is_main_process() and not runner._resume:
            self.left_out.begin()
        runner.train_loop.dataloader.dataset.left_out = self.left_out

    def after_run(self, runner: Runner) -> None:
        if summary := self.left_out.summary():
            terminal.say(summary)


class MetricsHook(Hook):
    """A table of the metrics after each evaluation, and ``metrics.json`` in the work directory."""

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        logged = runner.message_hub.log_scalars
        losses = {
            name.removeprefix('val/'): buffer.current()
            for name, buffer in logged.items()
            if name.startswith('val/val/')  # of ValLossHook
        }
        self._report(runner, metrics or {}, losses)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._report(runner, metrics or {}, {})

    def _report(self, runner: Runner, metrics: dict, losses: dict[str, float]) -> None:
        if not is_main_process():
            return
        plain = fractions.as_fractions(metrics, tasks.of_config(runner.cfg).in_percent)
        when = f'after {runner.iter} iterations' if runner.iter else ''
        terminal.show_metrics(f'evaluation {when}'.strip(), {**plain, **losses})
        fractions.save(plain, Path(runner.work_dir))


class PictureHook(Hook):
    """``predictions.png``: ground truth beside predictions for the first images of each evaluation."""

    def __init__(self, images: int = 6) -> None:
        self.images = images
        self.samples: list[pictures.Pair] = []

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        for sample in outputs or ():
            if len(self.samples) < self.images and is_main_process():
                self.samples.append(tasks.of_config(runner.cfg).pair(sample))

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._save(runner, runner.val_loop)

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._save(runner, runner.test_loop)

    def _save(self, runner: Runner, loop: BaseLoop) -> None:
        if self.samples:
            classes = loop.dataloader.dataset.metainfo['classes']
            pictures.save_grid(self.samples, classes, Path(runner.work_dir) / 'predictions.png')
        self.samples = []
