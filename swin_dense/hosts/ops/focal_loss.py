"""Focal loss (RetinaNet, https://arxiv.org/abs/1708.02002, eq. 5) behind mmcv's interface.

mmdet takes mmcv's functions on a GPU and its own Python on the CPU.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import ops as torchvision_ops


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the loss of each (N, C) logit into ``output``.

    ``target`` (N,) is a class index, C for background; ``weight`` is (C,) or empty.
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
