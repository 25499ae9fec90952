"""The deterministic forms against torch's own operations, which are deterministic on the CPU."""

from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swin_dense.engine.failures import as_user_errors
from swin_dense.engine.fixed_order import FORMS, FixedOrder
from swin_dense.engine.workers import WorkerWatch
from swin_dense.errors import FailedRunError
from swin_dense.kernels import roi_align


def both_ways(function: Callable[[Tensor], Tensor], x: Tensor) -> list[list[Tensor]]:
    """Result and gradient of torch's own operation, and in a fixed order."""
    results = []
    for mode in (None, FixedOrder()):
        leaf = x.clone().requires_grad_()
        if mode is None:
            y = function(leaf)
        else:
            with mode:
                y = function(leaf)
        results.append(
            [y, *torch.autograd.grad((y * torch.linspace(1, 2, y.numel()).view(y.shape)).sum(), leaf)]
        )
    return results


@pytest.mark.parametrize('wanted', [1, 2, 3, 6, (5, None), (40, 3)])
def test_adaptive_pooling(wanted: int | tuple[int | None, int | None]):
    x = torch.randn(2, 3, 17, 23, dtype=torch.float64)
    for theirs, ours in zip(*both_ways(nn.AdaptiveAvgPool2d(wanted), x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
@pytest.mark.parametrize('options', [{}, dict(weight=torch.rand(5).double()), dict(label_smoothing=0.1)])
def test_cross_entropy_of_maps(reduction: str, options: dict):
    x = torch.randn(2, 5, 7, 9, dtype=torch.float64)
    target = torch.randint(0, 5, (2, 7, 9))
    target[:, 2] = 255

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(x, target, reduction=reduction, ignore_index=255, **options)

    for theirs, ours in zip(*both_ways(loss, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_losses_and_pools_of_the_hosts_take_them():
    from mmseg.models.decode_heads.psp_head import PPM
    from mmseg.models.losses import CrossEntropyLoss

    seen = []
    spies = {key: lambda *args, key=key, **kwargs: seen.append(key) or key(*args, **kwargs) for key in FORMS}
    with patch.dict('swin_dense.engine.fixed_order.FORMS', spies), FixedOrder():
        PPM([1, 3], 4, 4, None, None, dict(type='ReLU'), False)(torch.randn(2, 4, 8, 8))
        CrossEntropyLoss()(torch.randn(2, 4, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
    assert seen == [F.adaptive_avg_pool2d] * 2 + [F.cross_entropy]


def test_roi_align_has_one_on_every_device():
    rois = torch.zeros(2, 5, device='meta')
    assert not roi_align.is_preferred(rois, 1.0)
    torch.use_deterministic_algorithms(True)
    try:
        with patch.object(Tensor, '__bool__', lambda x: True):  # a meta tensor has no values
            assert roi_align.is_preferred(rois, 1.0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_has_none_is_told_in_a_line():
    text = (
        "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set 'torch...'"
    )
    with pytest.raises(FailedRunError) as caught, as_user_errors({}, WorkerWatch()):
        raise RuntimeError(text)
    assert str(caught.value).startswith('grid_sampler_2d_backward_cuda of torch ')
    assert 'leave out randomness.deterministic' in str(caught.value)
    assert '\n' not in str(caught.value)
