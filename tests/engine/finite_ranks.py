"""One of two processes of a run whose second process meets a fault: started by test_finite.py."""

import sys
from pathlib import Path

import torch

from swin_dense import hosts

hosts.prepare()

from swin_dense.engine.finite import FiniteHook  # noqa: E402
from swin_dense.errors import NotFiniteError  # noqa: E402
from tests.engine import finite_toy  # noqa: E402


def main() -> None:
    folder, fault, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    built = finite_toy.runner(
        folder,
        {5 if steps == 1 else 1: fault},  # the second process alone, before the gradients are averaged
        launcher='pytorch',
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=steps),
    )
    built.register_hook(FiniteHook())
    try:
        built.train()
    except NotFiniteError as error:
        (folder / f'{rank}.txt').write_text(str(error))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
