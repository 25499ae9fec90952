"""Deformable attention beside mmcv's plain function: ``python -m benchmarks.deformable_attention``.

Sizes are those of DINO (5 levels) and of Mask2Former's pixel decoder (3 levels) for images of 800x1333. Times
are interleaved in one process. Peak memory is measured in a process for each.
"""

import importlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

from swin_dense import hosts

hosts.prepare()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks import measure  # noqa: E402
from swin_dense.kernels.deformable_attention import Sizes, deformable_attention  # noqa: E402

HEIGHT, WIDTH = 800, 1333
HEADS, CHANNELS, POINTS = 8, 32, 4
# strides of the maps, and queries; as many as cells where None
CASES: dict[str, tuple[tuple[int, ...], int | None]] = {
    'Mask2Former, encoder': ((8, 16, 32), None),
    'DINO, 5 levels, decoder': ((4, 8, 16, 32, 64), 1100),
    'DINO, 5 levels, encoder': ((4, 8, 16, 32, 64), None),
}
ROUNDS = 5


def inputs(strides: tuple[int, ...], queries: int | None) -> tuple[Sizes, tuple[Tensor, ...], Tensor]:
    """Sizes of the maps, then value, locations and weights, then the gradient of the result."""
    torch.manual_seed(0)
    sizes = tuple((math.ceil(HEIGHT / stride), math.ceil(WIDTH / stride)) for stride in strides)
    cells = sum(height * width for height, width in sizes)
    cell_centres = torch.cat([_centres(*size) for size in sizes])
    centres = cell_centres if queries is None else torch.rand(queries, 2)
    spread = 3 / torch.tensor([(width, height) for height, width in sizes])
    moves = torch.randn(len(centres), HEADS, len(sizes), POINTS, 2) * spread[:, None]
    weights = torch.randn(1, len(centres), HEADS, len(sizes) * POINTS).softmax(-1)
    given = (
        torch.randn(1, cells, HEADS, CHANNELS),
        (centres[:, None, None, None] + moves)[None],
        weights.unflatten(-1, (len(sizes), POINTS)),
    )
    return sizes, given, torch.randn(1, len(centres), HEADS * CHANNELS)


def _centres(height: int, width: int) -> Tensor:
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    grid = torch.meshgrid(columns / width, rows / height, indexing='xy')
    return torch.stack(grid, -1).flatten(0, 1)


def ways(case: str) -> dict[str, Callable[[], object]]:
    """A call of each: outputs and all gradients."""
    sizes, tensors, grad = inputs(*CASES[case])
    value, locations, weights = given = tuple(tensor.requires_grad_() for tensor in tensors)
    plain = importlib.import_module('mmcv.ops.multi_scale_deform_attn').multi_scale_deformable_attn_pytorch
    shapes = torch.tensor(sizes)
    forward: dict[str, Callable[[], Tensor]] = {
        'mmcv': lambda: plain.__wrapped__(value, shapes, locations, weights),
        'ours': lambda: deformable_attention(value, sizes, locations, weights),
    }
    return {name: partial(_both_ways, call, given, grad) for name, call in forward.items()}


def _both_ways(forward: Callable[[], Tensor], given: tuple[Tensor, ...], grad: Tensor) -> None:
    torch.autograd.grad(forward(), given, grad)


def peak(case: str, way: str) -> int:
    """Bytes beyond the inputs that one call takes at most."""
    command = [sys.executable, '-m', 'benchmarks.deformable_attention', case, way]
    return int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def main() -> None:
    if len(sys.argv) > 1:
        case, way = sys.argv[1:]
        print(measure.peak_memory(ways(case)[way], 'cpu'))
        return
    print('| forward and backward | mmcv | ours | ratio | memory of mmcv | of ours | ratio |')
    print('|---|---|---|---|---|---|---|')
    for case in CASES:
        calls = ways(case)
        for call in calls.values():
            call()
        samples = measure.interleaved(calls, ROUNDS, 'cpu')
        times = {name: median(values) for name, values in samples.items()}
        memory = {name: peak(case, name) / 2**20 for name in times}
        cells = [case]
        for of_mmcv, of_ours, unit in (
            (times['mmcv'], times['ours'], 's'),
            (memory['mmcv'], memory['ours'], 'MiB'),
        ):
            cells += [f'{of_mmcv:.3g} {unit}', f'{of_ours:.3g} {unit}', f'{of_mmcv / of_ours:.2f}x']
        print('| ' + ' | '.join(cells) + ' |', flush=True)


if __name__ == '__main__':
    main()
