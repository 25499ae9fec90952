"""Time, memory, the speed of matrix products, and what else the machine is doing."""

import ctypes
import gc
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from swin_dense.errors import UserError

LIMIT = 0.1  # of a core before the start, and of the CPU time of a pair, may go to others
SHORTEST = 0.02  # seconds of a sample; shorter calls are repeated within one
PRODUCTS = {'cpu': 2048, 'cuda': 8192}  # rows and columns of the square matrices
DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16}


def wait(device: str) -> None:
    """Until the device has done what it was told."""
    if device == 'cuda':
        torch.cuda.synchronize()


# time


def seconds(call: Callable[[], object], device: str, repeats: int = 1) -> float:
    """How long one call takes, as the mean of ``repeats`` in a row."""
    wait(device)
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    wait(device)
    return (time.perf_counter() - start) / repeats


def interleaved(
    calls: Mapping[str, Callable[[], object]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Time every call once a round, one after the other: what disturbs one disturbs all.

    Args:
        calls: what to time, warmed up.
        rounds: samples of each.
        device: ``'cpu'`` or ``'cuda'``.

    Returns:
        Seconds of a call, by name.
    """
    repeats = {name: math.ceil(SHORTEST / seconds(call, device)) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            samples[name].append(seconds(call, device, repeats[name]))
    return samples


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(samples) == 1:
        return dict.fromkeys(('low', 'median', 'high'), samples[0])
    low, median, high = statistics.quantiles(samples, n=4, method='inclusive')
    return {'low': low, 'median': median, 'high': high}


def product_rate(device: str, dtype: str, best_of: int = 8) -> float:
    """FLOP/s of the product of two large square matrices, the best of several.

    On the CPU torch has two libraries for products: its BLAS, which ``torch.mm`` takes, and oneDNN, which
    our backbone takes. The faster one counts.
    """
    side = PRODUCTS[device]
    left, right = (torch.randn(side, side, device=device, dtype=DTYPES[dtype]) for _ in range(2))
    out = torch.empty_like(left)
    products = [lambda: torch.mm(left, right, out=out)]
    if device == 'cpu' and torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(left, right, None, 'none', [], ''))
    with torch.no_grad():
        times = [seconds(product, device) for _ in range(best_of) for product in products]
    return 2 * side**3 / min(times)


def exponent(pixels: Sequence[int], times: Sequence[float]) -> float:
    """The p of time = c * pixels^p, by least squares in logarithms."""
    x, y = ([math.log(value) for value in values] for values in (pixels, times))
    return statistics.linear_regression(x, y).slope


# memory


def peak_memory(call: Callable[[], object], device: str) -> int | None:
    """Bytes by which a call raises the memory in use at its height, what it returns included.

    Of the allocator on CUDA, else of the process (resident). None where the system cannot tell (only Linux
    does).
    """
    gc.collect()
    if device == 'cuda':
        wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        wait(device)
        return torch.cuda.max_memory_allocated() - before
    try:
        # the allocator keeps freed memory, into which a call could grow unseen
        ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
        before = _resident('VmRSS')
    except (AttributeError, OSError, TypeError):
        return None
    call()
    return max(0, _resident('VmHWM') - before)


def _resident(field: str) -> int:
    """A field of the process's status, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{field}:'))


def saved_memory(call: Callable[[], object], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for its backward pass, beside parameters and buffers.

    Args:
        call: the forward pass, which returns what would be differentiated.
        model: whose parameters and buffers do not count.
    """
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        call()
    return sum(storage.nbytes() for storage in saved.values())


# load


def read_stat() -> str | None:
    """The kernel's account of CPU time, None where there is none."""
    path = Path('/proc/stat')
    return path.read_text() if path.is_file() else None


@dataclass(frozen=True)
class Load:
    """CPU seconds used so far: by everything on the machine (None if unknown), and by us."""

    machine: float | None
    own: float

    def others(self, later: 'Load') -> float:
        """The share of the CPU time used until ``later`` that others used; 0 if unknown."""
        if self.machine is None or later.machine is None or later.machine <= self.machine:
            return 0.0
        used = later.machine - self.machine
        return max(0.0, used - (later.own - self.own)) / used


def load() -> Load:
    """The account now. Child processes count as ours once they have ended."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    stat = read_stat()
    if stat is None:
        return Load(None, own)
    user, nice, system, _, _, irq, softirq, steal = map(int, stat.split()[1:9])
    ticks = user + nice + system + irq + softirq + steal  # not idle, not waiting for a disk
    return Load(ticks / os.sysconf('SC_CLK_TCK'), own)


def require_quiet(period: float = 2.0) -> None:
    """See that others leave the machine alone.

    Args:
        period: seconds to watch it.

    Raises:
        UserError: they use more than ``LIMIT`` of a core.
    """
    before = load()
    if before.machine is None:
        used = os.getloadavg()[0]
    else:
        time.sleep(period)
        after = load()
        used = (after.machine - before.machine - (after.own - before.own)) / period
    if used > LIMIT:
        raise UserError(
            f'the machine is busy: others use {used:.0%} of a core, and more than {LIMIT:.0%} would falsify '
            'the times; end them and run this again'
        )
