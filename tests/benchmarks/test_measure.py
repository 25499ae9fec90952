"""Time, memory and load, on cases whose answers are known."""

import math
import sys

import pytest
import torch
from torch import nn

from benchmarks import measure
from benchmarks.measure import Load
from swin_dense.errors import UserError

linux = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def stat(user: int = 0, idle: int = 0, iowait: int = 0, steal: int = 0) -> str:
    """What /proc/stat says, in ticks."""
    return (
        f'cpu  {user} 0 0 {idle} {iowait} 0 0 {steal} 0 0\ncpu0 {user} 0 0 {idle} {iowait} 0 0 {steal} 0 0\n'
    )


def test_calls_are_interleaved_and_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, 'SHORTEST', 1e-9)
    order = []
    samples = measure.interleaved({'a': lambda: order.append('a'), 'b': lambda: order.append('b')}, 3, 'cpu')
    assert order == ['a', 'b'] * 4  # once to see how long they take
    assert {name: len(times) for name, times in samples.items()} == {'a': 3, 'b': 3}
    assert all(time > 0 for times in samples.values() for time in times)


def test_short_calls_are_repeated_within_a_sample(monkeypatch: pytest.MonkeyPatch):
    times = iter([0.003, 0.5, *[1.0] * 4])
    told = []

    def seconds(call: object, device: str, repeats: int = 1) -> float:
        told.append(repeats)
        return next(times)

    monkeypatch.setattr(measure, 'seconds', seconds)
    measure.interleaved({'short': lambda: None, 'long': lambda: None}, 2, 'cpu')
    assert told == [1, 1, 7, 1, 7, 1]  # 7 x 3 ms are 20 ms or more


def test_summary_is_median_and_quartiles():
    assert measure.summary([5, 1, 2, 4, 3]) == {'low': 2, 'median': 3, 'high': 4}
    assert measure.summary([7]) == {'low': 7, 'median': 7, 'high': 7}


@pytest.mark.parametrize('power', [0.5, 1, 1.7])
def test_exponent_of_a_power_law(power: float):
    pixels = [512**2, 1024**2, 1536**2, 2048**2]
    assert measure.exponent(pixels, [3e-7 * p**power for p in pixels]) == pytest.approx(power)


def test_exponent_is_the_least_squares_one():
    # two points at each of two sizes: the line goes through their geometric means
    assert measure.exponent([1, 1, 10, 10], [1, 4, 20, 80]) == pytest.approx(math.log10(40 / 2))


def test_rate_of_products(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, 'PRODUCTS', {'cpu': 100})
    times = iter([9.0, 4.0, 9.0, 2.0, 9.0, 8.0])  # of torch.mm and oneDNN in turn
    monkeypatch.setattr(measure, 'seconds', lambda call, device: next(times))
    assert measure.product_rate('cpu', 'fp32', best_of=3) == 2 * 100**3 / 2


# memory


def test_saved_memory_of_a_known_network():
    """The input, and what is between the layers: once, although two of them save it; no parameters."""
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1))
    x = torch.ones(2, 3)
    assert measure.saved_memory(lambda: model(x), model) == 4 * (2 * 3 + 2 * 5)


def test_saved_memory_counts_whole_storages_once():
    x = torch.ones(1000, requires_grad=True)
    # products save both of their factors, here views of one tensor of 4000 bytes
    assert measure.saved_memory(lambda: x[:10] * x[10:20], nn.Identity()) == 4000


def test_nothing_is_saved_without_gradients():
    model = nn.Linear(3, 5)

    def call() -> torch.Tensor:
        with torch.no_grad():
            return model(torch.ones(2, 3))

    assert measure.saved_memory(call, model) == 0


@linux
@pytest.mark.parametrize('mebi', [64, 256])
def test_peak_memory_is_seen_after_it_is_freed(mebi: int):
    bytes_ = mebi * 2**20

    def call() -> torch.Tensor:
        torch.ones(bytes_ // 4)
        return torch.ones(1)

    torch.ones(2**25)  # a higher peak before
    peak = measure.peak_memory(call, 'cpu')
    if peak is None:
        pytest.skip('this system does not reset the peak')
    assert abs(peak - bytes_) < 8 * 2**20  # the kernel counts in batches


# load


def test_share_of_others():
    before, later = Load(machine=100, own=10), Load(machine=120, own=25)
    assert before.others(later) == pytest.approx(0.25)
    assert before.others(Load(machine=110, own=21)) == 0  # ticks are coarse
    assert before.others(before) == 0
    assert Load(None, 0).others(Load(None, 1)) == 0


def test_idle_time_and_waiting_for_disks_are_not_load(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure.os, 'sysconf', lambda name: 100)
    monkeypatch.setattr(measure, 'read_stat', lambda: stat(user=300, idle=5000, iowait=700, steal=200))
    assert measure.load().machine == 5


@linux
def test_own_work_is_not_that_of_others():
    before = measure.load()
    while measure.load().own - before.own < 0.3:
        sum(range(10000))
    after = measure.load()
    assert after.own - before.own <= after.machine - before.machine + 0.05


@pytest.mark.parametrize('field', ['user', 'steal'])
def test_a_busy_machine_is_refused(field: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure.os, 'sysconf', lambda name: 100)
    texts = iter([stat(), stat(**{field: 100})])  # a second of work, while we sleep for two
    monkeypatch.setattr(measure, 'read_stat', lambda: next(texts))
    monkeypatch.setattr(measure.time, 'sleep', lambda period: None)
    with pytest.raises(UserError, match=r'others use (49|50)% of a core'):
        measure.require_quiet()


def test_a_quiet_machine_is_accepted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure.os, 'sysconf', lambda name: 100)
    texts = iter([stat(), stat(user=10, idle=390)])
    monkeypatch.setattr(measure, 'read_stat', lambda: next(texts))
    monkeypatch.setattr(measure.time, 'sleep', lambda period: None)
    measure.require_quiet()


@pytest.mark.parametrize('load', [0.05, 3.0])
def test_without_an_account_the_load_average_counts(load: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(measure, 'read_stat', lambda: None)
    monkeypatch.setattr(measure.os, 'getloadavg', lambda: (load, 0, 0))
    if load < measure.LIMIT:
        measure.require_quiet()
    else:
        with pytest.raises(UserError, match='300% of a core'):
            measure.require_quiet()
