"""mmengine's CheckpointHook in an order that survives a kill: first the new file, then the old."""

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from swin_dense.engine.resume import POINTER, STOPPED
from swin_dense.storage import atomic

OUTDATED = 'outdated_best'  # in the message hub: best checkpoints that the last evaluation may have replaced


class _KeepsFiles(LocalBackend):
    """A local disk on which mmengine's hook sees nothing that it could remove before it saves."""

    def isfile(self, filepath: str | Path) -> bool:
        return False

    isdir = isfile


class CheckpointHook(MMEngineCheckpointHook):
    """mmengine's, with its arguments. Three things differ:

    A file is whole and on disk before the pointer names it, and the old file goes after that. What a
    checkpoint says of other files counts by its base name within this work directory alone: a copied run
    never touches the original. Checkpoints of a stop go when the next regular one is there.
    """

    # set by mmengine's before_train, which has no types
    keep_ckpt_ids: deque[int]
    file_backend: Any

    def before_train(self, runner: Runner) -> None:
        """Take over from a resumed run which files are its own."""
        info = runner.message_hub.runtime_info
        steps = info.get('keep_ckpt_ids') or ()
        if 'keep_ckpt_ids' in info:  # the host removes those beyond max_keep_ckpts
            info['keep_ckpt_ids'] = [step for step in steps if type(step) is int]
        super().before_train(runner)
        if not self._is_local():
            return
        for key in [key for key in info if key.startswith('best_ckpt')]:
            info[key] = self._own_file(info[key])
            if key == 'best_ckpt':
                self.best_ckpt_path = info[key]
            else:
                self.best_ckpt_path_dict[key.removeprefix('best_ckpt_')] = info[key]
        if is_main_process():
            names = info.get(OUTDATED)
            names = filter(_is_best, names) if isinstance(names, list) else ()
            outdated = {self._own_file(name) for name in names}
            _remove({Path(path) for path in outdated if path} - self._best())

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not self._is_local():
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        if self.max_keep_ckpts > 0:
            kept = [*(other for other in self.keep_ckpt_ids if other != step), step]
            # the file still counts the one that goes when it is there: a resumed run removes it otherwise
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        path = Path(self.out_dir) / self.filename_tmpl.format(step)
        self.last_ckpt = str(path)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            path.name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            **self.args,
        )
        old: list[Path] = []
        if self.max_keep_ckpts > 0:
            gone, kept = kept[: -self.max_keep_ckpts], kept[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            old = [Path(self.out_dir) / self.filename_tmpl.format(other) for other in gone]
        if is_main_process():
            point_at(Path(runner.work_dir), path)
            _remove([*old, *Path(runner.work_dir).glob(STOPPED.format('*'))])

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self._is_local():
            super()._save_best_checkpoint(runner, metrics)
            return
        before, disk = self._best(), self.file_backend
        # mmengine saves the regular checkpoint once more with the new best one in it: a run that is killed
        # before the old one goes removes it when it resumes
        runner.message_hub.update_info(OUTDATED, [path.name for path in before])
        self.file_backend = _KeepsFiles()
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = disk
        if is_main_process():
            _remove(before - self._best())

    def _best(self) -> set[Path]:
        named = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        return {Path(path) for path in named if path}

    def _own_file(self, named: object) -> str | None:
        """The file of that name in this run's folder, None if there is none."""
        path = Path(self.out_dir) / Path(str(named)).name
        return str(path) if named and path.is_file() and not path.is_symlink() else None

    def _is_local(self) -> bool:
        return isinstance(self.file_backend, LocalBackend)


def _is_best(name: object) -> bool:
    return isinstance(name, str) and name.startswith('best_') and name.endswith('.pth')


def point_at(work_dir: Path, checkpoint: Path) -> None:
    """Let ``last_checkpoint`` name a checkpoint, as mmengine and its tools read it."""
    atomic.write_text(work_dir / POINTER, str(checkpoint))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            path.unlink(missing_ok=True)
