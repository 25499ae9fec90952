"""Feature pyramid network (Lin et al. 2017, section 3): C2..C5 in, P2..P5 and coarser levels out."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from swin_dense.models.winograd_conv import WinogradConv2d
from swin_dense.registry import MODELS

EXTRA_SOURCES = ('on_input', 'on_lateral', 'on_output')


@MODELS.register_module()
class FPN(BaseModule):
    """Top-down pyramid with lateral connections; parameters and outputs are those of mmdet's FPN.

    Args:
        in_channels: channels of each map of the backbone.
        out_channels: channels of every level of the pyramid.
        num_outs: levels to return; levels beyond those of the inputs are made from the coarsest.
        start_level: first input map to use.
        add_extra_convs: False subsamples the last output for the extra levels (Faster R-CNN);
            'on_input', 'on_lateral' or 'on_output' names the map from which strided 3x3 convolutions make
            them (RetinaNet, FCOS); True means 'on_input'.
        relu_before_extra_convs: ReLU before the second and later extra convolutions.
        norm_cfg: normalisation of every convolution, as in mmcv's ConvModule; None for none.
        init_cfg: initialisation of the weights.

    Raises:
        ValueError: levels that do not fit together.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        num_outs: int,
        start_level: int = 0,
        add_extra_convs: bool | str = False,
        relu_before_extra_convs: bool = False,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or {'type': 'Xavier', 'layer': 'Conv2d', 'distribution': 'uniform'})
        used = len(in_channels) - start_level
        if not 0 < used <= num_outs:
            raise ValueError(
                f'FPN: num_outs={num_outs} and start_level={start_level} do not fit '
                f'in_channels={list(in_channels)}'
            )
        if add_extra_convs is True:
            add_extra_convs = 'on_input'
        if add_extra_convs and add_extra_convs not in EXTRA_SOURCES:
            raise ValueError(f'FPN: add_extra_convs={add_extra_convs!r} is none of {EXTRA_SOURCES}')
        self.in_channels = list(in_channels)
        self.start_level = start_level
        self.num_outs = num_outs
        self.add_extra_convs = add_extra_convs
        self.relu_before_extra_convs = relu_before_extra_convs

        def conv(channels: int, kernel: int, stride: int = 1) -> ConvModule:
            return ConvModule(
                channels,
                out_channels,
                kernel_size=kernel,
                stride=stride,
                padding=kernel // 2,
                conv_cfg={'type': WinogradConv2d} if kernel == 3 else None,
                norm_cfg=norm_cfg,
                act_cfg=None,
            )

        self.lateral_convs = nn.ModuleList(conv(channels, 1) for channels in in_channels[start_level:])
        self.fpn_convs = nn.ModuleList(conv(out_channels, 3) for _ in range(used))
        if add_extra_convs:
            for i in range(num_outs - used):
                from_input = i == 0 and add_extra_convs == 'on_input'
                self.fpn_convs.append(conv(in_channels[-1] if from_input else out_channels, 3, stride=2))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            maps: C2..C5, each (B, in_channels[i], H / s_i, W / s_i), finest first.

        Returns:
            ``num_outs`` maps (B, out_channels, H / s, W / s), finest first.

        Raises:
            ValueError: maps whose channels are not ``in_channels``.
        """
        channels = [x.size(1) for x in maps]
        if channels != self.in_channels:
            raise ValueError(
                f'FPN: in_channels={self.in_channels}, but the backbone gives maps of {channels}'
            )
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps[self.start_level :], strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            finer = laterals[i - 1]
            laterals[i - 1] = finer + F.interpolate(laterals[i], size=finer.shape[2:], mode='nearest')
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=False)]
        return (*outputs, *self._extra_levels(maps[-1], laterals[-1], outputs[-1]))

    def _extra_levels(self, last_input: Tensor, last_lateral: Tensor, last_output: Tensor) -> list[Tensor]:
        used = len(self.lateral_convs)
        levels: list[Tensor] = []
        if not self.add_extra_convs:
            x = last_output
            for _ in range(self.num_outs - used):
                x = F.max_pool2d(x, 1, stride=2)
                levels.append(x)
            return levels
        sources = dict(zip(EXTRA_SOURCES, (last_input, last_lateral, last_output), strict=True))
        x = sources[self.add_extra_convs]
        for conv in self.fpn_convs[used:]:
            x = conv(F.relu(x) if levels and self.relu_before_extra_convs else x)
            levels.append(x)
        return levels
