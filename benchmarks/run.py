"""Measure ours beside every peer that is installed, and write tables and plots.

    python benchmarks/run.py
    python benchmarks/run.py --suite full --only 'Swin-B backbone, inference'
    python benchmarks/run.py --device cuda --dtype bf16

Everything goes to ``work_dirs/bench``: ``table.md``, ``results.json``, ``speed.png``, ``scaling.png`` and
``memory.png``. What is measured is saved at once: a run that was stopped goes on where it was.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # of a script, Python puts the folder there

from benchmarks.settings import DISTRIBUTIONS, MODES, OURS, PEERS, Job, full, headline, jobs, targets  # noqa: E402
from swin_dense import __version__, hosts  # noqa: E402
from swin_dense.errors import UserError, exit_on_user_error  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Our Swin beside every one that is installed.')
    add = parser.add_argument
    add('--suite', choices=('headline', 'full'), default='headline', help='what to measure (headline)')
    add('--only', default='', metavar='SUBSTRING', help='only what has this in its name')
    add('--device', choices=tuple(MODES), default='cpu', help='where to measure (cpu)')
    add('--dtype', choices=('fp32', 'bf16'), default='fp32', help='precision; bf16 is autocast (fp32)')
    add('--eager', action='store_true', help='leave torch.compile out')
    add('--rounds', type=int, default=10, help='samples of each time (10)')
    add('--out', type=Path, default=Path('work_dirs/bench'), help='folder (work_dirs/bench)')
    return parser.parse_args()


# what there is


def installed() -> list[str]:
    """The peers that can be imported."""
    names = dict.fromkeys(peer for peers in PEERS.values() for peer in peers)
    return [name for name in names if importlib.util.find_spec(name) is not None]


def usable_modes(device: str, eager: bool) -> tuple[str, ...]:
    """The ways to run a model that this machine has: torch.compile needs a C++ compiler on the CPU."""
    compilers = [os.environ.get('CXX'), 'g++', 'clang++', 'cl']
    lacking = device == 'cpu' and not any(shutil.which(name) for name in compilers if name)
    return MODES[device][:1] if eager or lacking else MODES[device]


def versions(peers: Sequence[str]) -> dict[str, str]:
    """Of torch, the peers and ourselves: with a digest of our sources, so that a change is measured anew."""
    sources = sorted((ROOT / 'swin_dense').rglob('*.py'))
    digest = hashlib.sha256(b''.join(path.read_bytes() for path in sources)).hexdigest()[:8]
    versions = {name: metadata.version(DISTRIBUTIONS.get(name, name)) for name in ('torch', *peers)}
    return {OURS: f'{__version__}+{digest}', **versions}


def environment(device: str, known: Mapping[str, str]) -> dict[str, str]:
    """What the measurements are made on and with, for people."""
    import torch

    information = Path('/proc/cpuinfo')
    lines = information.read_text().splitlines() if information.is_file() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    rows = {'processor': models[0] if models else platform.machine()}
    rows['threads'] = str(torch.get_num_threads())
    if device == 'cuda':
        rows['GPU'] = torch.cuda.get_device_name()
    rows['python'] = f'{platform.python_version()}, {platform.system()}'
    return rows | {'swin_dense' if name == OURS else name: version for name, version in known.items()}


# jobs


def key(job: Job, known: Mapping[str, str], threads: int) -> str:
    """What a result is saved under: the setting, and the versions that it depends on."""
    parts = [job.title, f'{job.device} {job.dtype}', '+'.join(job.modes)]
    parts += [f'{job.rounds} rounds', f'{threads} threads']
    whose = {'torch', job.who, OURS} if job.kind == 'time' else {'torch', job.who}
    return '; '.join([*parts, *(f'{name} {known[name]}' for name in sorted(whose))])


def run_job(job: Job) -> dict:
    """Measure in a process of its own.

    Raises:
        RuntimeError: it failed; the reason in one line.
    """
    command = [sys.executable, '-m', 'benchmarks.pair', json.dumps(job.as_dict())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode < 0:
        raise RuntimeError(f'ended by signal {-done.returncode} (too little memory?)')
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ['no message']
        raise RuntimeError(lines[-1])
    return json.loads(done.stdout.splitlines()[-1])


def undisturbed(job: Job) -> dict:
    """``run_job``, once more if others took too much of the machine.

    Raises:
        RuntimeError: it failed.
        UserError: they did so twice.
    """
    from benchmarks.measure import LIMIT

    for _ in range(2):
        result = run_job(job)
        if result.get('others', 0) <= LIMIT:
            return {'job': job.as_dict(), **result}
    raise UserError(
        f'the machine is busy: others took {result["others"]:.0%} of the CPU time of "{job.title}", twice; '
        'end them, and the same command goes on from here'
    )


def measure_all(listed: Mapping[str, Job], saved: dict[str, dict], path: Path) -> list[str]:
    """Measure what is not saved yet, and save each result at once.

    Args:
        listed: jobs by key.
        saved: results by key, which is added to.
        path: the file that they are saved in.

    Returns:
        A line for each job that failed.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from swin_dense.console.terminal import console, say

    notes = []
    todo = {name: job for name, job in listed.items() if name not in saved}
    if not todo:
        return notes
    columns = (
        BarColumn(),
        TextColumn('{task.percentage:.0f} %'),
        TimeRemainingColumn(),
        TextColumn('{task.description}'),
    )
    # seldom, and from all that was done: the display must not cost time, and steps are long
    with Progress(*columns, console=console, refresh_per_second=1, speed_estimate_period=1e6) as progress:
        task = progress.add_task('', total=sum(job.cost for job in todo.values()))
        for name, job in todo.items():
            progress.update(task, description=job.title)
            try:
                saved[name] = undisturbed(job)
                save(path, saved)
            except RuntimeError as error:
                notes.append(f'{job.title}: {error}')
                say(f'left out: {notes[-1]}')
            progress.advance(task, job.cost)
    return notes


def save(path: Path, saved: Mapping[str, dict]) -> None:
    """Write results.json, whole or not at all."""
    partial = path.with_suffix('.partial')
    partial.write_text(json.dumps(saved, indent=1), encoding='utf-8')
    partial.replace(path)


def read(path: Path) -> dict[str, dict]:
    """The results of earlier runs by key; none if there is no file.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise UserError(
            f'{path} is damaged ({error}): remove it, or name another folder with --out'
        ) from error


def main() -> None:
    args = parse_args()
    if args.rounds < 1:
        raise UserError(f'--rounds {args.rounds}: at least 1 is needed')
    hosts.prepare()
    hosts.use_device(args.device)
    import torch

    from benchmarks import measure, plots, report
    from swin_dense.console.terminal import say

    peers = installed()
    modes = usable_modes(args.device, args.eager)
    absent = [peer for peer in dict.fromkeys(sum(PEERS.values(), ())) if peer not in peers]
    notes = [f'{peer}: not installed' for peer in absent]
    if not args.eager and modes == ('eager',):
        notes.append('torch.compile: there is no C++ compiler')
    for note in notes:
        say(f'left out: {note}')
    settings = full() if args.suite == 'full' else headline(args.device)
    known = versions(peers)
    listed = {
        key(job, known, torch.get_num_threads()): job
        for job in jobs(settings, peers, args.device, args.dtype, modes, args.rounds)
        if args.only in job.title
    }
    if not listed:
        raise UserError(f'--only {args.only!r}: nothing of the suite {args.suite} has this in its name')
    args.out.mkdir(parents=True, exist_ok=True)
    saved = read(args.out / 'results.json')
    measure.require_quiet()
    notes += measure_all(listed, saved, args.out / 'results.json')
    records = report.by_job(saved[name] for name in listed if name in saved)
    lines = targets(args.device, args.dtype)
    text = report.document(environment(args.device, known), lines, records, notes)
    (args.out / 'table.md').write_text(text, encoding='utf-8')
    plots.save(records, args.out)
    say('\n'.join(report.headline(lines, records)))
    say(f'everything: {args.out}')


def stop_in_one_line() -> None:
    """``main``; an interrupt is no error of the program."""
    try:
        main()
    except KeyboardInterrupt as error:
        raise UserError('stopped: the same command goes on from here') from error


if __name__ == '__main__':
    exit_on_user_error(stop_in_one_line)
