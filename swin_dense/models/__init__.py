"""The imports that register our models under scope ``swin_dense``."""

from swin_dense.models.fpn import FPN
from swin_dense.models.preprocessors import DetDataPreprocessor
from swin_dense.models.swin import SwinTransformer
from swin_dense.models.swin_v2 import SwinTransformerV2
from swin_dense.models.uper_head import UPerHead
from swin_dense.models.winograd import WinogradConv2d

__all__ = [
    'FPN',
    'DetDataPreprocessor',
    'SwinTransformer',
    'SwinTransformerV2',
    'UPerHead',
    'WinogradConv2d',
]
