"""Whether operations compute numbers at once; caches and gradients that serve where they do not.

While a graph is captured, on fake tensors and in the transforms of ``torch.func``, a tensor stands for
something that is known later, or nowhere else. A cache must not bring it back in another computation.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')
BATCHED = torch._C._dispatch_key_parse('Batched')
Backward = Callable[[FunctionCtx, Tensor], tuple[Tensor | None, ...]]
# the modes in which a tensor stands for another; modes that count or print leave numbers as they are
STANDING_IN = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)


def is_captured() -> bool:
    """Whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` makes a graph of the operations."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether ``torch.func`` (``vmap``, ``jvp``, ``jacrev``, ...) or forward-mode differentiation is at work.

    In a graph that is captured, it is not known.
    """
    return not is_captured() and (
        torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    )


def is_eager() -> bool:
    """Whether operations compute numbers now.

    They do not in ``torch.compile``, ``torch.export`` and ``torch.jit.trace``, on fake tensors, in
    ``torch.func.vmap``, ``jvp`` and the like, and in forward-mode differentiation.
    """
    return not (
        is_captured()
        or any(torch._C._get_dispatch_mode(key) is not None for key in STANDING_IN)
        or is_transformed()
    )


def eager_cache(maxsize: int) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """``functools.lru_cache`` for a function of sizes, devices and types that makes tensors.

    Where ``is_eager`` does not hold, the function is called and nothing is kept. Tensors are made outside of
    inference mode: one made in it could never serve training later. The function names the device of
    every tensor that it makes: a ``with torch.device(...)`` around the call must not choose it.

    Args:
        maxsize: results that are kept.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        kept = functools.lru_cache(maxsize)(torch.inference_mode(False)(function))

        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return kept(*args, **kwargs) if is_eager() else function(*args, **kwargs)

        return call

    return decorate


def one_by_one(backward: Backward) -> Backward:
    """The backward of an ``autograd.Function`` for plain tensors, serving several gradients at once.

    ``torch.autograd.grad(..., is_grads_batched=True)`` and vectorized jacobians hand over all gradients as
    one tensor, which looks like a single one and which many operations cannot read: each is taken alone.
    """

    @functools.wraps(backward)
    def call(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not torch._C._dispatch_keys(grad).has(BATCHED):
            return backward(ctx, grad)
        level = torch._C._vmapmode_increment_nesting() - 1
        torch._C._vmapmode_decrement_nesting()
        results = [backward(ctx, single) for single in torch._remove_batch_dim(grad, level, 1, 0)]
        return tuple(
            None if of_input[0] is None else torch._add_batch_dim(torch.stack(of_input), 0, level)
            for of_input in zip(*results, strict=True)
        )

    return call
