"""mmcv's compiled operators without a compiler, by torchvision and torch.

``mmcv.ops`` loads its compiled functions from the module ``mmcv._ext``. ``mmcv-lite`` ships ``mmcv.ops`` but
not that module; ``extension()`` is a stand-in for it. Its functions take the arguments of
mmcv 2.1's and, like them, write into outputs that they are given.
"""

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

from swin_dense.hosts.ops import (
    boxes,
    deform_attention,
    deform_conv,
    deform_roi_pool,
    focal_loss,
    neighbourhoods,
    rois,
)

FUNCTIONS: tuple[Callable, ...] = (
    boxes.nms,
    boxes.softnms,
    boxes.nms_match,
    boxes.nms_rotated,
    boxes.box_iou_rotated,
    rois.roi_align_forward,
    rois.roi_align_backward,
    rois.roi_pool_forward,
    rois.roi_pool_backward,
    deform_roi_pool.deform_roi_pool_forward,
    deform_roi_pool.deform_roi_pool_backward,
    deform_conv.deform_conv_forward,
    deform_conv.deform_conv_backward_input,
    deform_conv.deform_conv_backward_parameters,
    deform_conv.modulated_deform_conv_forward,
    deform_conv.modulated_deform_conv_backward,
    deform_attention.ms_deform_attn_forward,
    deform_attention.ms_deform_attn_backward,
    neighbourhoods.carafe_naive_forward,
    neighbourhoods.carafe_naive_backward,
    neighbourhoods.carafe_forward,
    neighbourhoods.carafe_backward,
    neighbourhoods.psamask_forward,
    neighbourhoods.psamask_backward,
    neighbourhoods.masked_im2col_forward,
    neighbourhoods.masked_col2im_forward,
    focal_loss.sigmoid_focal_loss_forward,
    focal_loss.sigmoid_focal_loss_backward,
)


def extension() -> ModuleType:
    """A module to stand at ``mmcv._ext``: the functions above, and a clear error for any other name."""
    module = ModuleType('mmcv._ext', 'stand-in for the compiled extension of mmcv')
    # mmengine asks whether the extension exists by looking for its spec
    module.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin=__name__)
    for function in FUNCTIONS:
        setattr(module, function.__name__, function)

    def missing(name: str) -> Callable[..., None]:
        if name.startswith('__'):
            raise AttributeError(name)
        return _missing(name)

    module.__dict__['__getattr__'] = missing
    return module


def _missing(name: str) -> Callable[..., None]:
    def call(*args: object, **kwargs: object) -> None:
        raise NotImplementedError(
            f"{name} needs mmcv's compiled ops, and only mmcv-lite is installed: "
            f"pip uninstall mmcv-lite; pip install 'swin_dense[full]'"
        )

    call.__name__ = name
    return call
