"""The order of the training data: a resumed run enters it at any batch, and reads nothing before that."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader, Sampler

from swin_dense.engine.samples import Draw, SeededSamples
from swin_dense.engine.workers import Loading, worker_init


class BatchOrder(Sampler):
    """The batches of another batch sampler, with the number of the pass at each index.

    A sampler that counts epochs says itself which pass it is. Of an endless one, each ``len`` draws of all
    processes are a pass.

    Args:
        batches: the host's batch sampler.
    """

    def __init__(self, batches: Any) -> None:  # noqa: ANN401  torch's and the hosts' have no common base
        self.batches = batches
        self.sampler = batches.sampler  # DistSamplerSeedHook sets its epoch
        self.batch_size = batches.batch_size
        self._advanced: Iterator[list[Draw]] | None = None

    def advance(self, count: int) -> int:
        """Skip batches of the next iteration; returns how many, fewer where the epoch ends before."""
        self._advanced = self._numbered()
        return sum(1 for _ in zip(range(count), self._advanced, strict=False))

    def __iter__(self) -> Iterator[list[Draw]]:
        # at the first batch, not before: torch's loader with workers makes two iterators and uses one
        order, self._advanced = self._advanced or self._numbered(), None
        yield from order

    def __len__(self) -> int:
        return len(self.batches)

    def _numbered(self) -> Iterator[list[Draw]]:
        drawn, turn = 0, getattr(self.sampler, 'epoch', None)
        size, processes = max(1, len(self.sampler)), get_world_size()
        for batch in self.batches:
            of_pass = drawn * processes // size if turn is None else turn
            drawn += len(batch)
            yield [Draw(index, of_pass) for index in batch]


class ExactLoader(DataLoader):
    """A DataLoader whose batches depend on the seed and on their position alone.

    Its workers start at the first batch that is asked for, and it draws nothing from the global generator.
    """

    batch_sampler: BatchOrder

    def __iter__(self) -> Any:  # noqa: ANN401  torch's own iterators are private
        yield from super().__iter__()

    def endless(self, done: int) -> Iterator[Any]:
        """Batches epoch after epoch, from the one behind ``done`` batches on."""
        epoch = 0
        while done:
            self._set_epoch(epoch)
            skipped = self.batch_sampler.advance(done)
            done -= skipped
            epoch += bool(done)
            if not skipped:
                raise ValueError('the data loader has no batches')
        while True:
            yield from self
            epoch += 1
            self._set_epoch(epoch)

    def _set_epoch(self, epoch: int) -> None:
        if hasattr(self.batch_sampler.sampler, 'set_epoch'):
            self.batch_sampler.sampler.set_epoch(epoch)


def exact(built: DataLoader, seed: int, timeout: float) -> ExactLoader:
    """A host's loader with an exact order.

    Args:
        built: as mmengine builds it from a config.
        seed: of the run.
        timeout: seconds in which a worker must give a batch, where the config does not say it.
    """
    loading = Loading(built.num_workers)
    return ExactLoader(
        SeededSamples(built.dataset, seed, loading),
        batch_sampler=BatchOrder(built.batch_sampler),
        num_workers=built.num_workers,
        collate_fn=built.collate_fn,
        pin_memory=built.pin_memory,
        timeout=built.timeout or (timeout if built.num_workers else 0),
        worker_init_fn=partial(worker_init, inner=built.worker_init_fn, loading=loading),
        multiprocessing_context=built.multiprocessing_context,
        generator=torch.Generator().manual_seed(seed),
        prefetch_factor=built.prefetch_factor,
        persistent_workers=built.persistent_workers,
        pin_memory_device=built.pin_memory_device,
    )
