"""mmengine's Runner, where it falls short: safe loading, exact resuming, whole files, clear errors."""

import logging
import os
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.runner import _SlicedDataset
from torch import nn
from torch.utils.data import DataLoader

from swin_dense.checkpoints.files import fetch, read_checkpoint, state_dict
from swin_dense.checkpoints.load import load_weights
from swin_dense.console.terminal import say
from swin_dense.engine import run_settings, run_state, saving
from swin_dense.engine.checkpoint import CheckpointHook, point_at
from swin_dense.engine.fixed_order import FixedOrder
from swin_dense.engine.loops import EpochLoop, IterLoop
from swin_dense.engine.order import ExactLoader, exact
from swin_dense.engine.resume import STOPPED
from swin_dense.engine.signals import OUT_OF_TIME, StopRequest, stopped
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import DiskFullError, NotFiniteError, StoppedError, UnsafeFileError, UserError
from swin_dense.models.channels import check_channels
from swin_dense.models.host_arguments import loads_by_name
from swin_dense.models.layout import connect

CHECKPOINT_HOOKS = ('CheckpointHook', 'mmengine.CheckpointHook', MMEngineCheckpointHook)
EPOCH_LOOPS = ('EpochBasedTrainLoop', 'mmengine.EpochBasedTrainLoop', EpochBasedTrainLoop)
ITER_LOOPS = ('IterBasedTrainLoop', 'mmengine.IterBasedTrainLoop', IterBasedTrainLoop)
WORKER_TIMEOUT = 600  # seconds in which a loader worker must give a batch, unless the config says otherwise


class Runner(MMEngineRunner):
    """The runner of the tools; configs and hooks are mmengine's.

    Attributes:
        watch: of the loaders' workers; None where nobody watches.
        stop: says after each iteration whether the run shall stop; None where nothing can stop it.
        resume_anyway: whether a run may go on with other settings than it was saved with.
        evaluated_at: the iteration of the last evaluation.
    """

    _resuming = False
    _random_states: dict[str, Any] | None = None
    _processes: list[dict[str, Any]] | None = None
    _saved_at: int | None = None
    _started = 0.0
    stop: StopRequest | None = None
    watch: WorkerWatch | None = None
    resume_anyway = False
    evaluated_at: int | None = None

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None) -> MMLogger:
        """Log to the file alone: the terminal belongs to header, progress and tables."""
        logger = super().build_logger(log_level, log_file)
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
        return logger

    def set_randomness(
        self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False
    ) -> None:
        """Seed the generators, as mmengine does; its deterministic mode works on GPUs too."""
        if deterministic:  # cuBLAS reads it at its first product, and torch refuses to go on without it
            os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
        super().set_randomness(seed, diff_rank_seed, deterministic)

    def train(self) -> nn.Module:
        """Train; on a GPU too, deterministically if the config says so."""
        with FixedOrder() if self.deterministic else nullcontext():
            return super().train()

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; arguments that do not fit together are the config's mistake."""
        if isinstance(model, dict):
            _refuse_weights_by_name(model, self.cfg.filename)
        try:
            built = super().build_model(model)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'config {self.cfg.filename}: model: {type(error).__name__}: {error}') from error
        check_channels(built)
        return connect(built)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """On the CPU, wrap without device ids and with BatchNorm for SyncBN, which needs GPUs."""
        if get_device() != 'cpu' or not self.distributed or model_wrapper_cfg or is_model_wrapper(model):
            return super().wrap_model(model_wrapper_cfg, model)
        return MMDistributedDataParallel(
            module=revert_sync_batchnorm(model),
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
        )

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """Build a loader whose batches depend on the seed and their position alone.

        An epoch may be cut short, but not be longer than its data set.
        """
        if isinstance(dataloader, DataLoader):
            return dataloader
        built = MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        if isinstance(built.dataset, _SlicedDataset):
            wanted, there = len(built.dataset), len(built.dataset._dataset)
            if wanted > there:
                raise UserError(
                    f'config: num_batch_per_epoch={dataloader["num_batch_per_epoch"]} takes {wanted} images, '
                    f'and the data set of the loader has {there}'
                )
        return exact(built, seed or 0, WORKER_TIMEOUT)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """mmengine's two loops become ours, which stop and go on at any iteration."""
        if isinstance(loop, BaseLoop):
            return loop
        arguments = {key: value for key, value in loop.items() if key != '_scope_'}
        kind, by_epoch = arguments.pop('type', None), arguments.pop('by_epoch', None)
        ours = EpochLoop if kind in EPOCH_LOOPS or by_epoch is True else None
        ours = IterLoop if kind in ITER_LOOPS or by_epoch is False else ours
        if ours is None or (kind is not None and by_epoch is not None):
            return super().build_train_loop(loop)
        return ours(**arguments, runner=self, dataloader=self._train_dataloader)

    def register_hook(self, hook: Hook | dict, priority: str | int | None = None) -> None:
        """mmengine's CheckpointHook becomes ours, with its arguments."""
        if isinstance(hook, dict) and hook.get('type') in CHECKPOINT_HOOKS:
            arguments = {
                key: value for key, value in hook.items() if key not in ('type', 'priority', '_scope_')
            }
            built = CheckpointHook(**arguments)
            super().register_hook(built, hook.get('priority', priority))
            return
        super().register_hook(hook, priority)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale linearly with the effective batch, of which mmengine forgets the accumulation."""
        steps = run_state.batches_per_step(optim_wrapper)
        if auto_scale_lr and auto_scale_lr.get('enable') and steps > 1:
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': auto_scale_lr['base_batch_size'] / steps}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def load_checkpoint(
        self,
        filename: str,
        map_location: str = 'cpu',
        strict: bool = False,
        revise_keys: list[tuple[str, str]] = [(r'^module\.', '')],  # noqa: B006  mmengine's signature
    ) -> dict:
        """Load the weights of any file, without running anything that it holds, and report what matched."""
        content = read_checkpoint(fetch(filename), mapped=not self._resuming)
        if self._resuming:
            self._check_resumed(content, filename)
        if self._resuming:  # EMA exchanges the two models that it finds there
            self.call_hook('after_load_checkpoint', checkpoint=content)
        model = self._inner_model()
        # only a new training run makes another model's weights fit: a test or a resumed run needs its own
        new = isinstance(self._train_loop, BaseLoop) and not self._resuming
        report = load_weights(model, state_dict(content), filename, adapt=new, partial=False)
        for line in report.lines():
            say(line)
            self.logger.info(line)
        if not self._resuming:  # EMA copies the weights, which a file may hold under any names
            content = {**content, 'state_dict': model.state_dict()}
            self.call_hook('after_load_checkpoint', checkpoint=content)
        self._has_loaded = True
        return content

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str = 'default',
    ) -> None:
        """Continue the run that wrote ``filename``, bit for bit.

        Raises:
            UserError: it holds no run, or a setting differs and ``resume_anyway`` is not set.
        """
        self._resuming = True
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except (AssertionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'checkpoint {filename} holds no run that this config can resume: '
                f'{type(error).__name__}: {error}'
            ) from error
        finally:
            self._resuming = False
        self._saved_at = self.iter
        if self._processes is None:  # another trainer's: its last evaluation is not ours to repeat
            self.evaluated_at = self.iter

    def _check_resumed(self, content: dict, filename: str) -> None:
        """The state of a run in a checkpoint, read before anything of it is used."""
        if 'config' in (content.get('meta') or {}):
            raise UnsafeFileError(
                f'checkpoint {filename} is refused: its meta.config is Python text, which resuming would run'
            )
        run = content.get(run_state.KEY)
        if run is None:
            say(f'checkpoint {filename} holds no random states: the run goes on, but not bit for bit')
            return
        changed = run_settings.check(
            run['settings'], run_settings.settings(self), filename, self.resume_anyway
        )
        for line in changed:
            say(f'not exact any longer: {line}')
        self._processes, self._started = run['processes'], run['started']
        self.evaluated_at = run['evaluated_at']
        state = run_state.of_this_process(self._processes)
        self._random_states = state['random']
        run_state.restore_hooks(self.hooks, run['hooks'])

    def restore_random_states(self) -> None:
        """At the first iteration of a resumed run, restore random states and accumulated gradients."""
        if self._random_states is None or self._processes is None:
            return
        run_state.restore(self._inner_model(), run_state.of_this_process(self._processes))
        run_state.set_random_states(self._random_states)
        self._random_states = None

    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Save all that the run is; the file is there when it is whole, and the old one until then.

        All processes call this together.

        Raises:
            DiskFullError: the disk is full.
            NotFiniteError: a tensor holds NaN or infinity: nothing is written.
        """
        begun = time.monotonic()
        self._gathered = run_state.gathered(self._inner_model(), self.optim_wrapper)
        save = partial(
            super().save_checkpoint,
            file_client_args=file_client_args,
            save_optimizer=save_optimizer,
            save_param_scheduler=save_param_scheduler,
            meta=meta,
            by_epoch=by_epoch,
            backend_args=backend_args,
        )
        if file_client_args or backend_args or '://' in str(out_dir):
            save(out_dir, filename)
        elif is_main_process():
            path = Path(out_dir) / filename
            try:
                with saving.straight_to_disk():
                    save(out_dir, filename)
            except DiskFullError as error:
                free = saving.free_bytes(path.parent)
                raise DiskFullError(path, self._checkpoint_bytes(), free) from error
        if save_optimizer and meta:  # the best checkpoints are weights alone
            self._saved_at = meta.get('iter')
        if self.stop is not None and self.stop.budget is not None:
            self.stop.budget.saved(time.monotonic() - begun)

    def call_hook(self, fn_name: str, **arguments: Any) -> None:  # noqa: ANN401  mmengine's signature
        """Call the hooks; a checkpoint gets the state of the run first, and is looked at last."""
        if fn_name == 'before_run' and self.watch is not None:
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                if isinstance(loop, BaseLoop) and isinstance(loop.dataloader, ExactLoader):
                    dataset: Any = loop.dataloader.dataset  # SeededSamples
                    self.watch.add(dataset.loading, dataset)
        if fn_name == 'after_val_epoch':
            self.evaluated_at = self.iter
        if fn_name == 'before_save_checkpoint':
            arguments['checkpoint'][run_state.KEY] = self._run_state()
        super().call_hook(fn_name, **arguments)
        if fn_name == 'before_save_checkpoint' and (name := saving.not_finite(arguments['checkpoint'])):
            raise NotFiniteError(
                f'{self.work_dir}: {name} holds NaN or infinity after {self.iter} iterations: '
                f'no checkpoint is written, and the last one is intact'
            )

    def _run_state(self) -> dict[str, Any]:
        self._started = self._started or time.time()
        return dict(
            processes=self._gathered,
            settings=run_settings.settings(self),
            started=self._started,
            evaluated_at=self.evaluated_at,
            hooks=run_state.hook_states(self.hooks),
        )

    def check_before_first_iteration(self) -> None:
        """There must be space for a checkpoint; from now on a stop saves first."""
        if self.stop is not None:
            self.stop.defer()
        for name in sorted(run_state.stateful(self.cfg.to_dict())):
            say(f'{name} keeps a state that no checkpoint holds: a resumed run is not the same bit for bit')
        if is_main_process():
            folder = Path(self.work_dir)
            saving.check_space(folder, folder / 'checkpoint', self._checkpoint_bytes())

    def stop_if_requested(self) -> None:
        """After an iteration: save and stop if a signal or the time budget says so, in all processes."""
        if self.stop is None:
            return
        if self.stop.budget is not None:
            self.stop.budget.iteration_ended()
        reason = self.stop.agreed()
        if reason is not None:
            self.save_and_stop(reason)

    def leave_evaluation(self) -> None:
        """Give the model back its own weights, in whose place an evaluation had put averaged ones."""
        for hook in self.hooks:
            if isinstance(hook, EMAHook):
                hook.after_val_epoch(self)

    def save_and_stop(self, reason: int) -> None:
        """Save the run as it is, unless it is saved already, and stop it."""
        path = Path(self.work_dir) / STOPPED.format(self.iter)
        where = f'after {self.iter} iterations; --resume goes on from there'
        if self._saved_at != self.iter:
            meta = dict(epoch=self.epoch, iter=self.iter)
            self.save_checkpoint(self.work_dir, path.name, meta=meta, by_epoch=False)
            if is_main_process():
                point_at(path.parent, path)
        self.call_hook('after_run')
        if reason == OUT_OF_TIME:
            raise StoppedError(f'stopped by --max-time {where}', 0)
        raise stopped(reason, where)

    def _checkpoint_bytes(self) -> int:
        wrappers = self.optim_wrapper if isinstance(self.optim_wrapper, OptimWrapper) else None
        optimizers = [wrappers.optimizer] if wrappers is not None else []
        return saving.expected_bytes(self._inner_model(), optimizers, self.hooks)

    def _inner_model(self) -> nn.Module:
        return self.model.module if is_model_wrapper(self.model) else self.model


def _refuse_weights_by_name(model: dict, filename: str | None) -> None:
    """mmengine would load a whole model's file by names, and leave our backbone with random weights."""
    start, backbone = model.get('init_cfg'), model.get('backbone') or {}
    ours = str(backbone.get('type')).startswith('swin_dense.')
    if ours and isinstance(start, dict) and loads_by_name(start):
        raise UserError(
            f'config {filename}: model.init_cfg would load by names, which differ for our backbone: leave it '
            f'out and give --checkpoint {start.get("checkpoint")}'
        )
