"""mmengine's two training loops, entered at any iteration, and left at any iteration.

Both evaluate as mmengine's do, at the same iterations, and call the same hooks in the same order.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop

from swin_dense.engine import run_state


class Interrupted(Exception):  # noqa: N818  it is no error
    """A stop was asked for during an evaluation.

    Attributes:
        reason: as ``StopRequest.agreed`` returns it.
    """

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason


class InterruptedEvaluationHook(Hook):
    """Ends an evaluation within training when the run shall stop."""

    priority = 'LOWEST'

    def after_val_iter(
        self,
        runner: Any,  # noqa: ANN401  our Runner imports this module
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        last = batch_idx + 1 == len(runner.val_loop.dataloader)
        # every process agrees once: at the batch at which it was asked to stop, or at its last one
        if runner.stop is None or not (last or runner.stop.requested() is not None):
            return
        reason = runner.stop.agreed()
        if reason is not None:
            raise Interrupted(reason)


def skip_training(loop: EpochBasedTrainLoop | IterBasedTrainLoop) -> None:
    """Let the loop's ``run()`` end without an iteration, and without fetching what a resumed run has seen."""
    loop.stop_training = True
    loop._iter = 0


class _Resumable(BaseLoop):
    """The common part of the two loops."""

    def run_iter(self, *batch: object) -> None:
        """One iteration; the first one of a resumed run begins with the random states that were saved."""
        self.runner.restore_random_states()
        super().run_iter(*batch)
        self.runner.stop_if_requested()

    def _evaluate(self) -> None:
        """An evaluation, of which the training that follows notices nothing."""
        before = run_state.random_states()
        try:
            self.runner.val_loop.run()
        except Interrupted as interrupted:
            self.runner.leave_evaluation()
            self.runner.save_and_stop(interrupted.reason)
        run_state.set_random_states(before)
        if self.runner.stop is not None and self.runner.stop.budget is not None:
            self.runner.stop.budget.rested()

    def _evaluate_if_due(self, done: int, last: int) -> None:
        """After ``done`` of ``last`` epochs or iterations."""
        self._decide_current_val_interval()
        due = done >= self.val_begin and (done % self.val_interval == 0 or done == last)
        if self.runner.val_loop is not None and due:
            self._evaluate()

    def _evaluate_what_is_missing(self, done: int, last: int) -> None:
        """Do the evaluation that a stop between the last checkpoint and it has left out."""
        if done and self.runner.evaluated_at != self._iter:
            self._evaluate_if_due(done, last)


class EpochLoop(_Resumable, EpochBasedTrainLoop):
    """Training by epochs."""

    def run(self) -> object:
        """Train from where the run is to its end."""
        self.runner.call_hook('before_train')
        self.runner.check_before_first_iteration()
        if self._iter == self._epoch * len(self.dataloader):
            self._evaluate_what_is_missing(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._evaluate_if_due(self._epoch, self._max_epochs)
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """The rest of an epoch, all of it unless the run was resumed in its middle."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        begin = self._iter - self._epoch * len(self.dataloader)
        if begin:
            self.dataloader.batch_sampler.advance(begin)
        for index, batch in enumerate(self.dataloader, begin):
            self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


class IterLoop(_Resumable, IterBasedTrainLoop):
    """Training by iterations."""

    _batches: Iterator | None = None

    @property
    def dataloader_iterator(self) -> Iterator:
        """Batches without an end, from the next one of the run on; the loader starts at the first."""
        if self._batches is None:
            self._batches = self.dataloader.endless(self._iter)
        return self._batches

    @dataloader_iterator.setter
    def dataloader_iterator(self, batches: object) -> None:
        """mmengine's own begins with the first batch whatever the run has done: it is not used."""
        self._batches = None

    def run(self) -> object:
        """Train from where the run is to its end."""
        self.runner.call_hook('before_train')
        self.runner.check_before_first_iteration()
        self.runner.call_hook('before_train_epoch')
        self._evaluate_what_is_missing(self._iter, self._max_iters)
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._evaluate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model
