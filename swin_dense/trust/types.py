"""Which ``type`` a config that came from somebody else may name. Nothing is imported to find out."""

import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, Registry, root

from swin_dense.registry import LOCATIONS

# whose import registers, beside the hosts' own packages
OURS = ('mmengine.optim', 'mmengine.runner', *itertools.chain(*LOCATIONS.values()))
SCOPES = ('mmengine', 'mmdet', 'mmseg', 'swin_dense')
# what of mmpretrain mmdet's and mmseg's own configs use
MMPRETRAIN = {'ClsDataPreprocessor', 'ConvNeXt', 'CrossEntropyLoss', 'PoolFormer', 'ResNet', 'TIMMBackbone'}
NMS = {'nms', 'soft_nms', 'nms_match'}  # functions of mmcv.ops, in no registry
# classes of mmcv.ops, in no registry
ROI_LAYERS = {'DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack', 'RoIAlign', 'RoIPool', 'SimpleRoIAlign'}
# what mmdet's Cascade RPN and FPG call a type, and compare with words of their own
WORDS = {'conv', 'dilation', 'interpolation_conv', 'last_conv', 'offset'}
PLAIN = NMS | ROI_LAYERS | WORDS
REFUSED = {
    'BertModel': 'it fetches a language model',
    'CameraMotionCompensation': 'it evaluates one of its arguments',
    'Detectron2Wrapper': "it runs detectron2's configs",
    'GLIP': 'it fetches a language model',
    'VPD': 'it loads a diffusion model',
}
# of evaluators, hooks and visualizers: they talk to servers, or run what they are given
REFUSED_IN_RUNS = {
    **REFUSED,
    'AimVisBackend': 'it talks to a server',
    'ClearMLVisBackend': 'it talks to a server',
    'DVCLiveVisBackend': 'it starts git',
    'MLflowVisBackend': 'it talks to a server',
    'NeptuneVisBackend': 'it talks to a server',
    'WandbVisBackend': 'it talks to a server',
    'OpenImagesChallengeDataset': 'it unpickles its hierarchy of classes',
    'RefCocoDataset': 'it unpickles its annotations',
}


def names_of(registries: Sequence[Registry]) -> set[str]:
    """``scope.Name`` and the full path of all that registries, and those below them, hold."""
    _register()
    names: set[str] = set()
    left = list(registries)
    while left:
        registry = left.pop()
        left.extend(registry.children.values())
        for name, kind in registry.module_dict.items():
            if registry.scope in SCOPES or (registry.scope == 'mmpretrain' and name in MMPRETRAIN):
                names.add(f'{registry.scope}.{name}')
                names.add(f'{kind.__module__}.{kind.__qualname__}')
    return names


def of_models() -> set[str]:
    """What a model and its pipeline may be made of."""
    return names_of([MODELS, TASK_UTILS, TRANSFORMS])


def of_runs() -> set[str]:
    """What a whole run may be made of."""
    return names_of([registry for registry in vars(root).values() if isinstance(registry, Registry)])


def _register() -> None:
    """Import all that the hosts and we register; the checks must not, and this module is imported early."""
    for module in OURS:
        importlib.import_module(module)
    for host in ('mmdet', 'mmseg'):
        importlib.import_module(f'{host}.visualization')
        importlib.import_module(f'{host}.utils').register_all_modules(init_default_scope=False)


def is_known(kind: str, scope: str, known: set[str]) -> bool:
    """Whether a type, as it is looked up in a scope, is one of ``known``.

    A name alone is looked up in the scope around it, and then in mmengine's. A dotted one is a scope and a
    name, or, in mmengine's newer style of configs, the path of a class.
    """
    if '.' not in kind:
        return bool({f'{scope}.{kind}', f'mmengine.{kind}'} & known) or kind in PLAIN
    if kind in known:
        return True
    module, _, name = kind.rpartition('.')
    # a package that imports the class from its module; only what is imported already is looked at
    cls = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return inspect.isclass(cls) and f'{cls.__module__}.{cls.__qualname__}' in known


def types_in(node: Any, scope: str, path: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Each ``type`` in a config, by its path, with the scope that it is looked up in."""
    if isinstance(node, dict):
        scope = node.get('_scope_') or scope
        for key, value in node.items():
            here = f'{path}.{key}' if path else str(key)
            if key == 'type':
                yield here, value, scope
            else:
                yield from types_in(value, scope, here)
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from types_in(value, scope, f'{path}.{i}')
