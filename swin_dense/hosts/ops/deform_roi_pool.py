"""Deformable RoI pooling (Deformable ConvNets, section 2.2): RoIAlign whose bins are moved by offsets."""

from torch import Tensor

from swin_dense.hosts.ops import bilinear
from swin_dense.kernels.precision import exact_dtype


def deform_roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    output: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Write the mean of the samples of each moved bin into ``output``.

    Args:
        input: (B, C, H, W).
        rois: (K, 5) as batch index, x1, y1, x2, y2.
        offset: (K, 2, pooled_height, pooled_width), along x and y; or empty, for none.
        output: (K, C, pooled_height, pooled_width).
        pooled_height: bins.
        pooled_width: bins.
        spatial_scale: size of the map over the size of the image.
        sampling_ratio: samples of a bin in each direction; 0 for one for each cell, rounded up.
        gamma: an offset of 1 moves a bin by this times the side of its RoI.
    """
    maps, rois, offset = (tensor.to(exact_dtype(input)) for tensor in (input, rois, offset))
    size = (pooled_height, pooled_width)
    for k, roi in enumerate(rois):
        features = maps[int(roi[0])]
        x, y, _ = _moved(roi, offset[k] if len(offset) else None, size, spatial_scale, sampling_ratio, gamma)
        for part in bilinear.parts(x, len(features)):
            samples = bilinear.sample(
                features.flatten(1), bilinear.corners(x[part], y[part], *features.shape[1:])
            )
            output[k].flatten(1)[:, part] = samples.sum(2) / max(x.size(1), 1)


def deform_roi_pool_backward(
    grad_output: Tensor,
    input: Tensor,
    rois: Tensor,
    offset: Tensor,
    grad_input: Tensor,
    grad_offset: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    gamma: float,
) -> None:
    """Add the gradients of features (B, C, H, W) and offsets to ``grad_input`` and ``grad_offset``."""
    exact = exact_dtype(input)
    maps, rois, offset = (tensor.to(exact) for tensor in (input, rois, offset))
    size = (pooled_height, pooled_width)
    total, moves = grad_input.to(exact).flatten(2), grad_offset.to(exact)
    for k, roi in enumerate(rois):
        image = int(roi[0])
        height, width = maps.shape[2:]
        features, grad = maps[image].flatten(1), grad_output[k].to(exact).flatten(1)
        x, y, side = _moved(
            roi, offset[k] if len(offset) else None, size, spatial_scale, sampling_ratio, gamma
        )
        for part in bilinear.parts(x, len(features)):
            around = bilinear.corners(x[part], y[part], height, width)
            of_sample = (grad[:, part] / max(x.size(1), 1))[..., None]
            for cells, weights, slopes in zip(*around, strict=True):
                total[image].index_add_(1, cells.flatten(), (of_sample * weights).flatten(1))
                if len(offset):
                    along = (of_sample * features[:, cells]).sum(0)[..., None] * slopes
                    moves[k].flatten(1)[:, part] += gamma * side[:, None] * along.sum(1).T
    grad_input.copy_(total.view_as(grad_input))
    grad_offset.copy_(moves)


def _moved(
    roi: Tensor,
    offset: Tensor | None,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    gamma: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """x and y (bins, samples) of a RoI's samples after its bins were moved, and its size (2,)."""
    start, side = bilinear.start_and_side(roi, scale, aligned=True)
    x, y = bilinear.grid(start, side, size, sampling_ratio)
    if offset is not None:
        shift = gamma * side[:, None] * offset.flatten(1)
        x, y = x + shift[0, :, None], y + shift[1, :, None]
    return x, y, side
