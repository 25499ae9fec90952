"""Operators over the neighbourhoods of cells: CARAFE, point-wise spatial attention and masked convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

COLLECT, DISTRIBUTE = 0, 1  # mmcv's psa_type


def carafe_naive_forward(
    features: Tensor, masks: Tensor, output: Tensor, kernel_size: int, group_size: int, scale_factor: int
) -> None:
    """CARAFE (https://arxiv.org/abs/1905.02188, eq. 2): write the reassembled features into ``output``.

    Args:
        features: (B, C, H, W).
        masks: (B, group_size * kernel_size ** 2, S * H, S * W), the kernels of each output cell.
        output: (B, C, S * H, S * W).
        kernel_size: side of the neighbourhood.
        group_size: groups of channels, each with kernels of its own.
        scale_factor: S.
    """
    padded = _padded(features, kernel_size)
    groups = _by_cell(output, group_size, scale_factor)
    kernels = _kernels(masks, group_size, kernel_size, scale_factor)
    total = torch.zeros_like(groups)
    for tap, shifted in enumerate(_taps(padded, features.shape, kernel_size, group_size)):
        total += shifted * kernels[:, :, tap]
    groups.copy_(total)


def carafe_naive_backward(
    top_grad: Tensor,
    features: Tensor,
    masks: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """Write the gradients of the features and the masks into ``bottom_grad`` and ``mask_grad``."""
    padded = _padded(features, kernel_size)
    padded_grad = torch.zeros_like(padded)
    grad = _by_cell(top_grad, group_size, scale_factor)
    kernels = _kernels(masks, group_size, kernel_size, scale_factor)
    kernel_grads = _kernels(mask_grad, group_size, kernel_size, scale_factor)
    taps = zip(
        _taps(padded, features.shape, kernel_size, group_size),
        _taps(padded_grad, features.shape, kernel_size, group_size),
        strict=True,
    )
    for tap, (shifted, shifted_grad) in enumerate(taps):
        shifted_grad += (grad * kernels[:, :, tap]).sum((4, 6), keepdim=True)
        kernel_grads[:, :, tap] = (grad * shifted).sum(2, keepdim=True)
    side = kernel_size // 2
    height, width = features.shape[2:]
    bottom_grad.copy_(padded_grad[:, :, side : side + height, side : side + width])


def carafe_forward(
    features: Tensor,
    masks: Tensor,
    rfeatures: Tensor,
    routput: Tensor,
    rmasks: Tensor,
    output: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As ``carafe_naive_forward``. ``rfeatures`` takes the features along to the backward pass."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(
    top_grad: Tensor,
    rfeatures: Tensor,
    masks: Tensor,
    rtop_grad: Tensor,
    rbottom_grad_hs: Tensor,
    rbottom_grad: Tensor,
    rmask_grad: Tensor,
    bottom_grad: Tensor,
    mask_grad: Tensor,
    kernel_size: int,
    group_size: int,
    scale_factor: int,
) -> None:
    """As ``carafe_naive_backward``."""
    carafe_naive_backward(
        top_grad, rfeatures, masks, bottom_grad, mask_grad, kernel_size, group_size, scale_factor
    )


def _padded(features: Tensor, kernel_size: int) -> Tensor:
    return F.pad(features, (kernel_size // 2,) * 4)


def _taps(padded: Tensor, shape: torch.Size, kernel_size: int, groups: int) -> list[Tensor]:
    """Views (B, groups, C / groups, H, 1, W, 1) of the padded map, one for each position in the kernel."""
    height, width = shape[2:]
    return [
        padded[:, :, i : i + height, j : j + width].unflatten(1, (groups, -1))[:, :, :, :, None, :, None]
        for i in range(kernel_size)
        for j in range(kernel_size)
    ]


def _by_cell(x: Tensor, groups: int, scale: int) -> Tensor:
    """(B, C, S * H, S * W) as (B, groups, C / groups, H, S, W, S)."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height // scale, scale, width // scale, scale)


def _kernels(masks: Tensor, groups: int, kernel_size: int, scale: int) -> Tensor:
    """(B, groups * K * K, S * H, S * W) as (B, groups, K * K, 1, H, S, W, S)."""
    return _by_cell(masks, groups, scale).unflatten(2, (kernel_size**2, 1))


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """PSANet (Point-wise Spatial Attention Network, section 3.2): lay attention masks over the map.

    Args:
        input: (B, h_mask * w_mask, H, W): each cell's attention to, or from, those around it.
        output: (B, H * W, H, W): to, or from, all cells of the map; 0 outside the mask.
        psa_type: ``COLLECT`` or ``DISTRIBUTE``.
        num_: B.
        h_feature: H.
        w_feature: W.
        h_mask: height of the mask.
        w_mask: width of the mask.
        half_h_mask: row of the mask that lies on the cell itself.
        half_w_mask: column of the mask that lies on the cell itself.
    """
    rows = _positions(h_feature, h_mask, half_h_mask, input)[:, None, :, None]  # of y, h
    columns = _positions(w_feature, w_mask, half_w_mask, input)[None, :, None, :]  # of x, w
    valid = (rows >= 0) & (columns >= 0)
    index = (rows * w_mask + columns).where(valid, 0).flatten(0, 1)
    for image, mask in zip(output, input, strict=True):
        attention = mask.gather(0, index) * valid.flatten(0, 1)
        image.copy_(attention if psa_type == COLLECT else _transposed(attention))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Write the gradient of the masks into ``grad_input``."""
    rows = _cells(h_feature, h_mask, half_h_mask, grad_output)[:, None, :, None]  # of mask row, h
    columns = _cells(w_feature, w_mask, half_w_mask, grad_output)[None, :, None, :]
    valid = (rows >= 0) & (columns >= 0)
    index = (rows * w_feature + columns).where(valid, 0).flatten(0, 1)
    for image, grad in zip(grad_input, grad_output, strict=True):
        attention = grad if psa_type == COLLECT else _transposed(grad)
        image.copy_(attention.gather(0, index) * valid.flatten(0, 1))


def _positions(size: int, mask: int, half: int, like: Tensor) -> Tensor:
    """Position in a mask that lies on cell w, of cell x: (x, w); -1 outside the mask."""
    cells = torch.arange(size, device=like.device)
    position = cells[:, None] - cells + half
    return position.where((position >= 0) & (position < mask), -1)


def _cells(size: int, mask: int, half: int, like: Tensor) -> Tensor:
    """Cell that position p of the mask of cell w lies on: (p, w); -1 outside the map."""
    cell = torch.arange(mask, device=like.device)[:, None] + torch.arange(size, device=like.device) - half
    return cell.where((cell >= 0) & (cell < size), -1)


def _transposed(attention: Tensor) -> Tensor:
    """(H * W, H, W) with the two cells exchanged."""
    return attention.flatten(1).T.view_as(attention)


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """im2col of some cells: write their neighbourhoods into ``col`` (C * kernel_h * kernel_w, cells).

    ``im`` is (1, C, H, W); the cells are given by row and column.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns[None]].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the columns (C, cells) into their cells of ``im`` (1, C, height, width)."""
    im[0, :, mask_h_idx, mask_w_idx] = col
