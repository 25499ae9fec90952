"""Load pretrained weights into a backbone, through mmengine's ``init_cfg``."""

from mmengine.logging import print_log
from torch import nn

from swin_dense.checkpoints.files import fetch, read_checkpoint, state_dict
from swin_dense.checkpoints.load import load_weights
from swin_dense.console.terminal import say
from swin_dense.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a Swin backbone from the file of a classifier, a backbone or a whole detector.

    Bias tables, position embeddings and the patch embedding are resized to the model's windows, images
    and channels. A report of the loaded tensors goes to the terminal and into the log.

    Args:
        checkpoint: path or http(s) address of a ``.pth``, ``.pt``, ``.bin`` or ``.safetensors`` file.
        partial: allow weights of the backbone to be missing. Its output norms may always be missing:
            classifiers do not have them.

    Raises:
        UserError: the file cannot be read, does not fit the model, or lacks weights.
    """

    def __init__(self, checkpoint: str, partial: bool = False) -> None:
        self.checkpoint = checkpoint
        self.partial = partial

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``."""
        tensors = state_dict(read_checkpoint(fetch(self.checkpoint), mapped=True))
        report = load_weights(module, tensors, self.checkpoint, adapt=True, partial=self.partial)
        for line in report.lines():
            say(line)
            print_log(line, logger='current')
