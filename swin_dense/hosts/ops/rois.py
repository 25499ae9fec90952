"""Pooling of regions of interest: RoIAlign (mean and maximum), RoIPool and deformable RoI pooling."""

import torch
from torch import Tensor

from swin_dense.hosts.ops import bilinear
from swin_dense.kernels import roi_align
from swin_dense.kernels.precision import exact_dtype

MAXIMUM, MEAN = 0, 1  # mmcv's pool_mode
OUTSIDE = -1  # where no sample is the largest


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled (K, C, aligned_height, aligned_width) into ``output``.

    ``features`` is (B, C, H, W), ``rois`` (K, 5) as batch index, x1, y1, x2, y2. If ``pool_mode`` is
    ``MAXIMUM``, ``argmax_*``, of the shape of ``output``, receive the position of the largest sample.
    """
    exact = exact_dtype(features)
    maps, rois, size = features.to(exact), rois.to(exact), (aligned_height, aligned_width)
    if pool_mode == MAXIMUM:
        for k, roi in enumerate(rois):
            output[k], argmax_x[k], argmax_y[k] = _largest(
                maps[int(roi[0])], roi, size, spatial_scale, sampling_ratio, aligned
            )
    elif roi_align.is_preferred(rois, spatial_scale):
        output.copy_(roi_align.forward(maps, rois, size, spatial_scale, sampling_ratio, aligned))
    else:
        output.copy_(
            torch.ops.torchvision.roi_align(maps, rois, spatial_scale, *size, sampling_ratio, aligned)
        )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient with respect to the features into ``grad_input`` (B, C, H, W)."""
    exact = exact_dtype(grad_output)
    grad_output, rois, shape = grad_output.to(exact), rois.to(exact), grad_input.shape
    if pool_mode == MAXIMUM:
        around = bilinear.corners(argmax_x.to(exact), argmax_y.to(exact), *shape[2:])
        sampled = argmax_y != OUTSIDE
        grad = _scatter(grad_output, rois, around.cells, around.weights * sampled, shape)
    elif roi_align.is_preferred(rois, spatial_scale):
        grad = roi_align.backward(grad_output, rois, shape, spatial_scale, sampling_ratio, aligned)
    else:
        grad = torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *shape,
            sampling_ratio,
            aligned,
        )
    grad_input.copy_(grad)


def _largest(
    features: Tensor, roi: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest sample of each bin of a RoI, (C, *size), and its x and y; of equal ones the first."""
    x, y = bilinear.grid(*bilinear.start_and_side(roi, scale, aligned), size, sampling_ratio)
    shape = (len(features), *size)
    if x.size(1) == 0:  # a RoI without any area; mmcv's own value
        lowest = features.new_full(shape, torch.finfo(torch.float32).min)
        return lowest, torch.full_like(lowest, OUTSIDE), torch.full_like(lowest, OUTSIDE)
    cells = features.flatten(1)
    largest = [
        bilinear.sample(cells, bilinear.corners(x[part], y[part], *features.shape[1:])).max(2)
        for part in bilinear.parts(x, len(features))
    ]
    pooled = torch.cat([values for values, _ in largest], 1)
    index = torch.cat([indices for _, indices in largest], 1)
    left, top = (axis.expand(len(features), -1, -1).gather(2, index[..., None]) for axis in (x, y))
    return pooled.view(shape), left.view(shape), top.view(shape)


def _scatter(values: Tensor, rois: Tensor, cells: Tensor, weights: Tensor, shape: torch.Size) -> Tensor:
    """Add up values (K, C, h, w), times the weights (4, K, C, h, w), in cells of maps of ``shape``."""
    batch, channels, height, width = shape
    planes = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    total = values.new_zeros(batch * channels * height * width)
    for cell, weight in zip(cells, weights, strict=True):
        index = planes[..., None, None] * (height * width) + cell
        total.index_add_(0, index.flatten(), (values * weight).flatten())
    return total.view(shape)


def roi_pool_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """RoIPool (Fast R-CNN, section 2.1): write the largest cell of each bin into ``output``.

    The bins are mmcv's, which differ from torchvision's: the last pixel belongs to the RoI, and only the
    borders of the bins are rounded, outwards.

    Args:
        features: (B, C, H, W).
        rois: (K, 5) as batch index, x1, y1, x2, y2.
        output: (K, C, pooled_height, pooled_width); an empty bin keeps 0.
        argmax: of the same shape, receives the index of the cell in its map; -1 for an empty bin.
        pooled_height: bins.
        pooled_width: bins.
        spatial_scale: size of the map over the size of the image.
    """
    height, width = features.shape[2:]
    argmax.fill_(-1)
    for k, roi in enumerate(rois.to(exact_dtype(rois)).tolist()):
        x1, y1, x2, y2 = (side * spatial_scale for side in (*roi[1:3], roi[3] + 1, roi[4] + 1))
        if x2 <= x1 or y2 <= y1:
            continue
        columns = _bins(x1, x2, pooled_width, width, features)
        rows = _bins(y1, y2, pooled_height, height, features)
        cells = rows[:, None, :, None] * width + columns[None, :, None, :]
        valid = (rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]
        cells, valid = cells.flatten(2), valid.flatten(2)
        if not valid.any():
            continue
        values = features[int(roi[0])].flatten(1)[:, cells.clamp(min=0)]
        pooled, index = values.masked_fill(~valid, -torch.inf).max(3)
        where = cells.expand_as(values).gather(3, index[..., None])[..., 0]
        some = valid.any(2)
        output[k] = torch.where(some, pooled, 0)
        argmax[k] = torch.where(some, where, -1)


def _bins(start: float, stop: float, count: int, size: int, like: Tensor) -> Tensor:
    """The cells of each bin along one side: (count, most cells of a bin), -1 after the last one."""
    # the borders in the precision of the map's values, as in mmcv
    start_, side = torch.tensor([start, stop - start], dtype=exact_dtype(like))
    borders = torch.arange(count + 1) * (side / count) + start_
    first = borders[:-1].floor().clamp(0, size).long()
    last = borders[1:].ceil().clamp(0, size).long()
    cells = first[:, None] + torch.arange(max(int((last - first).max()), 0))
    return torch.where(cells < last[:, None], cells, -1).to(like.device)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Write the gradient with respect to the features into ``grad_input`` (B, C, H, W)."""
    weights = (argmax >= 0).to(grad_output)
    cells = argmax.clamp(min=0).long()
    grad_input.copy_(_scatter(grad_output, rois, cells[None], weights[None], grad_input.shape))
