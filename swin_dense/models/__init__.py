"""Our models, registered under scope ``swin_dense``. Each is imported when it is first used.

``SwinTransformer`` alone, for example to convert a checkpoint, needs neither mmdet nor mmseg.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_dense.models.fpn import FPN
    from swin_dense.models.preprocessors import DetDataPreprocessor
    from swin_dense.models.swin import SwinTransformer
    from swin_dense.models.swin_v2 import SwinTransformerV2
    from swin_dense.models.uper_head import UPerHead
    from swin_dense.models.winograd_conv import WinogradConv2d

__all__ = [
    'FPN',
    'DetDataPreprocessor',
    'SwinTransformer',
    'SwinTransformerV2',
    'UPerHead',
    'WinogradConv2d',
]
MODULES = {
    'FPN': 'fpn',
    'DetDataPreprocessor': 'preprocessors',
    'SwinTransformer': 'swin',
    'SwinTransformerV2': 'swin_v2',
    'UPerHead': 'uper_head',
    'WinogradConv2d': 'winograd_conv',
}


def __getattr__(name: str) -> type:
    if name not in MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{MODULES[name]}'), name)
