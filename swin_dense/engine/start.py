"""Where a training run begins: with fresh weights, with those of a file, or where another run was left."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config, ConfigDict

from swin_dense.engine import resume
from swin_dense.errors import UserError

NEWEST, AUTO = '', 'auto'  # what --resume says without a path


@dataclass(frozen=True)
class Start:
    """What the command line says of the beginning.

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


def apply(config: Config, start: Start, say: Callable[[str], None]) -> None:
    """Let a config start from a file's weights, or continue a run.

    A run that continues keeps its seed, unless the config or the command line names another.

    Args:
        config: changed in place.
        start: what is wanted.
        say: is told, line by line, what was chosen where that is not plain.

    Raises:
        UserError: there is no run to continue, or its checkpoint is damaged.
    """
    start.check()
    chosen = _chosen(Path(config.work_dir), start)
    if start.checkpoint is not None or chosen is not None:
        _drop_pretrained(config.model)
    if chosen is None:
        if start.checkpoint is not None:
            config.load_from = start.checkpoint
        return
    for note in chosen.notes:
        say(note)
    config.resume, config.load_from = True, str(chosen.saved.path)
    randomness = config.setdefault('randomness', {}) or {}
    if randomness.get('seed') is None and chosen.saved.seed is not None:
        config.randomness = {**randomness, 'seed': chosen.saved.seed}


def _chosen(work_dir: Path, start: Start) -> resume.Choice | None:
    if start.resume is None:
        return None
    if start.resume == AUTO:
        return resume.newest(work_dir) if any(work_dir.glob('*.pth')) else None
    return resume.newest(work_dir) if start.resume == NEWEST else resume.of_file(start.resume)


def _drop_pretrained(model: ConfigDict) -> None:
    """Weights that would be loaded, if they can be had at all, only to be replaced."""
    if 'backbone' in model:
        model.backbone.init_cfg = None
    if 'pretrained' in model:  # mmseg's
        model.pretrained = None
