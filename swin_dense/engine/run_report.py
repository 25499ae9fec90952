"""The report of ``tools/doctor.py --run``: the checkpoints of a work directory, and how to resume."""

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from swin_dense.engine import lock, resume, saving
from swin_dense.errors import UserError
from swin_dense.printable import printable


def checkpoint_table(checkpoints: list[resume.Saved], chosen: resume.Saved | None) -> Table:
    """A row for each checkpoint, the newest first."""
    rows = Table(title='checkpoints', title_justify='left')
    for name in ('file', 'iterations', 'size', 'state'):
        rows.add_column(name, overflow='fold')
    for saved in checkpoints:
        state = '[green]whole' if saved.problem is None else f'[red]{escape(_short(saved))}'
        if saved is chosen:
            state = '[green]whole: --resume goes on from it'
        size = f'{saved.path.stat().st_size / 2**20:.1f} MiB' if saved.path.is_file() else '-'
        rows.add_row(escape(printable(saved.path.name)), str(saved.iteration or '-'), size, state)
    return rows


def needs(work_dir: Path, chosen: resume.Saved | None) -> dict[str, str]:
    """The needs of a resumed run, and the obstacles."""
    holder = lock.holder(work_dir)
    rows = {'held by': str(holder) if holder else 'nobody'}
    pointer = resume.pointed_at(work_dir)
    rows['last_checkpoint'] = pointer or 'missing, or names no file of this folder'
    if chosen is None:
        return rows | {'to resume': 'nothing'}
    size, free = chosen.path.stat().st_size, saving.free_bytes(work_dir)
    enough = 'enough' if free > size else 'NOT enough'
    rows['disk'] = f'{free / 2**20:.0f} MiB free, a checkpoint takes {size / 2**20:.1f}: {enough}'
    if not chosen.settings:
        return rows | {'random states': 'none: a resumed run is not the same bit for bit'}
    return rows | {name: _text(value) for name, value in chosen.settings.items()}


def look(work_dir: Path) -> tuple[list[resume.Saved], resume.Saved | None]:
    """The checkpoints of a work directory, and the one that would be resumed.

    Raises:
        UserError: there is no such folder.
    """
    if not work_dir.is_dir():
        raise UserError(f'--run {work_dir}: there is no such folder (looked for {work_dir.absolute()})')
    checkpoints = resume.checkpoints(work_dir)
    return checkpoints, next((saved for saved in checkpoints if saved.problem is None), None)


def _short(saved: resume.Saved) -> str:
    """The problem without the name of the file, which has a column of its own."""
    return printable((saved.problem or '').replace(f'checkpoint {saved.path} ', ''))


def _text(value: object, shown: int = 100) -> str:
    text = printable(', '.join(map(str, value)) if isinstance(value, list) else str(value))
    return text if len(text) <= shown else text[:shown] + '...'
