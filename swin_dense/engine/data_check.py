"""The quick check of the data, before a run."""

from collections.abc import Sequence

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process

from swin_dense import tasks
from swin_dense.console import findings, terminal
from swin_dense.errors import UserError
from swin_dense.formats import coco_json, panoptic_json

WARNINGS = 5  # that are shown


def check_before(config: Config, splits: Sequence[str], skip_bad: bool = False) -> None:
    """Check what the loaders of ``splits`` read, once for all processes; warnings become lines.

    Args:
        config: as ``prepare`` returns it.
        splits: the loaders that the run uses.
        skip_bad: training goes on without bad images: they are warnings.

    Raises:
        UserError: the first error, in every process.
    """
    outcome: list = [None]
    if is_main_process():
        try:
            outcome = [tasks.check(config, False, splits, skip_bad)]
        except UserError as error:
            outcome = [error]
    coco_json.forget()
    panoptic_json.forget()
    broadcast_object_list(outcome)
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    findings.stop_on_errors(outcome[0])
    warnings = [finding for finding in outcome[0] if finding.severity == 'warning']
    for warning in warnings[:WARNINGS]:
        terminal.say(f'warning: {warning.line()}')
    if len(warnings) > WARNINGS:
        terminal.say(f'warning: and {len(warnings) - WARNINGS} more kinds: see tools/check_data.py')
