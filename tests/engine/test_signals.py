"""Signals and the time budget: what is noted, what is interrupted, what is agreed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from swin_dense.engine import signals
from swin_dense.engine.signals import OUT_OF_TIME, StopRequest, TimeBudget, parse_duration, stopped
from swin_dense.errors import StoppedError, UserError


@pytest.mark.parametrize(('name', 'status'), [('SIGTERM', 143), ('SIGINT', 130), ('SIGUSR1', 138)])
def test_a_signal_is_noted_and_nothing_is_interrupted(name: str, status: int) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopRequest() as stop:
        stop.defer()
        assert stop.agreed() is None
        os.kill(os.getpid(), number)
        assert stop.requested() == stop.agreed() == number
        assert stopped(stop.agreed(), 'after iteration 3').status == status
    assert signal.getsignal(number) is before


def test_the_first_signal_counts_and_the_later_ones_interrupt_no_save() -> None:
    with StopRequest() as stop:
        stop.defer()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.agreed() == signal.SIGTERM
        assert stop.signals == [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]


def test_before_the_first_iteration_a_signal_stops_at_once_whatever_the_hosts_catch() -> None:
    cleaned = []

    def build() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception as error:  # as mmengine's registry does
            raise TypeError('rewritten') from error
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient second one
            cleaned.append(True)

    with pytest.raises(StoppedError, match='SIGTERM before the first iteration') as error, StopRequest():
        build()
    assert error.value.status == 143
    assert cleaned


def test_other_errors_pass_and_the_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), StopRequest():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_real_ctrl_c_ends_a_process_with_130() -> None:
    code = (
        'import time, sys\n'
        'from swin_dense.engine.signals import StopRequest, stopped\n'
        'from swin_dense.errors import exit_on_user_error\n'
        'def main():\n'
        '    with StopRequest() as stop:\n'
        '        stop.defer()\n'
        '        print("ready", flush=True)\n'
        '        while stop.agreed() is None:\n'
        '            time.sleep(0.01)\n'
        '        raise stopped(stop.agreed(), "after iteration 3")\n'
        'exit_on_user_error(main)\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (130, 'stopped by SIGINT after iteration 3\n')


@pytest.mark.parametrize(
    ('text', 'seconds'),
    [
        ('2h50m', 10200),
        ('90s', 90),
        ('1d2h', 93600),
        ('45m', 2700),
        ('1.5h', 5400),
        (' 1D ', 86400),
        ('1m1s', 61),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    'text', ['', '90', '0s', '-1h', '50m2h', '1h1h', '2 h', '1h30', 'inf', '1e9h', '٣h', '9' * 400 + 'd']
)
def test_what_is_no_duration_is_a_mistake(text: str) -> None:
    with pytest.raises(UserError, match=r'--max-time .* 2h50m'):
        parse_duration(text)


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_the_budget_leaves_time_for_an_iteration_and_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(signals, 'time', clock)
    budget = TimeBudget(100.0)
    stop = StopRequest(budget)
    budget.saved(8.0)
    for seconds in (3.0, 5.0, 2.0):
        clock.now += seconds
        budget.iteration_ended()
    clock.now += 40  # an evaluation
    budget.rested()
    clock.now += 3
    budget.iteration_ended()
    assert not budget.used_up()
    clock.now = 1000.0 + 100 - 8 - 5 - 0.001
    assert stop.agreed() is None
    clock.now += 0.001
    assert stop.requested() == stop.agreed() == OUT_OF_TIME
    stop.signals.append(signal.SIGTERM)
    assert stop.agreed() == signal.SIGTERM  # which has an exit status of its own


def test_a_short_budget_is_not_used_up_by_the_first_save_alone() -> None:
    assert not TimeBudget(5.0).used_up()
    assert TimeBudget(5.0, start=time.monotonic() - 5).used_up()
