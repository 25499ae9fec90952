"""Load a file's weights into a model, and say what happened."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from swin_dense.checkpoints.adapt import adapted
from swin_dense.checkpoints.convert import Swin, recognise
from swin_dense.checkpoints.formats import DERIVED, NORMS
from swin_dense.checkpoints.report import Report
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer, SwinTransformerV2


def load(model: nn.Module, tensors: Mapping[str, Tensor], file: str, adapt: bool, partial: bool) -> Report:
    """Fill ``model`` from the tensors of a file, of whichever library they are.

    Args:
        model: a Swin backbone, or a detector or segmentor with any backbone.
        tensors: by the file's names.
        file: its name, for messages.
        adapt: resize what can be resized, and leave out heads of other shapes; else shapes must agree.
        partial: allow the backbone to miss weights. Its output norms may always be missing.

    Raises:
        UserError: no tensor matches, one is not finite, shapes disagree, or the backbone misses weights.
    """
    wanted = model.state_dict()
    found, source, prefix = _under_our_names(model, tensors, file)
    report = Report(file, source)
    fitted: dict[str, Tensor] = {}
    for key, target in wanted.items():
        if key not in found:
            report.missing.append(key)
        elif found[key].shape == target.shape:
            fitted[key] = found[key]
            report.matched.append(key)
        else:
            _fit(report, fitted, key, found[key], target.shape, adapt, prefix)
    report.unexpected = [key for key in found if key not in wanted and not key.endswith(DERIVED)]
    if not fitted:
        raise UserError(
            f'checkpoint {file}: none of its {len(tensors)} tensors belongs to the model, '
            f'which has {len(wanted)}'
        )
    absent = [key for key in report.missing if _is_of_backbone(key, prefix)]
    if absent and not partial:
        raise UserError(
            f'checkpoint {file} ({source}) lacks {len(absent)} of the {len(wanted)} weights, '
            f'{absent[0]} first'
        )
    _refuse_not_finite(file, fitted)
    model.load_state_dict(fitted, strict=False)
    parameters = dict(model.named_parameters())
    filled = sum(parameters[key].numel() for key in fitted if key in parameters)
    report.filled = filled / sum(parameter.numel() for parameter in parameters.values())
    return report


def _under_our_names(
    model: nn.Module, tensors: Mapping[str, Tensor], file: str
) -> tuple[Mapping[str, Tensor], str, str | None]:
    """The tensors under the model's names, whose they are, and the prefix of our backbone, if it is ours."""
    backbone = getattr(model, 'backbone', model)
    if not isinstance(backbone, SwinTransformer):
        return tensors, 'names of the model', None
    prefix = '' if backbone is model else 'backbone.'
    try:
        swin = recognise(tensors)
    except UserError as error:
        raise UserError(f'checkpoint {file}: {error}') from error
    if swin is None:
        return tensors, 'not a Swin', prefix
    version = 2 if isinstance(backbone, SwinTransformerV2) else 1
    if swin.version != version:
        raise UserError(f'checkpoint {file} is a Swin v{swin.version}, but the model is a Swin v{version}')
    _check_coordinates(swin, backbone, file)
    found = swin.others | {f'{prefix}{key}': value for key, value in swin.weights.items()}
    return found, swin.title, prefix


def _fit(
    report: Report,
    fitted: dict[str, Tensor],
    key: str,
    value: Tensor,
    shape: torch.Size,
    adapt: bool,
    prefix: str | None,
) -> None:
    """Adapt one tensor of another shape, drop it if it is of a head, or refuse."""
    change = adapted(key, value, shape) if adapt and prefix is not None and key.startswith(prefix) else None
    if change is not None:
        fitted[key], report.adapted[key] = change
    elif adapt and prefix is not None and not key.startswith(prefix):
        report.dropped[key] = f'{tuple(value.shape)} in the file, {tuple(shape)} in the model'
    else:
        raise UserError(
            f'checkpoint {report.file} ({report.source}): {key} is {tuple(value.shape)}, but the model needs '
            f'{tuple(shape)}'
        )


def _is_of_backbone(key: str, prefix: str | None) -> bool:
    if prefix is None or not key.startswith(prefix):
        return False
    return key.removeprefix(prefix).split('.')[0] not in NORMS


def _refuse_not_finite(file: str, tensors: Mapping[str, Tensor]) -> None:
    for key, value in tensors.items():
        # the sum of finite weights is finite, and needs no memory
        if value.is_floating_point() and not value.sum().isfinite() and not value.isfinite().all():
            raise UserError(f'checkpoint {file}: {key} has values that are not finite')


def _check_coordinates(swin: Swin, backbone: SwinTransformer, file: str) -> None:
    """Refuse a v2 whose position bias was learned on other coordinates, if the file tells."""
    for name, module in backbone.named_modules():
        learned = swin.derived.get(f'{name}.relative_coords_table')
        if learned is None:
            continue
        middle = learned.size(1) // 2
        if middle == 0:
            continue
        # one step is log2(1 + 8 x) / 3 with x = 1 / (M - 1), so M = 1 + 8 / (8^step - 1)
        side = round(1 + 8 / (8 ** learned[0, middle, middle + 1, 1].item() - 1))
        if side != module.pretrained_window:
            raise UserError(
                f'checkpoint {file}: {name} learned its position bias in windows of {side}, but the model '
                f'takes {module.pretrained_window}: give pretrained_window_sizes, one for each stage'
            )
