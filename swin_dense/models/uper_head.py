"""UPerHead (Xiao et al. 2018): mmseg's, with fewer multiplications in its 3x3 convolutions."""

from collections.abc import Sequence

from swin_dense import hosts

hosts.prepare()  # the host cannot be imported before this

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from torch import Tensor
from torch.nn import functional as F

from swin_dense.models import fused
from swin_dense.registry import MODELS


@MODELS.register_module()
class UPerHead(MMSegUPerHead):
    """mmseg's UPerHead: the same arguments, parameters and outputs, with fewer multiplications.

    At 512x512 two thirds of UPerNet Swin-T's multiplications belong to the convolution that fuses the four
    levels of the pyramid, three of which are enlarged 2, 4 and 8 times. Most of the others belong to the
    convolutions of the levels. ``kernels/resized_conv.py`` and ``kernels/winograd.py`` need fewer.
    """

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """C5 (B, C, h, w) and its pooled versions, fused: (B, channels, h, w)."""
        return self._convolve(self.bottleneck, [inputs[-1], *(pool(inputs[-1]) for pool in self.psp_modules)])

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """C2..C5 -> (B, channels, H / 4, W / 4)."""
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        laterals.append(self.psp_forward(inputs))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + self._resize(laterals[i], laterals[i - 1])
        outputs = [self._convolve(conv, [x]) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)]
        return self._convolve(self.fpn_bottleneck, [*outputs, laterals[-1]])

    @fused.conv_of_resized
    def _convolve(self, module: ConvModule, maps: Sequence[Tensor]) -> Tensor:
        """Apply ``module`` to the maps, resized to the first one's size and concatenated."""
        resized = [self._resize(x, maps[0]) for x in maps[1:]]
        return module(torch.cat([maps[0], *resized], dim=1) if resized else maps[0])

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=self.align_corners)
