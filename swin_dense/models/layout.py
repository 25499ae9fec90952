"""How feature maps lie in memory between a backbone and what consumes them."""

from torch import nn

from swin_dense.models.fpn import FPN
from swin_dense.models.swin import SwinTransformer
from swin_dense.models.uper_head import UPerHead


def connect(model: nn.Module) -> nn.Module:
    """Let our backbones return channels-last maps where our neck or head consumes them: it saves a copy.

    Other consumers get contiguous maps, because some of them call ``Tensor.view`` on channels.

    Args:
        model: a detector or segmentor of the hosts, or anything that has ``backbone`` beside ``neck`` or
            ``decode_head``.

    Returns:
        The model.
    """
    for part in model.modules():
        backbone = getattr(part, 'backbone', None)
        if isinstance(backbone, SwinTransformer):
            consumer = getattr(part, 'neck', None) or getattr(part, 'decode_head', None)
            backbone.channels_last = isinstance(consumer, (FPN, UPerHead))
    return model
