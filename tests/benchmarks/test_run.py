"""The command: what it measures, refuses, keeps and writes."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mmengine.device.utils as mmengine_device
import pytest
from rich.console import Console

from benchmarks import measure, plots, run
from benchmarks.settings import Job, Setting
from swin_dense.console import terminal
from swin_dense.errors import UserError, exit_on_user_error
from tests.benchmarks.made_up import record_of, result_of

TINY = Job('time', Setting('backbone', 'inference', 64, 64, variant='nano'), 'mmdet', rounds=2)
REQUIRE_QUIET = measure.require_quiet
SCRIPT = Path(__file__).parents[2] / 'benchmarks' / 'run.py'


@pytest.fixture(autouse=True)
def terminal_of_the_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(terminal, 'console', Console(file=sys.stdout, width=160))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., tuple[int, str]]:
    """``command('--eager', ...)`` does what ``python benchmarks/run.py`` does: (status, standard error)."""
    monkeypatch.setattr(mmengine_device, 'DEVICE', mmengine_device.DEVICE)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES', ''))

    def run_it(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['benchmarks/run.py', *map(str, arguments)])
        status = 0
        try:
            exit_on_user_error(run.stop_in_one_line)
        except SystemExit as ended:
            status = ended.code
        return status, capfd.readouterr().err

    return run_it


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were run; their results are made up, and the machine is quiet."""
    jobs: list[Job] = []

    def run_job(job: Job) -> dict:
        jobs.append(job)
        return result_of(job)

    monkeypatch.setattr(run, 'run_job', run_job)
    monkeypatch.setattr(measure, 'require_quiet', lambda: None)
    return jobs


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch):
    """Leave the plots out, which take most of the time."""
    monkeypatch.setattr(plots, 'save', lambda records, folder: [])


def test_everything_is_written_and_a_rerun_measures_nothing(
    command: Callable, measured: list, tmp_path: Path
):
    assert command('--out', tmp_path / 'bench')[0] == 0
    assert {path.name for path in (tmp_path / 'bench').iterdir()} == {
        'table.md', 'results.json', 'speed.png', 'scaling.png', 'memory.png'
    }  # fmt: skip
    assert 'not measured' not in (tmp_path / 'bench' / 'table.md').read_text()
    assert measured
    count = len(measured)
    assert len(json.loads((tmp_path / 'bench' / 'results.json').read_text())) == count
    text = (tmp_path / 'bench' / 'table.md').read_text()
    assert command('--out', tmp_path / 'bench')[0] == 0
    assert len(measured) == count
    assert (tmp_path / 'bench' / 'table.md').read_text() == text


@pytest.mark.usefixtures('undrawn')
def test_a_stopped_run_goes_on(
    command: Callable, measured: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finished = run.run_job

    def stopped(job: Job) -> dict:
        if len(measured) == 3:
            raise KeyboardInterrupt
        return finished(job)

    monkeypatch.setattr(run, 'run_job', stopped)
    status, err = command('--only', '512x512, batch 1', '--out', tmp_path)
    assert (status, err.strip()) == (2, 'error: stopped: the same command goes on from here')
    done = measured.copy()
    monkeypatch.setattr(run, 'run_job', finished)
    assert command('--only', '512x512, batch 1', '--out', tmp_path)[0] == 0
    assert all('512x512, batch 1' in job.title for job in measured)
    assert len(set(measured)) == len(measured) > len(done) == 3


@pytest.mark.usefixtures('undrawn')
def test_other_settings_are_measured_anew(command: Callable, measured: list, tmp_path: Path):
    only = ('--only', 'SwinV2-T backbone', '--out', tmp_path)
    for arguments in (
        [],
        ['--eager'],
        ['--eager', '--rounds', '3'],
        ['--eager', '--rounds', '3', '--dtype', 'bf16'],
    ):
        before = len(measured)
        assert command(*only, *arguments)[0] == 0
        assert any(job.kind == 'time' for job in measured[before:])


def test_the_key_has_the_versions_that_matter():
    known = {'ours': '1+a', 'torch': '2', 'mmdet': '3', 'timm': '4'}
    key = run.key(TINY, known, 2)
    assert key != run.key(TINY, known | {'ours': '1+b'}, 2)
    assert key != run.key(TINY, known | {'mmdet': '5'}, 2)
    assert key != run.key(TINY, known, 4)
    assert key == run.key(TINY, known | {'timm': '5'}, 2)
    theirs = Job('memory', TINY.setting, 'mmdet')
    assert run.key(theirs, known, 2) == run.key(theirs, known | {'ours': '1+b'}, 2)


def test_a_busy_machine_is_one_line_and_status_2(
    command: Callable, measured: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, 'require_quiet', REQUIRE_QUIET)
    seconds = iter([0, 100])
    monkeypatch.setattr(measure, 'read_stat', lambda: f'cpu {100 * next(seconds)} 0 0 0 0 0 0 0 0 0')
    monkeypatch.setattr(measure.time, 'sleep', lambda period: None)
    status, err = command('--out', tmp_path)
    assert status == 2
    assert err.startswith('error: the machine is busy: others use ')
    assert err.count('\n') == 1
    assert not (tmp_path / 'table.md').exists()
    assert not measured


def test_a_disturbed_pair_is_repeated_once(monkeypatch: pytest.MonkeyPatch):
    answers = iter([{'others': 0.5, 'n': 1}, {'others': 0.05, 'n': 2}])
    monkeypatch.setattr(run, 'run_job', lambda job: next(answers))
    assert run.undisturbed(TINY) == {'job': TINY.as_dict(), 'others': 0.05, 'n': 2}
    monkeypatch.setattr(run, 'run_job', lambda job: {'others': 0.5})
    with pytest.raises(UserError, match=r'others took 50% .* twice'):
        run.undisturbed(TINY)


def test_a_failed_pair_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = Job('memory', TINY.setting, 'mmdet')

    def run_job(job: Job) -> dict:
        if job.kind == 'time':
            raise RuntimeError('ended by signal 9 (too little memory?)')
        return result_of(job)

    monkeypatch.setattr(run, 'run_job', run_job)
    saved: dict[str, dict] = {}
    notes = run.measure_all({'a': TINY, 'b': other}, saved, tmp_path / 'results.json')
    assert notes == [f'{TINY.title}: ended by signal 9 (too little memory?)']
    assert saved == {'b': record_of(other)}
    assert run.read(tmp_path / 'results.json') == json.loads(json.dumps(saved))


@pytest.mark.parametrize(
    ('code', 'err', 'message'),
    [
        (-9, '', 'signal 9'),
        (1, 'Traceback\nValueError: no such size\n', 'ValueError: no such size'),
        (1, '', 'no m'),
    ],
)
def test_why_a_process_failed(code: int, err: str, message: str, monkeypatch: pytest.MonkeyPatch):
    done = subprocess.CompletedProcess([], code, stdout='', stderr=err)
    monkeypatch.setattr(run.subprocess, 'run', lambda command, cwd, capture_output, text: done)
    with pytest.raises(RuntimeError, match=message):
        run.run_job(TINY)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--rounds', '0'], '--rounds 0: at least 1'),
        (['--only', 'Swin-XXL'], "--only 'Swin-XXL': nothing of the suite headline"),
        (['--device', 'cuda'], '--device cuda: torch'),
    ],
)
def test_mistakes_are_one_line(
    arguments: list,
    message: str,
    command: Callable,
    measured: list,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    status, err = command(*arguments, '--out', tmp_path)
    assert status == 2
    assert err.startswith(f'error: {message}')
    assert err.count('\n') == 1


def test_damaged_results_are_not_overwritten(command: Callable, measured: list, tmp_path: Path):
    (tmp_path / 'results.json').write_text('{"a": ')
    status, err = command('--out', tmp_path)
    assert status == 2
    assert 'results.json is damaged' in err
    assert (tmp_path / 'results.json').read_text() == '{"a": '


@pytest.mark.usefixtures('undrawn')
def test_what_is_absent_is_left_out_in_one_line(
    command: Callable, measured: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run, 'installed', lambda: ['mmdet', 'mmseg', 'torchvision'])
    monkeypatch.setattr(run.shutil, 'which', lambda name: None)
    assert command('--out', tmp_path)[0] == 0
    text = (tmp_path / 'table.md').read_text()
    for line in (
        'timm: not installed',
        'transformers: not installed',
        'torch.compile: there is no C++ compiler',
    ):
        assert f'- {line}\n' in text
    assert {job.modes for job in measured} == {('eager',)}


def test_the_script_finds_its_modules_from_anywhere(tmp_path: Path):
    done = subprocess.run([sys.executable, SCRIPT, '--help'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '--suite' in done.stdout


@pytest.mark.slow
def test_a_real_pair_in_its_process():
    for job in (TINY, Job('memory', TINY.setting, 'ours')):
        result = run.run_job(job)
        assert set(result) == set(result_of(job))
