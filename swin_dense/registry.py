"""Child registries of scope ``swin_dense``.

``type='swin_dense.X'`` in any mmdet or mmseg config makes mmengine import this module and then the
``locations`` named here, so no config needs ``custom_imports``. One child per family that we use.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

MODELS = Registry('model', parent=MMENGINE_MODELS, scope='swin_dense', locations=['swin_dense.models'])
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope='swin_dense',
    locations=['swin_dense.checkpoints'],
)
OPTIM_WRAPPERS = Registry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='swin_dense', locations=['swin_dense.engine.amp']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='swin_dense', locations=['swin_dense.data.loading']
)
METRICS = Registry(
    'metric', parent=MMENGINE_METRICS, scope='swin_dense', locations=['swin_dense.evaluate.online']
)
DATASETS = Registry(
    'dataset', parent=MMENGINE_DATASETS, scope='swin_dense', locations=['swin_dense.data.coco_dataset']
)
