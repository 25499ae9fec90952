"""A run's failures that are no mistake of the config, each told in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config

from swin_dense.engine import ranks
from swin_dense.engine.memory import memory_failure
from swin_dense.engine.signs_of_life import DONE
from swin_dense.engine.workers import WorkerWatch, deaths_of_workers, worker_failure
from swin_dense.errors import FailedRunError, StoppedError, UserError

NOT_DETERMINISTIC = re.compile(r'(\w+) does not have a deterministic implementation')


@contextmanager
def told(config: Config, watch: WorkerWatch) -> Iterator[None]:
    """Turn what happens to the memory, the workers or the other processes of a run into one-line errors.

    All else passes unchanged. In a distributed run the first process that fails tells why, and the others end
    without a line: their errors have ``told`` set. So it is with a ``UserError`` of the block, whichever rank
    raises it.

    Args:
        config: of the run; it says what can be lowered.
        watch: which knows the loaders' workers.
    """
    try:
        with deaths_of_workers():
            yield
    except UserError as error:
        # that a run was stopped is agreed: nobody waits for the others
        _hand_on(error, DONE if isinstance(error, StoppedError) else str(error))
        raise
    except Exception as error:
        failure = _failure(error, config, watch)
        if failure is None:
            _hand_on(None, f'{type(error).__name__}: {error}')
            raise
        _hand_on(failure, str(failure))
        raise failure from error


def _failure(error: Exception, config: Config, watch: WorkerWatch) -> FailedRunError | None:
    return (
        memory_failure(error, config)
        or worker_failure(error, watch)
        or ranks.rank_failure(error)
        or _not_deterministic(error)
    )


def _not_deterministic(error: Exception) -> FailedRunError | None:
    operation = NOT_DETERMINISTIC.search(str(error))
    return operation and FailedRunError(
        f'{operation[1]} of torch {torch.__version__} cannot add in a fixed order on this device: leave out '
        'randomness.deterministic; a resumed run then goes on where it stopped, but is not equal bit for bit'
    )


def _hand_on(error: UserError | None, text: str) -> None:
    """Tell the other processes, before this one ends and their next operation fails."""
    first = ranks.first_to_tell()
    if error is not None:
        error.told = not first
    ranks.leave(' '.join(text.split())[:300])
