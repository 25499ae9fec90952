"""Single blocks with random weights, and the path that every device takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor, nn

from swin_dense.models import blocked, blocked_training
from swin_dense.models.attention import WindowAttention, WindowAttentionV2
from swin_dense.models.swin import SwinBlock
from swin_dense.models.swin_v2 import SwinBlockV2
from tests.references.swin_weights import randomise

DIM = 8
VERSIONS = {'v1': SwinBlock, 'v2': SwinBlockV2}


@contextmanager
def plain_path() -> Iterator[None]:
    """Within, blocks compute what they compute on other devices, under autocast and when compiled."""
    with (
        mock.patch.object(blocked, 'serves', return_value=False),
        mock.patch.object(blocked_training, 'serves', return_value=False),
    ):
        yield


def block_of(
    version: str,
    window: int = 7,
    shifted: bool = True,
    num_heads: int = 2,
    qkv_bias: bool = True,
    drop: float = 0.0,
    attn_drop: float = 0.0,
    drop_path: float = 0.0,
) -> SwinBlock:
    """A block of ``DIM`` channels with ``randomise``d weights, in double precision and evaluation mode."""
    attention, extra = (WindowAttention, ()) if version == 'v1' else (WindowAttentionV2, (True,))
    attn = attention(DIM, window, num_heads, qkv_bias, attn_drop, drop)
    block = VERSIONS[version](DIM, attn, shifted, 2.0, drop, drop_path, *extra).double().eval()
    randomise(block)
    return block


def inner_modules(block: nn.Module) -> list[str]:
    """The names of the modules that the block calls: all but v2's qkv, of which it takes the weight."""
    unused = ['attn.qkv'] if isinstance(block, SwinBlockV2) else []
    return [name for name, _ in block.named_modules() if name and name not in unused]


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value of the reference."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
