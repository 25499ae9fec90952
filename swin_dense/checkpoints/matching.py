"""Choose the tensors of a file that fill a model. Only the names and shapes of the model are needed."""

from collections.abc import Mapping

import torch
from torch import Tensor

from swin_dense.checkpoints.adapt import adapted
from swin_dense.checkpoints.convert import SeparateQKV, joined
from swin_dense.checkpoints.formats import DERIVED
from swin_dense.checkpoints.report import Report
from swin_dense.errors import UserError


def match(
    wanted: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor | SeparateQKV],
    report: Report,
    prefix: str | None = None,
) -> dict[str, Tensor | SeparateQKV]:
    """Choose the tensors that fill a model.

    Args:
        wanted: the model's tensors. They may be on the meta device, and are not changed.
        tensors: the file's tensors under the model's names.
        report: gets the names of the matched, adapted, missing, unexpected and dropped tensors.
        prefix: the prefix of the backbone's names. Tensors of other shapes are adapted in the backbone, and
            dropped elsewhere. With None they are refused.

    Returns:
        The tensors to load, by the model's names and in the model's shapes.

    Raises:
        UserError: no tensor matches, a tensor is not finite, or shapes disagree.
    """
    fitted: dict[str, Tensor | SeparateQKV] = {}
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
    fitted: dict[str, Tensor | SeparateQKV],
    key: str,
    value: Tensor,
    shape: torch.Size,
    prefix: str | None,
) -> None:
    """Adapt one tensor of another shape, drop it if it belongs to a head, or refuse it."""
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
    """Refuse values that are not finite, and integers for weights: a quantized model's, without scales."""
    if not value.is_floating_point():
        if target.is_floating_point():
            raise UserError(f'checkpoint {file}: {key} is {value.dtype}, but the model needs {target.dtype}')
        return
    # a finite sum shows that all values are finite, and needs no memory
    if not value.sum().isfinite() and not value.isfinite().all():
        raise UserError(f'checkpoint {file}: {key} has values that are not finite')
