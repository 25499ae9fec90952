"""Load the weights of a file into a model, and report what was loaded."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from swin_dense.checkpoints.convert import SeparateQKV, Swin, find_swin, joined
from swin_dense.checkpoints.formats import NORMS
from swin_dense.checkpoints.matching import match
from swin_dense.checkpoints.report import Report
from swin_dense.errors import UserError
from swin_dense.models.swin import SwinTransformer
from swin_dense.models.swin_v2 import SwinTransformerV2


def load_weights(
    model: nn.Module, tensors: Mapping[str, Tensor], file: str, adapt: bool, partial: bool
) -> Report:
    """Load the tensors of a file, from any library, into ``model``. After an error the model is unchanged.

    Args:
        model: a Swin backbone, or a detector or segmentor with any backbone.
        tensors: the tensors under the file's names.
        file: the name of the file, for messages.
        adapt: accept another model's weights. Tensors of the backbone are resized where that is possible.
            Heads and output norms keep their values where the file lacks them or has other shapes. Without
            ``adapt`` the file must be this model's own.
        partial: allow weights to be missing.

    Raises:
        UserError: no tensor matches, a tensor is not finite, shapes disagree, or weights are missing.
    """
    backbone = getattr(model, 'backbone', model)
    prefix = '' if backbone is model else 'backbone.'
    ours = isinstance(backbone, SwinTransformer)
    renamed: Mapping[str, Tensor | SeparateQKV] = tensors
    source = 'names of the model'
    if isinstance(backbone, SwinTransformer):
        renamed, source = _under_our_names(backbone, tensors, file, prefix)
    report = Report(file, source)
    fitted = match(model.state_dict(), renamed, report, prefix if adapt else None)
    parameters = {key: parameter.numel() for key, parameter in model.named_parameters()}
    report.filled = sum(parameters.get(key, 0) for key in fitted) / sum(parameters.values())
    absent = [key for key in report.missing if not adapt or (ours and _is_needed(key, prefix))]
    absent = [key for key in absent if not key.endswith('num_batches_tracked')]
    if absent and not partial:
        raise UserError(
            f'checkpoint {file} ({source}) lacks {len(absent)} of the {len(model.state_dict())} weights, '
            f'{absent[0]} first'
        )
    places = model.state_dict()
    with torch.no_grad():
        for key, value in fitted.items():
            places[key].copy_(joined(value))
    return report


def _under_our_names(
    backbone: SwinTransformer, tensors: Mapping[str, Tensor], file: str, prefix: str
) -> tuple[Mapping[str, Tensor | SeparateQKV], str]:
    """The tensors under the model's names, and the library and version that they come from."""
    swin = find_swin(tensors, file)
    if swin is None:
        return tensors, 'not a Swin'
    version = 2 if isinstance(backbone, SwinTransformerV2) else 1
    if swin.version != version:
        raise UserError(f'checkpoint {file} is a Swin v{swin.version}, but the model is a Swin v{version}')
    _check_coordinates(swin, backbone, file)
    return swin.others | {f'{prefix}{key}': value for key, value in swin.weights.items()}, swin.title


def _is_needed(key: str, prefix: str) -> bool:
    """Whether a file must have this tensor of the backbone: only the output norms may be missing."""
    return key.startswith(prefix) and key.removeprefix(prefix).split('.')[0] not in NORMS


def _check_coordinates(swin: Swin, backbone: SwinTransformer, file: str) -> None:
    """Refuse a v2 whose file tells that its position bias was learned on other coordinates."""
    for name, module in backbone.named_modules():
        learned = swin.derived.get(f'{name}.relative_coords_table')
        if learned is None or learned.ndim != 4 or learned.size(1) < 3:
            continue
        # in a table of 2M - 1 rows the largest coordinate is log2(1 + 8 x) / 3 with x = (M - 1) / (P - 1)
        side = (1 + 4 * (learned.size(1) - 1) / (8 ** learned.abs().max() - 1)).item()
        if not abs(side - module.pretrained_window) < 0.5:
            raise UserError(
                f'checkpoint {file}: {name} learned its position bias in windows of {side:.0f}, but the '
                f'model takes {module.pretrained_window}: give pretrained_window_sizes, one for each stage'
            )
