"""A 3x3 convolution as a module that the hosts' heads and necks can be built with."""

from torch import Tensor, nn

from swin_dense.models import fused
from swin_dense.registry import MODELS


@MODELS.register_module()
class WinogradConv2d(nn.Conv2d):
    """torch's convolution, with fewer multiplications (``kernels/winograd.py``) where that is faster.

    Heads that take ``conv_cfg`` take it as ``conv_cfg=dict(type='swin_dense.WinogradConv2d')``.
    """

    @fused.conv3x3
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight, bias)
