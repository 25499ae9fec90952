"""A 3x3 convolution as a module that the hosts' heads and necks can be built with."""

from torch import Tensor, nn

from swin_dense.kernels import winograd
from swin_dense.registry import MODELS


@MODELS.register_module()
class WinogradConv2d(nn.Conv2d):
    """torch's convolution, by ``kernels/winograd.py`` where that is faster: 3x3, many channels, on the CPU.

    Heads that take ``conv_cfg`` take it as ``conv_cfg=dict(type='swin_dense.WinogradConv2d')``.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        dense = (self.groups, self.stride, self.dilation) == (1, (1, 1), (1, 1))
        around = (self.padding_mode, self.padding) == ('zeros', (1, 1))
        if dense and around and x.dim() == 4 and winograd.serves(x, weight):
            return winograd.conv3x3(x, weight, bias)
        return super()._conv_forward(x, weight, bias)
