"""Where a training run begins: with fresh weights, with those of a file, or where another run was left."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from swin_dense.engine import resume
from swin_dense.errors import UserError

NEWEST, AUTO = '', 'auto'  # what --resume says without a path
Listing = dict[Path, tuple[int, int]]


@dataclass(frozen=True)
class Start:
    """The options of the command line about the beginning of a run.

    Attributes:
        checkpoint: a file of any Swin or of a whole model, in place of the config's pretrained weights.
        resume: a checkpoint or folder of the run to continue; ``NEWEST`` of the work directory; ``AUTO`` the
            same, or a new run if there is none.
        anyway: continue with other settings, too.
    """

    checkpoint: str | None = None
    resume: str | None = None
    anyway: bool = False

    def check(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            UserError: a new run and an old one are wanted at once.
        """
        if self.checkpoint is not None and self.resume not in (None, AUTO):
            raise UserError('--checkpoint starts a new run and --resume continues one: give one of them')
        if self.anyway and self.resume is None:
            raise UserError('--resume-anyway goes with --resume')


@dataclass(frozen=True)
class Beginning:
    """The checkpoint that a training run begins with.

    Attributes:
        weights: a file whose weights it starts from; None for the config's own.
        run: the checkpoint of the run that it continues; None for a new run.
        anyway: it continues with other settings, too.
        folder: the work directory in which ``run`` was looked for; None if the user named the file.
        seen: the checkpoints that were there.
    """

    weights: str | None = None
    run: resume.Choice | None = None
    anyway: bool = False
    folder: Path | None = None
    seen: Listing | None = None

    def confirm(self) -> None:
        """Called by the one trainer that holds the work directory.

        Raises:
            UserError: another run has left or removed a checkpoint there since this one chose.
        """
        if self.folder is not None and _checkpoints(self.folder) != self.seen:
            raise UserError(
                f'--resume: another run has changed the checkpoints in {self.folder} meanwhile: start again'
            )


def choose(work_dir: Path, start: Start) -> Beginning:
    """The checkpoint that a run begins with.

    Raises:
        UserError: there is no run to continue, or its checkpoint is damaged.
    """
    start.check()
    if start.resume not in (NEWEST, AUTO):
        run = None if start.resume is None else resume.of_file(start.resume)
        return Beginning(start.checkpoint, run, start.anyway)
    seen = _checkpoints(work_dir)
    run = resume.newest(work_dir) if seen or start.resume == NEWEST else None
    return Beginning(start.checkpoint, run, start.anyway, work_dir, seen)


def apply(config: Config, beginning: Beginning) -> None:
    """Let a config start from a file's weights, or continue a run.

    A run that continues keeps its seed, unless the config or the command line names another.

    Args:
        config: changed in place.
        beginning: the checkpoint.
    """
    if beginning.weights is not None or beginning.run is not None:
        _drop_pretrained(config.model)
    if beginning.run is None:
        if beginning.weights is not None:
            config.load_from = beginning.weights
        return
    saved = beginning.run.saved
    config.resume, config.load_from = True, str(saved.path)
    randomness = config.setdefault('randomness', {}) or {}
    if randomness.get('seed') is None and saved.seed is not None:
        config.randomness = {**randomness, 'seed': saved.seed}


def _checkpoints(work_dir: Path) -> Listing:
    """Size and time of every checkpoint file in a folder."""
    listing = {}
    for path in work_dir.glob('*.pth'):
        with suppress(OSError):  # it is being replaced
            status = path.stat()
            listing[path] = status.st_size, status.st_mtime_ns
    return listing


def _drop_pretrained(model: ConfigDict) -> None:
    """Weights that would be loaded, if they can be had at all, only to be replaced."""
    if 'backbone' in model:
        model.backbone.init_cfg = None
    if 'pretrained' in model:  # mmseg's
        model.pretrained = None
