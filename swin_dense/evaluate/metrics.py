"""One form for the metrics of both hosts: plain names, fractions from 0 to 1."""

import json
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path

from swin_dense.storage import atomic


def as_fractions(metrics: Mapping[str, float], in_percent: bool) -> dict[str, float | None]:
    """Metrics of an evaluation under plain names.

    Args:
        metrics: as the host's evaluator returns them: ``coco/bbox_mAP`` from 0 to 1, -1 where no object
            is of that size; ``mIoU`` in percent. Losses, ``val/loss``, are left out: they are no fractions.
        in_percent: the evaluator returns percent, as mmseg's does.

    Returns:
        The same as fractions; None where a metric is undefined.
    """
    plain: dict[str, float | None] = {}
    for name, value in metrics.items():
        if not isinstance(value, Real) or name.endswith('time') or name.startswith('val/'):
            continue  # mmdet adds strings to copy and paste, mmengine the loading time, ValLossHook losses
        undefined = math.isnan(value) or value == -1
        scaled = value / 100 if in_percent else value
        plain[name.removeprefix('coco_panoptic/').removeprefix('coco/')] = (
            None if undefined else float(scaled)
        )
    return plain


def save(metrics: Mapping[str, float | None], work_dir: Path) -> Path:
    """Write ``metrics.json``, the last evaluation, into the work directory, whole or not at all.

    Raises:
        DiskFullError: there is no space; the file of an earlier evaluation is intact.
        UserError: it cannot be written for another reason.
    """
    path = work_dir / 'metrics.json'
    atomic.write_text(path, json.dumps(metrics, indent=2) + '\n')
    return path
