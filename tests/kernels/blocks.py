"""Single blocks with random weights, and the path that every device takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor, nn

from swin_dense.models import fused
from swin_dense.models.attention import WindowAttention, WindowAttentionV2
from swin_dense.models.swin import SwinBlock
from swin_dense.models.swin_v2 import SwinBlockV2
from tests.references.swin_weights import randomise

DIM = 8
VERSIONS = {'v1': SwinBlock, 'v2': SwinBlockV2}

BLOCKS = [
    # size of the map, arguments of the block
    ((1, 14, 21), dict()),
    ((1, 14, 21), dict(shifted=False)),
    ((1, 14, 27), dict()),  # few pads
    ((3, 8, 15), dict()),
    ((3, 9, 13), dict(shifted=False)),
    ((2, 1, 1), dict()),
    ((2, 3, 40), dict(qkv_bias=False)),
    ((1, 40, 3), dict(num_heads=1)),
    ((3, 9, 5), dict(window=2)),
]


@contextmanager
def plain_path() -> Iterator[None]:
    """Within, blocks compute what they compute on other devices, under autocast and when compiled."""
    with (
        mock.patch.object(fused, 'suits_inference', return_value=False),
        mock.patch.object(fused, 'suits_training', return_value=False),
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
    attention = WindowAttention if version == 'v1' else WindowAttentionV2
    attn = attention(DIM, window, num_heads, qkv_bias, attn_drop, drop)
    block = VERSIONS[version](DIM, attn, shifted, 2.0, drop, drop_path)
    if isinstance(block, SwinBlockV2):
        block.add_norm()
    block.double().eval()
    randomise(block)
    return block


def inner_modules(block: nn.Module) -> list[str]:
    """The names of the modules inside the block."""
    return [name for name, _ in block.named_modules() if name]


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference over the largest value of the reference."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
