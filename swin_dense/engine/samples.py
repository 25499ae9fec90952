"""A data set whose samples do not depend on who loads them, nor on what was loaded before.

Augmentations draw from the global generators of Python, NumPy and torch. Each sample gets its own numbers, a
function of (seed, pass over the data, index). So a worker process, a main process and a resumed run make
the same sample, with the extra images of Mosaic and MixUp.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from swin_dense.data.failures import LeftOut, load_sample, stand_ins
from swin_dense.engine.workers import Loading
from swin_dense.errors import UserError


class Draw(int):
    """The index of a sample, and in which pass over the data it is drawn."""

    turn: int

    def __new__(cls, index: int, turn: int) -> 'Draw':
        draw = super().__new__(cls, index)
        draw.turn = turn
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # type: ignore[override]  # int has one argument
        return int(self), self.turn


class SeededSamples(Dataset):
    """A data set with random numbers of its own for each sample. Every other attribute is the data set's.

    Args:
        dataset: of the host.
        seed: of the run.
        loading: learns what each worker loads.

    Attributes:
        left_out: where bad images are noted that the run goes on without; None where they end it.
    """

    def __init__(self, dataset: Any, seed: int, loading: Loading) -> None:  # noqa: ANN401  a host's
        self._dataset, self._seed, self.loading = dataset, seed, loading
        self.left_out: LeftOut | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        if name in ('_dataset', '_seed', 'loading', 'left_out'):  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401
        """A sample.

        Raises:
            UserError: names the file that is bad; where bad ones are left out, too many in a row are.
        """
        turn = index.turn if isinstance(index, Draw) else 0
        try:
            return self._load(turn, int(index))
        except UserError as error:
            if self.left_out is None:
                raise
            self.left_out.add(error)
            last = error
        for other in stand_ins(self._seed, turn, int(index), len(self)):
            try:
                return self._load(turn, other)
            except UserError as error:
                self.left_out.add(error)
                last = error
        raise last

    def _load(self, turn: int, index: int) -> Any:  # noqa: ANN401
        self.loading.begin(index)
        with random_numbers(self._seed, turn, index):
            sample = load_sample(self._dataset, index)
        self.loading.end()
        return sample


@contextmanager
def random_numbers(seed: int, turn: int, index: int) -> Iterator[None]:
    """Seed the three generators on the CPU from three numbers, and put them back as they were."""
    before = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    digest = hashlib.blake2b(f'{seed} {turn} {index}'.encode(), digest_size=20).digest()
    random.seed(digest[:8])
    np.random.seed(int.from_bytes(digest[8:12], 'little'))
    torch.default_generator.manual_seed(int.from_bytes(digest[12:], 'little') >> 1)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.default_generator.set_state(before[2])
