"""Child registries of scope ``swin_dense``.

``type='swin_dense.X'`` in any mmdet or mmseg config makes mmengine import this module and then the
modules in ``LOCATIONS``, so no config needs ``custom_imports``.
"""

from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

# the modules that register something, by the kind of registry
LOCATIONS = {
    'datasets': ['swin_dense.data.coco_dataset', 'swin_dense.data.panoptic_dataset'],
    'metrics': ['swin_dense.evaluate.online', 'swin_dense.evaluate.panoptic_metric'],
    'models': [
        'swin_dense.models.fpn',
        'swin_dense.models.preprocessors',
        'swin_dense.models.swin',
        'swin_dense.models.swin_v2',
        'swin_dense.models.uper_head',
        'swin_dense.models.winograd_conv',
    ],
    'optim_wrapper_constructors': ['swin_dense.engine.layer_decay'],
    'optim_wrappers': ['swin_dense.engine.amp'],
    'transforms': ['swin_dense.data.loading', 'swin_dense.data.panoptic_dataset'],
    'weight_initializers': ['swin_dense.checkpoints.pretrained'],
}


def _child(parent: Registry, kind: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='swin_dense', locations=LOCATIONS[kind])


DATASETS = _child(MMENGINE_DATASETS, 'datasets')
METRICS = _child(MMENGINE_METRICS, 'metrics')
MODELS = _child(MMENGINE_MODELS, 'models')
OPTIM_WRAPPER_CONSTRUCTORS = _child(MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, 'optim_wrapper_constructors')
OPTIM_WRAPPERS = _child(MMENGINE_OPTIM_WRAPPERS, 'optim_wrappers')
TRANSFORMS = _child(MMENGINE_TRANSFORMS, 'transforms')
WEIGHT_INITIALIZERS = _child(MMENGINE_WEIGHT_INITIALIZERS, 'weight_initializers')
