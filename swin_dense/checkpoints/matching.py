"""Which tensors of a file fill which of a model; it needs the names and shapes of the model alone."""

from collections.abc import Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints.adapt import adapted
from swin_dense.checkpoints.convert import Apart, joined
from swin_dense.checkpoints.formats import DERIVED
from swin_dense.checkpoints.report import Report
from swin_dense.errors import UserError


def match(
    wanted: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor | Apart],
    report: Report,
    prefix: str | None = None,
) -> dict[str, Tensor | Apart]:
    """Choose the tensors that fill a model.

    Args:
        wanted: the model's tensors, which may be on the meta device and stay as they are.
        tensors: by the model's names.
        report: is told what becomes of each.
        prefix: what precedes the names of the backbone. Its tensors of other shapes are adapted, and those
            of heads dropped; None refuses both.

    Raises:
        UserError: no tensor matches, one is not finite, or shapes disagree.
    """
    fitted: dict[str, Tensor | Apart] = {}
    for key, target in wanted.items():
        if key not in tensors:
            report.missing.append(key)
            continue
        value = joined(tensors[key])
        if value.shape == target.shape:
            fitted[key] = tensors[key]
            report.matched.append(key)
        else:
            _fit(report, fitted, key, value, target.shape, prefix)
        if key in fitted:
            _check_values(report.file, key, value, target)
    report.unexpected = [key for key in tensors if key not in wanted and not key.endswith(DERIVED)]
    if not fitted:
        raise UserError(
            f'checkpoint {report.file}: none of its {len(tensors)} tensors belongs to the model, '
            f'which has {len(wanted)}'
        )
    return fitted


def _fit(
    report: Report,
    fitted: dict[str, Tensor | Apart],
    key: str,
    value: Tensor,
    shape: torch.Size,
    prefix: str | None,
) -> None:
    """Adapt one tensor of another shape, drop it if it is of a head, or refuse."""
    of_backbone = prefix is not None and key.startswith(prefix)
    change = adapted(key, value, shape) if of_backbone else None
    if change is not None:
        fitted[key], report.adapted[key] = change
    elif prefix is not None and not of_backbone:
        report.dropped[key] = f'{tuple(value.shape)} in the file, {tuple(shape)} in the model'
    else:
        raise UserError(
            f'checkpoint {report.file} ({report.source}): {key} is {tuple(value.shape)}, but the model needs '
            f'{tuple(shape)}'
        )


def _check_values(file: str, key: str, value: Tensor, target: Tensor) -> None:
    """Refuse what is not finite, and integers for weights: of quantized models, they lack their scales."""
    if not value.is_floating_point():
        if target.is_floating_point():
            raise UserError(f'checkpoint {file}: {key} is {value.dtype}, but the model needs {target.dtype}')
        return
    # the sum of finite weights is finite, and needs no memory
    if not value.sum().isfinite() and not value.isfinite().all():
        raise UserError(f'checkpoint {file}: {key} has values that are not finite')
