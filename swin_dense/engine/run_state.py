"""The state of a run besides weights, optimizer and schedule: a resumed run continues bit for bit."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

KEY = 'run'  # of a checkpoint
# of mmdet: they keep what earlier samples or batches left, which no checkpoint holds
STATEFUL = ('CachedMosaic', 'CachedMixUp', 'BatchSyncRandomResize')


def gathered(model: nn.Module, optim_wrapper: OptimWrapper) -> list[dict[str, Any]]:
    """The state of every process, in the order of ranks; all processes call this together."""
    own = dict(random=random_states(), gradients=gradients(model, optim_wrapper), buffers=_own_buffers(model))
    return all_gather_object(own)


def random_states() -> dict[str, Any]:
    """The state of the generators of Python, NumPy and torch, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(name, torch.from_numpy(np.asarray(keys, np.int64)), *rest),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_states(state: dict[str, Any]) -> None:
    """Put the generators back to what ``random_states`` returned."""
    version, keys, gauss = state['python']
    random.setstate((version, tuple(keys), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def gradients(model: nn.Module, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
    """The gradients accumulated since the last step; none right after a step."""
    if not isinstance(optim_wrapper, OptimWrapper) or optim_wrapper.should_update():
        return {}
    return {
        name: parameter.grad.cpu()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def batches_per_step(optim_wrapper: OptimWrapper) -> int:
    """Batches whose gradients make one step; 1 without gradient accumulation."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def restore(model: nn.Module, state: dict[str, Any]) -> None:
    """Give a process's model its accumulated gradients and its own buffers; random states come later."""
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name, value in state['buffers'].items():
            buffers[name].copy_(value)
    for name, parameter in model.named_parameters():
        if name in state['gradients']:
            parameter.grad = state['gradients'][name].to(parameter.device, parameter.dtype)


def stateful(config: Any) -> set[str]:  # noqa: ANN401
    """The types in a config that keep a state of their own: no run with them continues bit for bit."""
    if isinstance(config, dict):
        own = {str(config.get('type')).rpartition('.')[2]} & {*STATEFUL}
        return own.union(*map(stateful, config.values()))
    return set().union(*map(stateful, config)) if isinstance(config, (list, tuple)) else set()


def of_this_process(states: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of this rank; where there were fewer processes, that of another."""
    return states[get_rank() % len(states)]


def hook_states(hooks: list[Hook]) -> dict[str, Any]:
    """The counters of mmengine's EarlyStoppingHook, which does not save them itself."""
    for hook in hooks:
        if isinstance(hook, EarlyStoppingHook):
            return dict(wait_count=hook.wait_count, best_score=hook.best_score)
    return {}


def restore_hooks(hooks: list[Hook], state: dict[str, Any]) -> None:
    """Let the EarlyStoppingHook go on counting."""
    for hook in hooks:
        if isinstance(hook, EarlyStoppingHook) and state:
            hook.wait_count, hook.best_score = int(state['wait_count']), float(state['best_score'])


def _own_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers of this process, such as BatchNorm's statistics: the processes of a CPU run differ in them."""
    if get_rank() == 0:
        return {}  # these are the checkpoint's own
    saved = model.state_dict().keys()
    return {name: buffer.cpu() for name, buffer in model.named_buffers() if name in saved}
