"""UPerHead (Xiao et al. 2018), as mmseg's, with fewer multiplications in its 3x3 convolutions."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmseg.models.decode_heads import UPerHead as MMSegUPerHead
from torch import Tensor, nn
from torch.nn import functional as F

from swin_dense.kernels.blocked import has_hooks
from swin_dense.kernels.linear import is_eager_on_cpu
from swin_dense.kernels.resized_conv import conv_of_resized
from swin_dense.registry import MODELS


@MODELS.register_module()
class UPerHead(MMSegUPerHead):
    """mmseg's UPerHead: the same arguments, parameters and outputs, with fewer products.

    At 512x512 two thirds of UPerNet Swin-T's multiplications are the convolution that fuses the four
    levels of the pyramid, three of them enlarged 2, 4 and 8 times, and most of the others those of the
    levels; see ``resized_conv.py`` and ``winograd.py``. That is where it was measured to be faster, on the
    CPU; elsewhere the maps are enlarged and convolved.
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

    def _convolve(self, module: ConvModule, maps: Sequence[Tensor]) -> Tensor:
        """The maps, resized to the first one's size, side by side through ``module``."""
        if not (is_eager_on_cpu(maps[0]) and maps[0].numel() and _is_plain(module)):
            resized = [self._resize(x, maps[0]) for x in maps[1:]]
            return module(torch.cat([maps[0], *resized], dim=1) if resized else maps[0])
        x = conv_of_resized(maps, module.conv.weight, self.align_corners)
        if module.conv.bias is not None:
            x = x + module.conv.bias.view(-1, 1, 1)
        if module.with_norm:
            x = module.norm(x)
        return module.activate(x) if module.with_activation else x

    def _resize(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[2:], mode='bilinear', align_corners=self.align_corners)


def _is_plain(module: ConvModule) -> bool:
    """Whether it is as ``conv_cfg=None`` makes it: a convolution that keeps sizes, a norm, an activation."""
    conv = module.conv
    return (
        type(conv) is nn.Conv2d
        and module.order == ('conv', 'norm', 'act')
        and not module.with_explicit_padding
        and (conv.padding_mode, conv.groups, conv.stride, conv.dilation) == ('zeros', 1, (1, 1), (1, 1))
        and conv.padding == (conv.kernel_size[0] // 2, conv.kernel_size[1] // 2)
        and not has_hooks(module)
        and not has_hooks(conv)
    )
