"""The heads of every family get the classes of the data, and so do the weights of their losses."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from swin_dense.data.fields import head_classes, set_classes
from swin_dense.errors import UserError
from swin_dense.hosts.configs import stock_path

# the width of the classification at the end, and the extra class for 'no object' or background
FAMILIES = {
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py': ('panoptic_head.cls_embed', 1),
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py': ('decode_head.cls_embed', 1),
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': ('roi_head.bbox_head.fc_cls', 1),
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py': ('bbox_head.cls_branches.0', 0),
    'mmseg::upernet/upernet_r50_4xb2-40k_cityscapes-512x1024.py': ('decode_head.conv_seg', 0),
}


@pytest.mark.parametrize('family', FAMILIES)
def test_the_model_classifies_as_many(family: str):
    config = Config.fromfile(stock_path(family))
    set_classes(config.model, 3)
    assert head_classes(config.model) == {3}
    place, extra = FAMILIES[family]
    config.model.backbone.init_cfg = None
    config.model.pop('pretrained', None)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model)
    layer = model.get_submodule(place)
    assert len(layer.bias) == 3 + extra
    head = model.get_submodule(place.split('.')[0])
    weights = getattr(getattr(head, 'loss_cls', None), 'class_weight', None)
    if 'mask2former' in family:
        assert list(weights) == [1.0] * 3 + [0.1]


def test_weights_of_other_classes_are_one_line():
    """Weights that somebody chose for two classes say nothing about three."""
    loss = dict(type='CrossEntropyLoss', class_weight=[0.8, 1.2])
    model = dict(decode_head=dict(num_classes=2, loss_decode=loss))
    set_classes(model, 2)
    assert model['decode_head']['loss_decode']['class_weight'] == [0.8, 1.2], 'as many as before'
    with pytest.raises(UserError, match='different weights for 2 classes, and the data have 3'):
        set_classes(model, 3)
