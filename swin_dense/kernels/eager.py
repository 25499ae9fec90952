"""Do operations compute numbers at once? And caches and gradients that hold where they do not.

While a graph is captured, on fake tensors and in the transforms of ``torch.func``, a tensor is a placeholder:
its numbers are known later, or to this computation only. A cache must not carry it into another one.

torch has no public way to ask for all of this: its private names are used here and nowhere else, and
``tests/kernels/test_eager.py`` guards them.
"""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')
BATCHED = torch._C._dispatch_key_parse('Batched')
# the modes whose tensors are placeholders; modes that count or print leave numbers as they are
PLACEHOLDER_MODES = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)


class Context(Protocol):
    """The first argument of an ``autograd.Function``'s methods; torch's annotation lacks its attributes."""

    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...


Gradients = tuple[Tensor | None, ...]


def is_captured() -> bool:
    """Whether ``torch.compile``, ``torch.export`` or ``torch.jit.trace`` makes a graph of the operations."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def is_transformed() -> bool:
    """Whether ``torch.func`` (``vmap``, ``jvp``, ``jacrev``, ...) or forward-mode differentiation is at work.

    False while a graph is captured, where nobody can tell.
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
        or any(torch._C._get_dispatch_mode(key) is not None for key in PLACEHOLDER_MODES)
        or is_transformed()
    )


def eager_cache(maxsize: int) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """``functools.lru_cache`` for a function of sizes, devices and types that makes tensors.

    Where ``is_eager`` does not hold, the function is called and nothing is kept. Tensors are made outside of
    inference mode: a tensor made in it could never be used in training. The function must name the device of
    every tensor that it makes: a ``with torch.device(...)`` around the call must not choose it.

    Args:
        maxsize: results that are kept.
    """

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        outside = torch.inference_mode(False)(function)
        cached = cast(Callable[Arguments, Result], functools.lru_cache(maxsize)(outside))

        @functools.wraps(function)
        def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return cached(*args, **kwargs) if is_eager() else function(*args, **kwargs)

        return call

    return decorate


def for_each_gradient(
    backward: Callable[[Any, Tensor], Gradients],
) -> Callable[[Any, Tensor], Gradients]:
    """Let an ``autograd.Function``'s backward, written for one gradient, take several at once.

    ``torch.autograd.grad(..., is_grads_batched=True)`` and vectorized jacobians pass all gradients in one
    tensor. It looks like a single gradient, and many operations cannot read it. Here ``backward`` gets one
    gradient after the other.
    """

    @functools.wraps(backward)
    def call(ctx: Any, grad: Tensor) -> Gradients:  # noqa: ANN401
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
