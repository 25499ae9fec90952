"""Load pretrained weights into a backbone, through mmengine's ``init_cfg``."""

from mmengine.logging import print_log
from torch import nn

from swin_dense.checkpoints.files import fetch, read, state_dict
from swin_dense.errors import UserError
from swin_dense.registry import WEIGHT_INITIALIZERS

# Files hold these although they follow from sizes alone.
DERIVED = ('relative_position_index', 'attn_mask')


@WEIGHT_INITIALIZERS.register_module()
class Pretrained:
    """Initialise a Swin backbone from a file with Microsoft's parameter names.

    Args:
        checkpoint: path or http(s) address of a ``.pth`` or ``.safetensors`` file: a classifier of
            Microsoft's, or a whole detector or segmentor whose backbone is taken.

    Raises:
        UserError: the file cannot be read, or lacks a weight of the backbone. Only the output norms
            and an absent classifier may differ.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def __call__(self, module: nn.Module) -> None:
        """Load the weights into ``module``."""
        found = state_dict(read(fetch(self.checkpoint)))
        if any(key.startswith('backbone.') for key in found):
            found = {k.removeprefix('backbone.'): v for k, v in found.items() if k.startswith('backbone.')}
        wanted = module.state_dict()
        matched = {key: found[key] for key in wanted if key in found}
        wrong = [key for key, value in matched.items() if value.shape != wanted[key].shape]
        if wrong:
            key = wrong[0]
            raise UserError(
                f'checkpoint {self.checkpoint}: {key} is {tuple(matched[key].shape)}, but the model needs '
                f'{tuple(wanted[key].shape)} ({len(wrong)} tensors of {len(wanted)} differ in shape)'
            )
        output_norms = tuple(f'norm{i}.' for i in range(4))
        missing = [key for key in wanted if key not in found and not key.startswith(output_norms)]
        if missing:
            raise UserError(
                f'checkpoint {self.checkpoint} lacks {len(missing)} of the {len(wanted)} weights of '
                f'{type(module).__name__}, {missing[0]} first'
            )
        module.load_state_dict(matched, strict=False)
        unused = [key for key in found if key not in wanted and not key.endswith(DERIVED)]
        print_log(
            f'{self.checkpoint}: {len(matched)} of {len(wanted)} tensors loaded, '
            f'{len(unused)} of the file not used {unused[:4]}',
            logger='current',
        )
