"""The imports that register our models under scope ``swin_dense``."""

from swin_dense import hosts

hosts.prepare()  # the hosts cannot be imported before this

from swin_dense.models.fpn import FPN  # noqa: E402
from swin_dense.models.preprocessors import DetDataPreprocessor  # noqa: E402
from swin_dense.models.swin import SwinTransformer  # noqa: E402
from swin_dense.models.swin_v2 import SwinTransformerV2  # noqa: E402
from swin_dense.models.uper_head import UPerHead  # noqa: E402
from swin_dense.models.winograd_conv import WinogradConv2d  # noqa: E402

__all__ = [
    'FPN',
    'DetDataPreprocessor',
    'SwinTransformer',
    'SwinTransformerV2',
    'UPerHead',
    'WinogradConv2d',
]
