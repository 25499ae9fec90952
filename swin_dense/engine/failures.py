"""A run's failures that are no mistake of the config, each as one line."""

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
def as_user_errors(config: Config, watch: WorkerWatch) -> Iterator[None]:
    """Turn failures of the memory, the workers or other processes of a run into one-line errors.

    Other exceptions pass unchanged. In a distributed run the first process that fails prints the reason. The
    errors of the others, a ``UserError`` included, have ``printed`` set, so that they print nothing.

    Args:
        config: the config of the run; advice on memory names its fields.
        watch: the watch over the loaders' workers.
    """
    try:
        with deaths_of_workers():
            yield
    except UserError as error:
        # all processes agree when a run is stopped, so none waits for another
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
        error.printed = not first
    ranks.leave(' '.join(text.split())[:300])
