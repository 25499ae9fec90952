"""Does the neck or head expect the channels that the backbone gives?"""

from torch import nn

from swin_dense.errors import UserError


def check_channels(model: nn.Module) -> None:
    """Compare the channels of a built model's backbone with those that its neck or head expects.

    Covers a neck with ``in_channels`` for all maps, and mmseg heads that pick maps by ``in_index``.
    Backbones that do not state ``out_channels`` are passed over.

    Raises:
        UserError: they differ; the message names both fields.
    """
    backbone = getattr(model, 'backbone', None)
    given = getattr(backbone, 'out_channels', None)
    if not isinstance(given, list):
        return
    neck = getattr(model, 'neck', None)
    if neck is not None:
        wanted = getattr(neck, 'in_channels', None)
        # YOLOv3's neck lists the deepest map first
        if isinstance(wanted, (list, tuple)) and list(wanted) not in (given, given[::-1]):
            raise UserError(
                f'model.neck.in_channels={list(wanted)}, but model.backbone ({type(backbone).__name__}) '
                f'gives {given} channels'
            )
        return
    for name in ('decode_head', 'auxiliary_head'):
        head = getattr(model, name, None)
        for part in head if isinstance(head, nn.ModuleList) else [head]:
            _check_head(f'model.{name}', part, given)


def _check_head(name: str, head: nn.Module | None, given: list[int]) -> None:
    index, wanted = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
    if index is None or wanted is None or getattr(head, 'input_transform', None) == 'resize_concat':
        return
    indices = index if isinstance(index, (list, tuple)) else [index]
    picked = [given[i] for i in indices if -len(given) <= i < len(given)]
    wanted = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
    if picked != wanted:
        raise UserError(
            f'{name}.in_channels={wanted} at in_index={list(indices)}, but model.backbone gives '
            f'{given} channels'
        )
