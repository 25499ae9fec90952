"""NMS, RoIAlign and focal loss without a compiler, behind the interface of mmcv's extension.

``mmcv.ops`` loads its compiled functions from the module ``mmcv._ext``. ``mmcv-lite`` ships
``mmcv.ops`` but not that module; ``extension()`` is a stand-in for it. Signatures (argument order,
in-place outputs) are those that mmcv 2.1's Python side calls.
"""

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as torchvision_ops

from swin_dense.kernels import roi_align

AVERAGE = 1  # mmcv's pool_mode: 0 max, 1 average


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the kept boxes, by falling score.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2 in pixels.
        scores: (N,).
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        offset: 1 counts the last pixel as part of the box, so widths are x2 - x1 + 1.
    """
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    return torchvision_ops.nms(boxes.float(), scores.float(), iou_threshold)


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

    ``features`` is (B, C, H, W), ``rois`` (K, 5) as batch index, x1, y1, x2, y2. ``argmax_*`` belong
    to max pooling, which torchvision does not have.
    """
    _require_average(pool_mode)
    exact = _compute_dtype(features)
    features, rois, size = features.to(exact), rois.to(exact), (aligned_height, aligned_width)
    if roi_align.is_preferred(rois, spatial_scale):
        pooled = roi_align.forward(features, rois, size, spatial_scale, sampling_ratio, aligned)
    else:
        pooled = torch.ops.torchvision.roi_align(
            features, rois, spatial_scale, *size, sampling_ratio, aligned
        )
    output.copy_(pooled)


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
    _require_average(pool_mode)
    exact = _compute_dtype(grad_output)
    grad_output, rois, shape = grad_output.to(exact), rois.to(exact), grad_input.shape
    if roi_align.is_preferred(rois, spatial_scale):
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


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss (RetinaNet, eq. 5) of each (N, C) logit into ``output``.

    ``target`` (N,) is a class index, C for background; ``weight`` is (C,) or empty.
    mmdet takes this function on a GPU and its own Python on the CPU.
    """
    output.copy_(_focal_loss(logits, target, weight, gamma, alpha))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write d loss / d logits (N, C) into ``grad_input``."""
    with torch.enable_grad():
        variable = logits.detach().requires_grad_()
        loss = _focal_loss(variable, target, weight, gamma, alpha).sum()
    grad_input.copy_(torch.autograd.grad(loss, variable)[0])


def _focal_loss(logits: Tensor, target: Tensor, weight: Tensor, gamma: float, alpha: float) -> Tensor:
    classes = logits.size(1)
    one_hot = F.one_hot(target, classes + 1)[:, :classes].to(logits.dtype)
    loss = torchvision_ops.sigmoid_focal_loss(logits, one_hot, alpha=alpha, gamma=gamma)
    if weight.numel():
        # a background row has no class weight of its own: 1
        loss = loss * torch.cat([weight, weight.new_ones(1)])[target].unsqueeze(1)
    return loss


def _compute_dtype(x: Tensor) -> torch.dtype:
    # in bf16 a coordinate of 800 pixels would be off by up to 2 of them
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise NotImplementedError(
            "RoIAlign with pool_mode='max' needs mmcv's compiled ops: pip install 'swin_dense[full]'"
        )


def _missing(name: str) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"{name} needs mmcv's compiled ops, and only mmcv-lite is installed: "
            f"pip uninstall mmcv-lite; pip install 'swin_dense[full]'"
        )

    call.__name__ = name
    return call


def extension() -> ModuleType:
    """A module to stand at ``mmcv._ext``: the functions above, and a clear error for any other name."""
    module = ModuleType('mmcv._ext', 'torchvision-backed stand-in for the compiled extension of mmcv')
    # mmengine asks whether the extension exists by looking for its spec
    module.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin=__name__)
    provided = (
        nms,
        roi_align_forward,
        roi_align_backward,
        sigmoid_focal_loss_forward,
        sigmoid_focal_loss_backward,
    )
    for function in provided:
        setattr(module, function.__name__, function)

    def missing(name: str) -> Callable[..., None]:
        if name.startswith('__'):
            raise AttributeError(name)
        return _missing(name)

    module.__dict__['__getattr__'] = missing
    return module
