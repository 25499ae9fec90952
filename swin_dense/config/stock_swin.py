"""The hosts' own Swin in a config, by our class: ``--backbone ours`` keeps all its values."""

import inspect
from collections.abc import Sequence

from mmengine.config import ConfigDict

from swin_dense.errors import UserError
from swin_dense.models import host_arguments

NAMES = ('SwinTransformer', 'mmdet.SwinTransformer', 'mmseg.SwinTransformer')
TYPE = 'swin_dense.SwinTransformer'


def take_ours(holders: Sequence[tuple[str, ConfigDict]], filename: str | None) -> list[str]:
    """Change the type of each Swin; other backbones stay.

    Returns:
        One line for each backbone that stays.

    Raises:
        UserError: no backbone is a Swin of the hosts, or one asks for what ours does not have.
    """
    notes, taken = [], 0
    for path, holder in holders:
        backbone = holder.backbone
        kind = str(backbone.type)
        if kind in NAMES and backbone.get('_scope_') != 'mmpretrain':
            _check(backbone, f'{path}.backbone')
            backbone.type = TYPE
            taken += 1
        elif kind not in (TYPE, f'{TYPE}V2'):
            notes.append(f'{path}.backbone stays {kind}')
        else:
            taken += 1
    if not taken:
        kinds = ', '.join(str(holder.backbone.type) for _, holder in holders)
        raise UserError(
            f'--backbone ours: config {filename} has no Swin of mmdet or mmseg ({kinds}): name a backbone, '
            f'such as --backbone swin_t'
        )
    return notes


def _check(backbone: ConfigDict, path: str) -> None:
    names = inspect.signature(host_arguments.check).parameters
    try:
        host_arguments.check(**{name: backbone[name] for name in names if name in backbone})
    except ValueError as error:
        raise UserError(f'{path}.{error}') from error
