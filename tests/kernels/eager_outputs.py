"""Outputs of small backbones on the CPU, after graphs were captured or not: a process of its own.

python -m tests.kernels.eager_outputs FILE [capture]
"""

import sys
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from swin_dense import hosts

SIZES = ((40, 56), (64, 64), (33, 47))
OPTIONS = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), drop_path_rate=0.0)


def backbones() -> dict[str, nn.Module]:
    from swin_dense.models import SwinTransformer, SwinTransformerV2

    torch.manual_seed(0)
    models = {kind.__name__: kind(window_size=5, **OPTIONS) for kind in (SwinTransformer, SwinTransformerV2)}
    for model in models.values():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.1)
    return models


def image(size: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(sum(size)))


def capture(model: nn.Module) -> None:
    """Run the code on everything but numbers; some of it fails."""
    x = image(SIZES[0])
    torch.export.export(model, (x,), strict=False)
    torch.jit.trace(model, x, check_trace=False)
    sides = {2: Dim('height', max=80), 3: Dim('width', max=80)}
    with suppress(UserError):  # not every size in these ranges takes the same way
        torch.export.export(model, (x,), dynamic_shapes=(sides,), strict=False)
    for size in SIZES:
        x = image(size)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            model(mode.from_tensor(x))
        with torch.inference_mode(), torch.device('meta'):
            model(x)
        torch.func.vmap(model)(image(size, 2)[:, None])


def main() -> None:
    hosts.prepare()
    outputs = {}
    for name, model in backbones().items():
        if 'capture' in sys.argv:
            capture(model)
        for training in (False, True):
            model.train(training)
            for size in SIZES:
                x = image(size).requires_grad_(training)
                maps = model(x)
                outputs[name, training, size] = [y.detach() for y in maps]
                if training:
                    outputs[name, training, size] += torch.autograd.grad(
                        sum(y.square().mean() for y in maps), x
                    )
    torch.save(outputs, sys.argv[1])


if __name__ == '__main__':
    main()
