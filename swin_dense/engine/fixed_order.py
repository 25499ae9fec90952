"""Operations that have no deterministic form on a GPU in torch, by others that have one.

In torch's deterministic mode, adaptive pooling (mmseg's pyramid pooling) and the cross entropy of maps (its
losses) raise an error on CUDA: their kernels add in the order in which threads come. As products with small
matrices, and as the cross entropy of rows, they are the same up to rounding, and the same in every run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FixedOrder(TorchFunctionMode):
    """``with FixedOrder(): ...`` takes the forms of this file; RoIAlign has its own in ``hosts.ops``."""

    def __torch_function__(
        self,
        function: Callable[..., Tensor],
        types: Sequence[type],
        args: tuple = (),
        kwargs: dict | None = None,
    ) -> Tensor:
        form: Any = FORMS.get(function, function)
        return form(*args, **(kwargs or {}))


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = 'mean',
    label_smoothing: float = 0.0,
) -> Tensor:
    """``torch.nn.functional.cross_entropy``, of maps (B, C, ...) as of rows (B * ..., C)."""
    is_map = input.dim() > 2 and not target.is_floating_point()
    rows = input.movedim(1, -1).flatten(0, -2) if is_map else input
    classes = target.flatten() if is_map else target
    loss = F.cross_entropy(
        rows, classes, weight, size_average, ignore_index, reduce, reduction, label_smoothing
    )
    return loss.view(target.shape) if is_map and loss.dim() else loss


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None]) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool2d`` of (..., H, W), as products with two matrices of means."""
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows, columns = (
        _means(size, size if wanted is None else wanted, input)
        for size, wanted in zip(input.shape[-2:], sizes, strict=True)
    )
    with torch.autocast(input.device.type, enabled=False):
        return (rows @ input.to(rows.dtype) @ columns.T).to(input.dtype)


def _means(size: int, bins: int, like: Tensor) -> Tensor:
    """(bins, size): bin i is the mean of floor(i * size / bins) to ceil((i + 1) * size / bins)."""
    number = torch.arange(bins, device=like.device)[:, None]
    place = torch.arange(size, device=like.device)
    first, stop = number * size // bins, -(-(number + 1) * size // bins)
    inside = (place >= first) & (place < stop)
    return inside.to(torch.promote_types(like.dtype, torch.float32)) / (stop - first)


FORMS = {F.cross_entropy: cross_entropy, F.adaptive_avg_pool2d: adaptive_avg_pool2d}
