"""Images that are more than 8-bit photographs, in the hosts' pipelines."""

from pathlib import Path

from mmcv.transforms import BaseTransform

from swin_dense.formats.pixels import read_image
from swin_dense.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Load an image of any number of channels and 8, 16 or 32 bits a value, in mmdet's and mmseg's pipelines.

    ``img_path`` in; ``img`` (H, W, C), ``img_shape`` and ``ori_shape`` out. 8-bit images stay uint8.
    Others become float32: 16-bit unsigned values are divided by 257, so that 65535 is 255; signed, 32-bit
    and floating-point values are kept as they are.

    Three channels are blue, green, red, as the hosts' LoadImageFromFile has them and their ``bgr_to_rgb``
    expects: gray, palette and CMYK images become such, and an alpha channel is dropped. Any other number
    of channels must be that of the file, and their order is the file's.

    Args:
        channels: C.

    Raises:
        UserError: the file is missing, broken, or of another number of channels.
    """

    def __init__(self, channels: int = 3) -> None:
        self.channels = channels

    def transform(self, results: dict) -> dict:
        """Add the image to a sample."""
        image = read_image(Path(results['img_path']), self.channels)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(channels={self.channels})'
