"""Time and memory of a run, estimated from its first iterations, and one batch as the model sees it."""

import bisect
import itertools
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.structures import BaseDataElement
from torch import nn

from swin_dense import tasks
from swin_dense.console import terminal
from swin_dense.console.times import clock
from swin_dense.drawing import pictures
from swin_dense.engine.header import training_header
from swin_dense.engine.loops import skip_training
from swin_dense.engine.runner import Runner

WARM_UP = 3  # iterations that are not counted: allocations, caches, what the loaders have fetched before
SECONDS = 25.0  # of iterations that are counted, and half as many of evaluation
LEAST, MOST = 4, 60  # iterations that are counted
EARLY = 500  # iterations: before them a detector predicts as many boxes as it is allowed to
LATER = 5  # boxes that it predicts later, for each object in the images
Loop: TypeAlias = EpochBasedTrainLoop | IterBasedTrainLoop


@dataclass
class Measured:
    """The measurements of a dry run, and how often the run does each; seconds and bytes."""

    iterations: int = 0
    early_evaluations: int = 0
    evaluations: int = 0
    checkpoints: int = 0
    set_up: float = 0.0
    iteration: float = 0.0
    early_evaluation: float = 0.0
    evaluation: float = 0.0
    checkpoint: float = 0.0
    memory: int = 0
    workers: list[int] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Seconds that the whole run takes."""
        return (
            self.set_up
            + self.iterations * self.iteration
            + self.early_evaluations * self.early_evaluation
            + self.evaluations * self.evaluation
            + self.checkpoints * self.checkpoint
        )


class DryRunHook(Hook):
    """Measures, before training, what the run is made of, and ends it before its first iteration.

    Args:
        work_dir: where the run would be saved; the dry run itself has another folder, which is deleted.
        started: ``time.time()`` when the process began its work.
    """

    priority = 'LOWEST'

    def __init__(self, work_dir: Path, started: float) -> None:
        self.work_dir, self.started = work_dir, started
        self.measured = Measured()
        self.batch: dict = {}  # the first one, as the model sees it

    def before_train(self, runner: Runner) -> None:
        header = {**training_header(runner), 'saved in': f'{self.work_dir} (dry_run.png, dry_run.log)'}
        terminal.show_header(header)
        terminal.say('dry run: measuring some iterations and a part of an evaluation ...')
        measured, loop = self.measured, runner.train_loop
        begun = loop.epoch if isinstance(loop, EpochBasedTrainLoop) else loop.iter
        measured.iterations = loop.max_iters - loop.iter
        measured.checkpoints = checkpoints(runner)
        self._train(runner)
        if runner.val_loop:
            self._evaluate(runner, evaluations(loop, begun))
        start = time.perf_counter()
        runner.save_checkpoint(runner.work_dir, 'checkpoint.pth', save_param_scheduler=True)
        measured.checkpoint = time.perf_counter() - start
        measured.memory, measured.workers = peak_memory(), worker_memory()
        skip_training(loop)

    def _train(self, runner: Runner) -> None:
        runner.call_hook('before_train_epoch')
        runner.model.train()
        batches = endless(runner.train_loop)
        first = next(batches)
        self.batch = as_seen(runner.model, first)
        self.measured.set_up = time.time() - self.started
        for batch in itertools.chain([first], itertools.islice(batches, WARM_UP - 2)):
            step(runner, batch)
        start = time.perf_counter()
        step(runner, next(batches))
        count = agreed(SECONDS / (time.perf_counter() - start), LEAST, min(MOST, self.measured.iterations))
        start = time.perf_counter()
        for batch in itertools.islice(batches, count):
            step(runner, batch)
        self.measured.iteration = (time.perf_counter() - start) / count
        self.measured.losses = {
            name.removeprefix('train/'): buffer.mean(count)
            for name, buffer in runner.message_hub.log_scalars.items()
            if name.startswith('train/') and 'loss' in name
        }

    def _evaluate(self, runner: Runner, after: Sequence[int]) -> None:
        measured = self.measured
        measured.early_evaluation, samples = evaluation_seconds(runner)
        if not limit_detections(runner.model, samples):
            measured.evaluations, measured.evaluation = len(after), measured.early_evaluation
            return
        measured.early_evaluations = sum(iteration < EARLY for iteration in after)
        measured.evaluations = len(after) - measured.early_evaluations
        if measured.evaluations:
            measured.evaluation, _ = evaluation_seconds(runner)

    def report(self, runner: Runner) -> None:
        """The table, on the terminal and in the log, and the picture."""
        amount = tasks.of_config(runner.cfg).amount(self.batch['data_samples'])
        one_batch = f'{tuple(self.batch["inputs"].shape)}, {amount}'
        rows = table(self.measured, one_batch, f'{len(runner.train_loop.dataloader.dataset)} images')
        terminal.say('')
        terminal.show_header(rows)
        for name, value in rows.items():
            runner.logger.info(f'dry run: {name}: {value}')
        if is_main_process():
            save_picture(self, runner)


def endless(loop: Loop) -> Iterator[dict]:
    """The batches of a loop, epoch after epoch."""
    if isinstance(loop, IterBasedTrainLoop):
        return loop.dataloader_iterator
    return itertools.chain.from_iterable(itertools.repeat(loop.dataloader))


def step(runner: Runner, batch: dict) -> None:
    """One iteration of training with all its hooks."""
    loop = runner.train_loop
    loop.run_iter(*((loop.iter, batch) if isinstance(loop, EpochBasedTrainLoop) else (batch,)))
    synchronize()


def evaluation_seconds(runner: Runner) -> tuple[float, list[BaseDataElement]]:
    """Seconds of a whole evaluation, from as many batches as fit the time, and the first of these."""
    loop = runner.val_loop
    runner.call_hook('before_val')
    runner.call_hook('before_val_epoch')
    runner.model.eval()
    start = time.perf_counter()
    total, batches = len(loop.dataloader), iter(loop.dataloader)
    first = next(batches)
    spent = time.perf_counter() - start  # the start of the loader
    batches = enumerate(itertools.chain([first], batches))

    def seconds(count: int) -> float:
        start = time.perf_counter()
        for number, batch in itertools.islice(batches, count):
            loop.run_iter(number, batch)
            synchronize()
        return time.perf_counter() - start

    done, each = 1, seconds(1)
    spent += each
    if total > 1:
        done += agreed(SECONDS / 2 / each, 1, total - 1)
        spent += seconds(done - 1) * (total - 1) / (done - 1)
    start = time.perf_counter()
    loop.evaluator.evaluate(round(len(loop.dataloader.dataset) * done / total))
    return spent + (time.perf_counter() - start) * total / done, first['data_samples']


def limit_detections(model: nn.Module, samples: Sequence[BaseDataElement]) -> bool:
    """Let a detector predict ``LATER`` boxes for each object at most; returns whether that is a limit to it.

    Masks and scores of hundreds of boxes take longer than in most evaluations of a run.
    """
    objects = [len(sample.gt_instances) for sample in samples if 'gt_instances' in sample]
    each = [sum(objects) / len(objects) if objects else 0.0]
    broadcast_object_list(each)  # processes see other images, and must go on alike
    likely = max(10, round(LATER * each[0]))
    limited = False
    for name in ('roi_head', 'bbox_head'):
        limits = getattr(getattr(getattr(model, 'module', model), name, None), 'test_cfg', None)
        if each[0] and limits and 'max_per_img' in limits and likely < limits.max_per_img:
            limits.max_per_img, limited = likely, True
    return limited


def agreed(wanted: float, least: int, most: int) -> int:
    """A count within bounds, the first process's in all: they wait for each other in every iteration."""
    count = [min(max(round(wanted), least), max(most, least))]
    broadcast_object_list(count)
    return count[0]


def evaluations(loop: Loop, begun: int) -> list[int]:
    """After which iterations the loop evaluates, by its own rule, from ``begun`` epochs or iterations on."""
    last = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else loop.max_iters
    after = []
    for done in range(begun + 1, last + 1):
        interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, done + 1) - 1]
        if done >= loop.val_begin and (done % interval == 0 or done == last):
            after.append(done * loop.max_iters // last)
    return after


def checkpoints(runner: Runner) -> int:
    """How many checkpoints the run saves, but for the best ones."""
    loop, count = runner.train_loop, 0
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook):
            continue
        first, last = (loop.epoch, loop.max_epochs) if hook.by_epoch else (loop.iter, loop.max_iters)
        for done in range(first + 1, last + 1):
            since = done - hook.save_begin
            regular = hook.interval > 0 and since >= 0 and since % hook.interval == 0
            count += regular or (hook.save_last and done == last)
    return count


def synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Bytes: of CUDA's allocations where there are any, otherwise of the process."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    if peak := peak_of(os.getpid()):
        return peak
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_of(process: int) -> int:
    """Peak bytes of a process, 0 where the system does not tell; ``ru_maxrss`` counts its parent, too."""
    status = Path(f'/proc/{process}/status')
    if not status.is_file():
        return 0
    lines = dict(line.split(':', 1) for line in status.read_text().splitlines())
    return int(lines['VmHWM'].split()[0]) * 1024 if 'VmHWM' in lines else 0


def worker_memory() -> list[int]:
    """Peak bytes of each process that loads data, where the system tells."""
    return [peak for process in multiprocessing.active_children() if (peak := peak_of(process.pid or 0))]


def as_seen(model: nn.Module, batch: dict) -> dict:
    """``inputs`` (B, C, H, W) and ``data_samples`` as the model gets them in training."""
    return _preprocessor(model)(batch, True)


def _preprocessor(model: nn.Module) -> nn.Module:
    inner: Any = getattr(model, 'module', model)
    return inner.data_preprocessor


def visible(inputs: torch.Tensor, preprocessor: nn.Module) -> list[np.ndarray]:
    """(H, W, 3) uint8 RGB of each input (B, C, H, W): its first three channels, or its only one, as before
    they were normalised."""
    if getattr(preprocessor, '_enable_normalize', False):
        inputs = inputs * preprocessor.get_buffer('std') + preprocessor.get_buffer('mean')
    images = inputs[:, :3] if inputs.shape[1] >= 3 else inputs[:, :1].expand(-1, 3, -1, -1)
    if not getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)):
        images = images.flip(1)  # files are read as BGR
    return list(images.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def save_picture(hook: DryRunHook, runner: Runner) -> None:
    """``dry_run.png``: the first batch, its ground truth over the images as the model sees them."""
    task = tasks.of_config(runner.cfg)
    images = visible(hook.batch['inputs'], _preprocessor(runner.model))
    drawings = [task.truth(sample) for sample in hook.batch['data_samples']]
    classes = runner.train_loop.dataloader.dataset.metainfo['classes']
    pictures.save_batch(images, drawings, classes, hook.work_dir / 'dry_run.png')


def table(measured: Measured, one_batch: str, data: str) -> dict[str, str]:
    """The report of a dry run: names and values."""
    each = ', '.join(f'{size / 2**30:.2f}' for size in measured.workers)
    beside = f'; beside it {len(measured.workers)} workers with {each} GB' if measured.workers else ''
    finish = datetime.now() + timedelta(seconds=measured.total)
    where = 'on the GPU' if torch.cuda.is_initialized() else 'of the process'
    evaluations = []
    if measured.evaluations:
        evaluations.append(f'{clock(measured.evaluation)}, {measured.evaluations} of them')
    if measured.early_evaluations:
        count = f'{measured.early_evaluations} before iteration {EARLY}'
        evaluations.append(f'{clock(measured.early_evaluation)}, {count}')
    return {
        'data': data,
        'one batch': one_batch,
        'losses': '  '.join(f'{name} {value:.3f}' for name, value in measured.losses.items()),
        'iteration': f'{measured.iteration:.3g} s, {measured.iterations} of them',
        'evaluation': '; '.join(evaluations) or 'none',
        'checkpoint': f'{measured.checkpoint:.2g} s, {measured.checkpoints} of them',
        'total time': clock(measured.total),
        'finish at': f'{finish:%Y-%m-%d %H:%M}, if started now',
        'peak memory': f'{measured.memory / 2**30:.2f} GB {where}{beside}',
    }
