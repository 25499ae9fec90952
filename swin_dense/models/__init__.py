"""The imports that register our models under scope ``swin_dense``."""

from swin_dense.models.fpn import FPN
from swin_dense.models.swin import SwinTransformer

__all__ = ['FPN', 'SwinTransformer']
