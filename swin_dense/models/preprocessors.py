"""Normalisation of images with any number of channels, for mmdet; the preprocessor of mmseg takes any."""

from collections.abc import Sequence

from swin_dense import hosts

hosts.prepare()  # the host cannot be imported before this

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor as MMDetDataPreprocessor

from swin_dense.errors import UserError
from swin_dense.formats.label_maps import IGNORED
from swin_dense.registry import MODELS


@MODELS.register_module()
class DetDataPreprocessor(MMDetDataPreprocessor):
    """mmdet's DetDataPreprocessor for N channels: mmengine's accepts one or three.

    Args:
        mean, std: (N,) of each channel, in the order of the image.
        pad_size_divisor, pad_value, pad_mask, mask_pad_value, pad_seg, seg_pad_value, bgr_to_rgb,
            rgb_to_bgr, boxtype2tensor, non_blocking, batch_augments: as in mmdet.

    Raises:
        UserError: means and deviations differ in number, or a colour conversion is asked for with other than
            3 channels.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        pad_size_divisor: int = 1,
        pad_value: float = 0,
        pad_mask: bool = False,
        mask_pad_value: int = 0,
        pad_seg: bool = False,
        seg_pad_value: int = IGNORED,
        bgr_to_rgb: bool = False,
        rgb_to_bgr: bool = False,
        boxtype2tensor: bool = True,
        non_blocking: bool = False,
        batch_augments: list[dict] | None = None,
    ) -> None:
        if len(mean) != len(std):
            raise UserError(f'data_preprocessor: {len(mean)} values of mean, but {len(std)} of std')
        if (bgr_to_rgb or rgb_to_bgr) and len(mean) != 3:
            raise UserError(
                f'data_preprocessor: bgr_to_rgb and rgb_to_bgr are for 3 channels, and mean has {len(mean)}'
            )
        super().__init__(
            pad_size_divisor=pad_size_divisor,
            pad_value=pad_value,
            pad_mask=pad_mask,
            mask_pad_value=mask_pad_value,
            pad_seg=pad_seg,
            seg_pad_value=seg_pad_value,
            bgr_to_rgb=bgr_to_rgb,
            rgb_to_bgr=rgb_to_bgr,
            boxtype2tensor=boxtype2tensor,
            non_blocking=non_blocking,
            batch_augments=batch_augments,
        )
        self._enable_normalize = True
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(-1, 1, 1), False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Convert, normalise, pad and stack, as in mmdet.

        Raises:
            UserError: an image has more or fewer channels than there are means.
        """
        for image in data['inputs']:
            if image.shape[0] != len(self.mean):
                raise UserError(
                    f'data_preprocessor: mean has {len(self.mean)} values, images {image.shape[0]} channels'
                )
        return super().forward(data, training)
