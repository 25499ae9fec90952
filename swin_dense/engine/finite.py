"""A run stops at the first loss or gradient that is not finite, with the weights as they were before it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from swin_dense.console.terminal import say
from swin_dense.engine import nan_batch, run_state
from swin_dense.errors import NotFiniteError, UserError
from swin_dense.printable import printable

SKIPPED = 'skipped_iterations'  # in the message hub, which a checkpoint holds
CLIPPED = 'train/grad_norm'  # where mmengine writes the norm that it clips by
SMALLEST_SCALE = 1.0  # of a GradScaler: a gradient that overflows without any scaling is not finite


class FiniteHook(Hook):
    """Checks losses and gradients of every iteration before the optimizer's step.

    An iteration that is not finite changes nothing: no step is made, buffers such as BatchNorm's statistics
    go back to what they were, its losses are not logged, and the gradients that accumulated before it in
    the same step are dropped with it, because they cannot be taken apart. With ``skip`` of them left the run
    goes on; the next one stops it, on all processes together. Every process with the cause writes
    ``nan_batch.pt``, with several processes ``nan_batch_rank1.pt``: see ``nan_batch.reproduce``.

    In float16, gradients that overflow are the GradScaler's: it lowers the scale and skips the step, which
    is part of its work. Only an overflow without any scaling is not.

    Args:
        skip: iterations of the whole run, resumed ones included, that may be left out.
    """

    priority = 'HIGHEST'  # of all hooks it is the first to see the end of an iteration

    def __init__(self, skip: int = 0) -> None:
        self.skip = skip
        self.handles: list = []
        self.losses: dict[str, Tensor] = {}
        self.autocast: tuple[str, str] | None = None
        self.checked = False
        self.failure: _Failure | None = None

    def before_train(self, runner: Runner) -> None:
        """Watch the model and its optimizers."""
        self._release()
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.wrappers = _wrappers(runner.optim_wrapper)
        self.buffers = _Buffers(self.model)
        self.scale = self._scale()
        self.handles = [self.model.register_forward_hook(self._keep_losses)]
        for wrapper in self.wrappers:
            before_step = partial(self._before_step, wrapper)
            self.handles.append(wrapper.optimizer.register_step_pre_hook(before_step))

    def after_train(self, runner: Runner) -> None:
        self._release()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        self._begin_iteration()
        self.buffers.save()
        self.random_states = run_state.random_states()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        """Stop, or leave the iteration out, when it was not finite.

        Raises:
            NotFiniteError: names the iteration, the loss, the images and the file with the batch.
        """
        if not self.losses and outputs:  # a model with a training step of its own
            self.losses = nan_batch.loss_values(outputs)
        if not self.checked:  # gradients accumulate, or the scaler made no step
            self._check(None if self._scale() is not None else gradient_norm(self.model.parameters()))
        self._check_scale()
        if self.failure is None:
            return
        self._undo(runner.message_hub, outputs)
        self.failure.images = nan_batch.image_files(data_batch)
        failures = all_gather_object(self.failure)
        causes = [index for index, failure in enumerate(failures) if failure.losses] or range(len(failures))
        text = self._message(runner, [failures[index] for index in causes])
        skipped = int(runner.message_hub.get_info(SKIPPED, 0))
        if skipped < self.skip:
            runner.message_hub.update_info(SKIPPED, skipped + 1)
            line = f'skipped ({skipped + 1} of {self.skip}): {text}'
            say(printable(line))
            runner.logger.warning(printable(line))
            return
        after = f'; {skipped} such iterations were skipped before' if skipped else ''
        files = self._write(runner, data_batch, self.failure if get_rank() in causes else None)
        raise NotFiniteError(f'{text}{after}; no step was made; {files}')

    def _begin_iteration(self) -> None:
        self.losses = {}
        self.autocast, self.failure, self.checked = None, None, False

    def _keep_losses(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if not model.training or not isinstance(outputs, Mapping):  # a validation loss is another's
            return
        self.losses.update(nan_batch.loss_values(outputs))
        kind = nan_batch.device_of(model).type
        if torch.is_autocast_enabled(kind):
            self.autocast = (kind, str(torch.get_autocast_dtype(kind)).removeprefix('torch.'))

    def _before_step(self, wrapper: OptimWrapper, optimizer: Optimizer, args: object, kwargs: object) -> None:
        """Without gradients, a step changes neither parameters nor the optimizer's state."""
        norm: Tensor | float | None
        if hasattr(wrapper, 'loss_scaler'):
            norm = None
        elif wrapper.clip_grad_kwargs and wrapper.grad_name == 'grad_norm':
            norm = float(wrapper.message_hub.get_scalar(CLIPPED).current())  # of these very gradients
        else:
            norm = gradient_norm(weight for group in optimizer.param_groups for weight in group['params'])
        self._check(norm)
        if self.failure is not None:
            self._drop_gradients()

    def _check(self, norm: Tensor | float | None) -> None:
        """One number from the device: the sum of all, which is finite only if all are."""
        self.checked = True
        values = list(self.losses.values())
        if norm is not None:
            values.append(torch.as_tensor(norm, device=nan_batch.device_of(self.model)))
        total = torch.stack(values).sum() if values else torch.zeros(())
        if get_world_size() > 1:  # a loss can be the matter of one process; all decide alike
            bad = (~torch.isfinite(total)).float()
            all_reduce(bad, 'max')
            failed = bool(bad)
        else:
            failed = not math.isfinite(total)
        if failed:
            self.failure = self._cause(total, norm)

    def _cause(self, total: Tensor, norm: Tensor | float | None) -> '_Failure':
        """The losses and gradients of this process that are not finite; it may have none."""
        values = {name: float(value) for name, value in self.losses.items()}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        norm = math.nan if norm is None else float(norm)
        if not bad and not math.isfinite(total) and (math.isfinite(norm) or self._scale() is not None):
            bad = {'the sum of the losses': float(total)}
        note = '' if bad else _bad_gradients(self.model)
        if any(run_state.batches_per_step(wrapper) > 1 for wrapper in self.wrappers):
            note += '; the gradients accumulated for the same step are dropped'
        return _Failure(bad, values, norm, note)

    def _scale(self) -> float | None:
        """Of the GradScaler; None without one."""
        scalers = [wrapper.loss_scaler for wrapper in self.wrappers if hasattr(wrapper, 'loss_scaler')]
        return min(scaler.get_scale() for scaler in scalers) if scalers else None

    def _check_scale(self) -> None:
        before, self.scale = self.scale, self._scale()
        if self.failure or self.scale is None or before is None:
            return
        if self.scale < min(before, SMALLEST_SCALE):
            values = {name: float(value) for name, value in self.losses.items()}
            self.failure = _Failure(losses={}, values=values, norm=math.inf, gradients='')

    def _drop_gradients(self) -> None:
        for wrapper in self.wrappers:
            wrapper.optimizer.zero_grad(set_to_none=True)

    def _undo(self, hub: MessageHub, outputs: dict | None) -> None:
        """Nothing of the iteration stays, not even in the log, whose means would be NaN for long."""
        self._drop_gradients()
        self.buffers.restore()
        if outputs is not None:
            outputs.clear()
        if CLIPPED in hub.log_scalars:
            history, counts = hub.get_scalar(CLIPPED).data
            keep = [index for index, value in enumerate(history) if math.isfinite(value)]
            del hub.log_scalars[CLIPPED]
            if keep:
                hub.log_scalars[CLIPPED] = HistoryBuffer(history[keep], counts[keep])

    def _message(self, runner: Runner, causes: list['_Failure']) -> str:
        name, size = largest(self.model)
        rate = max(rate for rates in runner.optim_wrapper.get_lr().values() for rate in _rates(rates))
        images = [name for cause in causes for name in cause.images]
        reasons = dict.fromkeys(cause.text() for cause in causes)
        parts = (
            f'iteration {runner.iter + 1}: ' + '; '.join(reasons),
            'images ' + (', '.join(images) or 'not named by the data set'),
            f'learning rate {rate:g}',
            f'largest parameter {name} (abs max {size:g})',
        )
        return '; '.join(parts)

    def _write(self, runner: Runner, batch: object, own: '_Failure | None') -> str:
        """Where the batches are. All processes wait for the writing: torchrun ends all when one ends."""
        suffix = f'_rank{get_rank()}' if get_world_size() > 1 else ''
        path, note = Path(runner.work_dir) / f'nan_batch{suffix}.pt', ''
        if own is not None:
            facts = dict(
                iteration=runner.iter + 1,
                images=own.images,
                losses=own.values,
                learning_rate=runner.optim_wrapper.get_lr(),
            )
            try:
                nan_batch.write(path, self.model, batch, self.random_states, self.autocast, facts)
                note = f'the batch is in {path}'
            except UserError as error:  # the disk is full: that is not what stopped the run
                note = str(error)
        return '; '.join(text for text in all_gather_object(note) if text)

    def _release(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []


@dataclass
class _Failure:
    """The numbers of one process that were not finite.

    Attributes:
        losses: those that are not finite.
        values: of all losses.
        norm: of the gradients; NaN where nobody looked.
        gradients: parameters whose gradients are not finite, where they tell a cause.
        images: files of the batch.
    """

    losses: dict[str, float]
    values: dict[str, float]
    norm: float
    gradients: str
    images: list[str] = field(default_factory=list)

    def text(self) -> str:
        parts = [f'{name} is {value}' for name, value in self.losses.items()]
        return ', '.join(parts or [f'the gradient norm is {self.norm}']) + self.gradients


class _Buffers:
    """Copies of what a model keeps between iterations besides its parameters."""

    def __init__(self, model: nn.Module) -> None:
        saved = model.state_dict().keys()
        self.places = [
            (module, name)
            for prefix, module in model.named_modules()
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.numel() and '.'.join(filter(None, (prefix, name))) in saved
        ]
        self.copies = [buffer.clone() for buffer in self._now()]

    def save(self) -> None:
        if self.copies:  # a model may have none, which torch refuses
            with torch.no_grad():
                torch._foreach_copy_(self.copies, self._now())

    def restore(self) -> None:
        if self.copies:
            with torch.no_grad():
                torch._foreach_copy_(self._now(), self.copies)

    def _now(self) -> list[Tensor]:
        return [module.get_buffer(name) for module, name in self.places]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm of all gradients there are, one number on their device."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    dense = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
    return torch.nn.utils.get_total_norm(dense)


def _bad_gradients(model: nn.Module) -> str:
    """The parameters whose gradients are not finite; nothing if all: clipping spreads one NaN."""
    named = [(name, value.grad) for name, value in model.named_parameters() if value.grad is not None]
    names = [name for name, gradient in named if not bool(torch.isfinite(gradient).all())]
    if not names or len(names) == len(named):
        return ''
    return f' (gradient of {names[0]}' + (f' and {len(names) - 1} more)' if names[1:] else ')')


def largest(model: nn.Module) -> tuple[str, float]:
    """Name and largest magnitude of the parameter that holds it; NaN counts as the largest of all."""
    named = [(name, value.detach()) for name, value in model.named_parameters() if value.numel()]
    sizes = {name: float(value.abs().max()) for name, value in named}
    return max(sizes.items(), key=lambda item: (math.isnan(item[1]), item[1]), default=('none', 0.0))


def tensors_in(content: object, name: str = '') -> dict[str, Tensor]:
    """All tensors in nested dicts and lists, by dotted names: of a whole checkpoint."""
    if isinstance(content, Tensor):
        return {name: content}
    items: Iterable[tuple[object, object]]
    if isinstance(content, Mapping):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = enumerate(content)
    else:
        return {}
    tensors = {}
    for key, item in items:
        tensors.update(tensors_in(item, f'{name}.{key}' if name else str(key)))
    return tensors


def non_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor with NaN or infinity in it; None if all are finite.

    It reads each tensor once: a sum is finite only if all of its terms are. Where a sum is not, which can
    be an overflow, the terms are looked at one by one.
    """
    numbers = {name: _numbers(tensor) for name, tensor in tensors.items()}
    shown = {name: tensor for name, tensor in numbers.items() if tensor is not None}
    by_device: dict[torch.device, list[str]] = {}
    for name, tensor in shown.items():
        by_device.setdefault(tensor.device, []).append(name)
    suspects = set()
    for names in by_device.values():
        sums = torch.stack([shown[name].sum().to(torch.float32) for name in names])
        finite = torch.isfinite(sums).tolist()
        suspects |= {name for name, fine in zip(names, finite, strict=True) if not fine}
    exact = (name for name in shown if name in suspects and not bool(torch.isfinite(shown[name]).all()))
    return next(exact, None)


def _numbers(tensor: Tensor) -> Tensor | None:
    """The floating-point numbers of a tensor; None if it has none."""
    if tensor.is_meta or tensor.is_quantized:
        return None
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point():
        return None
    return tensor.detach().float() if tensor.element_size() == 1 else tensor.detach()  # float8 has no sum


def _wrappers(optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def _rates(rates: list[float] | dict[str, list[float]]) -> list[float]:
    return [rate for part in rates.values() for rate in part] if isinstance(rates, dict) else rates
