"""The processes of a distributed run among one another: agreement, signs of life, and which one failed.

Each process gives a sign of life every second, in a store that all of them reach. When an operation over the
processes fails or takes longer than the process group's timeout, the signs tell which process has died, was
stopped, or did something else. A process that is silent for that long ends the others too.
"""

import os
import re
import time
from datetime import timedelta

import torch
from torch import distributed

from swin_dense.engine.signs_of_life import SignsOfLife, diagnosis, has_ended, kill_stopped
from swin_dense.errors import FailedRunError

SILENT_SECONDS = 3.0  # after which a process that should give signs of life has failed to
STORE_SECONDS = 5.0
CANNOT_GO_ON = 'the run cannot go on; its last checkpoint is intact'
# gloo, NCCL and the store, of a process that died, was stopped, or took part in another operation
FAILED = re.compile(
    r'gloo/transport|Connection closed by peer|Connection reset by peer|Broken pipe|Timed out waiting|'
    r'preamble\.length|NCCL|Watchdog caught collective|clients joined|Gloo connect\w* failed|'
    r'client socket has timed out|wait timeout after',
    re.IGNORECASE,
)

_signs: SignsOfLife | None = None
_group: distributed.ProcessGroup | None = None


def begin(timeout: float) -> None:
    """Begin to give signs of life; all processes call it once their group is there.

    Args:
        timeout: seconds of the process group.
    """
    global _signs
    address, port = os.environ.get('MASTER_ADDR'), os.environ.get('MASTER_PORT')
    if _signs is not None or distributed.get_world_size() == 1 or not address or not port:
        return
    wait = timedelta(seconds=STORE_SECONDS)
    # a client of our own: the group's is locked while it waits
    client = distributed.TCPStore(address, int(port), is_master=False, timeout=wait, wait_for_workers=False)
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    store = distributed.PrefixStore(f'swin_dense/{attempt}', client)
    _signs = SignsOfLife(store, distributed.get_rank(), distributed.get_world_size(), timeout, CANNOT_GO_ON)
    _signs.give()
    distributed.barrier()  # there is a sign of everyone from here on
    _signs.begin()


def largest(value: int) -> int:
    """The largest value of all processes, each of which must call this; in a single process its own."""
    if not _is_distributed() or distributed.get_world_size() == 1:
        return value
    number = torch.tensor(value)
    distributed.all_reduce(number, distributed.ReduceOp.MAX, group=_host_group())
    return int(number)


def rank_failure(error: BaseException) -> FailedRunError | None:
    """The one line of an operation over the processes that failed; None if the error is none of those.

    It takes some seconds, for who is silent has to be waited for. A process of this machine that is
    stopped is killed: torchrun would wait for it.
    """
    text = '; '.join(str(link) for link in chain(error) if isinstance(link, RuntimeError))
    if not FAILED.search(text) or not (_is_distributed() or 'RANK' in os.environ):
        return None
    if _signs is None:
        return FailedRunError(f'a process of the run did not answer ({text.splitlines()[0]}): {CANNOT_GO_ON}')
    _signs.failing = True
    before = after = _signs.refresh()
    if before is not None and not any(has_ended(sign) for sign in before.values()):
        time.sleep(SILENT_SECONDS)
        after = _signs.refresh()
    reason = diagnosis(_signs.rank, before or _signs.signs, after)
    kill_stopped(_signs.rank, _signs.signs)
    return FailedRunError(f'{reason}: {CANNOT_GO_ON}')


def first_to_tell() -> bool:
    """Whether this process should tell why the run failed: in one line for all, where they can agree."""
    return _signs is None or _signs.first_to_tell()


def leave(why: str) -> None:
    """Tell the other processes that this one ends because of an error, and give no more signs of life."""
    if _signs is not None:
        _signs.leave(why)


def chain(error: BaseException | None) -> list[BaseException]:
    """An error, what caused it, and so on."""
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _host_group() -> distributed.ProcessGroup | None:
    """A group for numbers of the host: on GPUs the default one would wait for the device."""
    global _group
    if distributed.get_backend() == 'gloo':
        return None
    if _group is None:
        group = distributed.new_group(backend='gloo')
        _group = group if isinstance(group, distributed.ProcessGroup) else None
    return _group
