"""Which checkpoint a run goes on from: the newest one that is whole, whatever else lies in its folder."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from swin_dense.checkpoints import files
from swin_dense.engine import run_state
from swin_dense.errors import UnsafeFileError, UserError

POINTER = 'last_checkpoint'
LARGEST = 2**63 - 1  # iteration or seed: files of other people hold numbers of any length
STOPPED = 'stopped_iter_{}.pth'  # written when a run is told to stop


@dataclass(frozen=True)
class Saved:
    """A checkpoint in a work directory.

    Attributes:
        path: the file.
        iteration: how many iterations it has behind it.
        problem: why it cannot be resumed, None if it can.
        unsafe: opening it would run code.
        started: when its run was started, as seconds since 1970; 0 if it does not say.
        seed: of its run, None if it does not say.
        settings: what must stay the same when it is resumed; empty for another trainer's checkpoint.
    """

    path: Path
    iteration: int = 0
    problem: str | None = None
    unsafe: bool = False
    started: float = 0.0
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """The checkpoint to resume, and lines about what was passed over to get there."""

    saved: Saved
    notes: list[str] = field(default_factory=list)


def look(path: Path) -> Saved:
    """Look at a checkpoint file. A damaged file, or one without a run, has a ``problem``."""
    try:
        if path.is_symlink() or not path.is_file():
            raise UserError(f'checkpoint {path} is no regular file')
        files.check_whole(path)
        content = files.read_checkpoint(path, mapped=True)
    except UserError as error:
        return Saved(path, problem=' '.join(str(error).split()), unsafe=isinstance(error, UnsafeFileError))
    parts = (content.get(key) for key in ('meta', run_state.KEY))
    meta, run = (part if isinstance(part, dict) else {} for part in parts)
    iteration = meta.get('iter')
    if not _is_count(iteration) or not _is_count(meta.get('epoch')):
        return Saved(path, problem=f'checkpoint {path} holds weights alone, not a run to resume')
    lacking = [key for key in ('optimizer', 'message_hub', 'state_dict') if key not in content]
    problem = f'checkpoint {path} holds no {lacking[0]}, so no run can go on from it' if lacking else None
    settings = run.get('settings')
    return Saved(
        path,
        iteration,
        problem,
        started=_time(run.get('started')),
        seed=meta['seed'] if _is_count(meta.get('seed')) else None,
        settings=settings if isinstance(settings, dict) else {},
    )


def checkpoints(work_dir: Path) -> list[Saved]:
    """Every checkpoint of a folder, the newest first: of the run that was started last, by iteration."""
    candidates = [look(path) for path in sorted(work_dir.glob('*.pth'))]
    return sorted(candidates, key=lambda saved: (saved.started, saved.iteration), reverse=True)


def newest(work_dir: Path) -> Choice:
    """The checkpoint that ``--resume`` continues.

    Raises:
        UserError: there is none that is whole.
        UnsafeFileError: there is none, and one of them would run code.
    """
    candidates = checkpoints(work_dir)
    # the best ones hold no optimizer: they are no damage worth a line
    usable = [saved for saved in candidates if saved.problem is None]
    if not usable:
        candidates.sort(key=lambda saved: saved.unsafe, reverse=True)
        why = next((saved.problem for saved in candidates), f'{work_dir} holds no checkpoint')
        kind = UnsafeFileError if any(saved.unsafe for saved in candidates) else UserError
        raise kind(f'--resume: no run to continue in {work_dir}: {why}')
    chosen, named = usable[0], pointed_at(work_dir)
    notes = [f'passed over: {saved.problem}' for saved in candidates if _is_damaged(saved)]
    if named != chosen.path.name:
        says = f'names {named!r}' if named else 'is missing or names no file of this folder'
        notes.append(f'{work_dir / POINTER} {says}: going on from the newest whole checkpoint, {chosen.path}')
    return Choice(chosen, notes)


def of_file(path: str) -> Choice:
    """The checkpoint that ``--resume PATH`` names: a file, or the newest of a folder.

    Raises:
        UserError: it is missing, damaged, or no run's.
        UnsafeFileError: opening it would run code.
    """
    if Path(path).is_dir():
        return newest(Path(path))
    saved = look(Path(files.fetch(path)).resolve())
    if saved.problem:
        raise (UnsafeFileError if saved.unsafe else UserError)(saved.problem)
    return Choice(saved)


def pointed_at(work_dir: Path) -> str | None:
    """The base name of the file that ``last_checkpoint`` names, None if that is no name of a file there."""
    try:
        name = Path((work_dir / POINTER).read_text(encoding='utf-8').strip()).name
        return name if name and (work_dir / name).is_file() else None
    except (OSError, ValueError):
        return None


def _is_damaged(saved: Saved) -> bool:
    return saved.unsafe or (saved.problem is not None and 'cannot be read' in saved.problem)


def _time(value: Any) -> float:  # noqa: ANN401
    return value if isinstance(value, float) and math.isfinite(value) else 0.0


def _is_count(value: Any) -> TypeGuard[int]:  # noqa: ANN401
    return type(value) is int and 0 <= value <= LARGEST
