"""The linear layer that the backbones are made of."""

from torch import Tensor, nn

from swin_dense.models import fused


class Linear(nn.Linear):
    """torch's linear layer, with its parameters and its results."""

    @fused.linear_layer
    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C_out)."""
        return super().forward(x)
