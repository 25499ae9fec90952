"""Whether operations compute numbers at once, and a cache that keeps no other tensors than theirs.

While a graph is captured, on fake tensors and in the transforms of ``torch.func``, a tensor stands for
something that is known later, or nowhere else. A cache must not bring it back in another computation.
"""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch.autograd import forward_ad

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')
# the modes in which a tensor stands for another; modes that count or print leave numbers as they are
STANDING_IN = (
    torch._C._TorchDispatchModeKey.FAKE,
    torch._C._TorchDispatchModeKey.PROXY,
    torch._C._TorchDispatchModeKey.FUNCTIONAL,
)


def is_eager() -> bool:
    """Whether operations compute numbers now.

    They do not in ``torch.compile``, ``torch.export`` and ``torch.jit.trace``, on fake tensors, in
    ``torch.func.vmap``, ``jvp`` and the like, and in forward-mode differentiation.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or any(torch._C._get_dispatch_mode(key) is not None for key in STANDING_IN)
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
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
