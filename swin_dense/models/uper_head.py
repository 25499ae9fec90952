"""UPerHead (Xiao et al. 2018), as mmseg's, with its fusing convolutions at their inputs' own resolution."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from torch import Tensor, nn
from torch.nn import functional as F

from swin_dense.models.blocked import has_hooks, is_eager_on_cpu
from swin_dense.models.resized_conv import conv_of_resized
from swin_dense.registry import MODELS


@MODELS.register_module()
class UPerHead(MMSegUPerHead):
    """mmseg's UPerHead: the same arguments, parameters and outputs, with fewer products in the fusion.

    At 512x512 two thirds of UPerNet Swin-T's multiplications are the convolution that fuses the four
    levels of the pyramid, three of them enlarged 2, 4 and 8 times; see ``resized_conv.py``. That is where
    it was measured to be faster, on the CPU; elsewhere the enlarged maps are convolved.
    """

    def psp_forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """C5 (B, C, h, w) and its pooled versions, fused: (B, channels, h, w)."""
        return self._fuse(self.bottleneck, [inputs[-1], *(pool(inputs[-1]) for pool in self.psp_modules)])

    def _forward_feature(self, inputs: Sequence[Tensor]) -> Tensor:
        """C2..C5 -> (B, channels, H / 4, W / 4)."""
        inputs = self._transform_inputs(inputs)
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs[:-1], strict=True)]
        laterals.append(self.psp_forward(inputs))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + self._resize(laterals[i], laterals[i - 1])
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)]
        return self._fuse(self.fpn_bottleneck, [*outputs, laterals[-1]])

    def _fuse(self, fusion: ConvModule, maps: Sequence[Tensor]) -> Tensor:
        """The maps, resized to the first one's size, side by side through ``fusion``."""
        if not (is_eager_on_cpu(maps[0]) and maps[0].numel() and _is_plain(fusion)):
            return fusion(torch.cat([maps[0], *(self._resize(x, maps[0]) for x in maps[1:])], dim=1))
        x = conv_of_resized(maps, fusion.conv.weight, self.align_corners)
        if fusion.conv.bias is not None:
            x = x + fusion.conv.bias.view(-1, 1, 1)
        if fusion.with_norm:
            x = fusion.norm(x)
        return fusion.activate(x) if fusion.with_activation else x

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=self.align_corners)


def _is_plain(module: ConvModule) -> bool:
    """Whether it is what ``conv_cfg=None`` makes: a convolution, then a norm, then an activation."""
    conv = module.conv
    return (
        type(conv) is nn.Conv2d
        and module.order == ('conv', 'norm', 'act')
        and not module.with_explicit_padding
        and (conv.padding_mode, conv.dilation) == ('zeros', (1, 1))
        and not has_hooks(module)
        and not has_hooks(conv)
    )
