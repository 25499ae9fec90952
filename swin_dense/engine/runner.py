"""mmengine's Runner, where it falls short: safe loading, the CPU, a quiet terminal, clear errors."""

import logging

from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, is_model_wrapper, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner.runner import _SlicedDataset
from torch import nn
from torch.utils.data import DataLoader

from swin_dense.checkpoints.files import fetch, read, state_dict
from swin_dense.checkpoints.load import load
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.models.channels import check_channels
from swin_dense.report.terminal import say


class Runner(MMEngineRunner):
    """The runner of the tools; configs and hooks are mmengine's."""

    _resuming = False

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None) -> MMLogger:
        """Log to the file alone: the terminal belongs to header, progress and tables."""
        logger = super().build_logger(log_level, log_file)
        for handler in list(logger.handlers):
            if type(handler) is logging.StreamHandler:
                logger.removeHandler(handler)
        return logger

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model; arguments that do not fit together are the config's mistake."""
        try:
            built = super().build_model(model)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'config {self.cfg.filename}: model: {type(error).__name__}: {error}') from error
        check_channels(built)
        return built

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
        """Build a loader; an epoch may be cut short, but not be longer than its data set."""
        built = MMEngineRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        if isinstance(built.dataset, _SlicedDataset):
            wanted, there = len(built.dataset), len(built.dataset._dataset)
            if wanted > there:
                raise UserError(
                    f'config: num_batch_per_epoch={dataloader["num_batch_per_epoch"]} takes {wanted} images, '
                    f'and the data set of the loader has {there}'
                )
        return built

    @staticmethod
    def accumulation(optim_wrapper: OptimWrapper) -> int:
        """Batches whose gradients make one step."""
        return getattr(optim_wrapper, '_accumulative_counts', 1)

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scale linearly with the effective batch, of which mmengine forgets the accumulation."""
        steps = self.accumulation(optim_wrapper)
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
        content = read(fetch(filename), mapped=not self._resuming)
        if 'config' in (content.get('meta') or {}) and self._resuming:
            raise UnsafeFileError(
                f'checkpoint {filename} is refused: its meta.config is Python text, which resuming would run'
            )
        if self._resuming:  # EMA exchanges the two models that it finds there
            self.call_hook('after_load_checkpoint', checkpoint=content)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        # only a new training run makes another model's weights fit: a test or a resumed run needs its own
        new = isinstance(self._train_loop, BaseLoop) and not self._resuming
        report = load(model, state_dict(content), filename, adapt=new, partial=False)
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
        """Continue the run that wrote ``filename``."""
        self._resuming = True
        try:
            super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)
        except KeyError as error:
            raise UserError(
                f'checkpoint {filename} holds weights alone, not a run to resume ({error})'
            ) from error
