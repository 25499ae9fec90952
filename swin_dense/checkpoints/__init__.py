"""Open any checkpoint safely and load it into a backbone. Importing registers our initializer."""

from swin_dense.checkpoints.pretrained import Pretrained

__all__ = ['Pretrained']
