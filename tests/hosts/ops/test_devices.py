"""Tensors that an op makes lie on the device of its inputs: shown on fake CUDA tensors, which need no GPU.

torch's engine of gradients does not start without a GPU, so backward functions are called by themselves.
"""

from collections.abc import Callable

import mmcv.ops
import pytest
import torch
from mmcv.ops.carafe import carafe
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from swin_dense import hosts
from swin_dense.hosts.ops import deform_conv as deform_conv_ops
from swin_dense.hosts.ops import neighbourhoods
from swin_dense.kernels import deformable_attention

pytestmark = pytest.mark.skipif(hosts.prepare() == 'mmcv', reason="mmcv's compiled ops are installed")
SIZES = ((4, 5), (2, 3))


def made(*shape: int) -> Tensor:
    return torch.empty(shape, device='cuda', requires_grad=True)


def deform_conv() -> tuple[Tensor, ...]:
    given = made(2, 4, 6, 6), made(2, 18, 6, 6), made(3, 4, 3, 3)
    return mmcv.ops.deform_conv2d(*given, 1, 1), *given


def modulated_deform_conv() -> tuple[Tensor, ...]:
    given = made(2, 4, 6, 6), made(2, 18, 6, 6), made(2, 9, 6, 6), made(3, 4, 3, 3), made(3)
    return mmcv.ops.modulated_deform_conv2d(*given, 1, 1), *given


def attention() -> tuple[Tensor, ...]:
    given = made(2, 26, 2, 8), made(2, 7, 2, 2, 3, 2), made(2, 7, 2, 2, 3)
    return deformable_attention.deformable_attention(given[0], SIZES, *given[1:]), *given


def reassembly() -> tuple[Tensor, ...]:
    given = made(2, 4, 3, 4), made(2, 9, 6, 8)
    return carafe(*given, 3, 1, 2), *given


def spatial_attention() -> tuple[Tensor, ...]:
    masks = made(2, 15, 4, 5)
    return mmcv.ops.PSAMask('collect', (3, 5))(masks), masks


def focal_loss() -> tuple[Tensor, ...]:
    logits = made(6, 3)
    target = torch.zeros(6, dtype=torch.long, device='cuda')
    return mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none'), logits


@pytest.mark.parametrize(
    'op', [deform_conv, modulated_deform_conv, attention, reassembly, spatial_attention, focal_loss]
)
def test_outputs_are_on_the_gpu(op: Callable[[], tuple[Tensor, ...]]):
    with FakeTensorMode():
        output, *_ = op()
    assert output.device.type == 'cuda'


def test_gradients_of_convolutions_and_neighbourhoods_are_on_the_gpu():
    with FakeTensorMode(), torch.no_grad():
        x, offset, mask, weight = made(2, 4, 6, 6), made(2, 18, 6, 6), made(2, 9, 6, 6), made(3, 4, 3, 3)
        grads = [torch.empty_like(tensor) for tensor in (x, weight, made(3), offset, mask)]
        inputs = (x, weight, made(3), made(0), offset, mask, made(0))
        numbers = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1, True)
        deform_conv_ops.modulated_deform_conv_backward(*inputs, *grads, made(2, 3, 6, 6), *numbers)
        columns = torch.empty(0, device='cuda')
        deform_conv_ops.deform_conv_backward_input(
            x, offset, made(2, 3, 6, 6), grads[0], grads[3], weight, columns, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 2
        )
        assert columns.device.type == 'cuda'
        features, masks = made(2, 4, 3, 4), made(2, 9, 6, 8)
        neighbourhoods.carafe_naive_backward(
            made(2, 4, 6, 8), features, masks, torch.empty_like(features), torch.empty_like(masks), 3, 1, 2
        )
        neighbourhoods.psamask_backward(made(2, 20, 4, 5), made(2, 15, 4, 5), 1, 2, 4, 5, 3, 5, 1, 2)
