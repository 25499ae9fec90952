"""The types that somebody else's config may name. The check imports nothing that the config names."""

import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.registry import MODELS, TASK_UTILS, TRANSFORMS, Registry, root

from swin_dense.registry import LOCATIONS

# modules whose import registers types, beside the hosts' own packages
OURS = ('mmengine.optim', 'mmengine.runner', *itertools.chain(*LOCATIONS.values()))
SCOPES = ('mmengine', 'mmdet', 'mmseg', 'swin_dense')
# the types of mmpretrain that mmdet's and mmseg's own configs use
MMPRETRAIN = {'ClsDataPreprocessor', 'ConvNeXt', 'CrossEntropyLoss', 'PoolFormer', 'ResNet', 'TIMMBackbone'}
NMS = {'nms', 'soft_nms', 'nms_match'}  # functions of mmcv.ops, in no registry
# classes of mmcv.ops, in no registry
ROI_LAYERS = {'DeformRoIPoolPack', 'ModulatedDeformRoIPoolPack', 'RoIAlign', 'RoIPool', 'SimpleRoIAlign'}
# values of ``type`` in mmdet's Cascade RPN and FPG that name no class
WORDS = {'conv', 'dilation', 'interpolation_conv', 'last_conv', 'offset'}
PLAIN = NMS | ROI_LAYERS | WORDS
REFUSED = {
    'BertModel': 'it fetches a language model',
    'CameraMotionCompensation': 'it evaluates one of its arguments',
    'Detectron2Wrapper': "it runs detectron2's configs",
    'GLIP': 'it fetches a language model',
    'VPD': 'it loads a diffusion model',
}
# evaluators, hooks and visualizers that talk to servers, unpickle or start programs
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
    """``scope.Name`` and the full path of every class in the registries and in their children."""
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
    """The types that a model and its pipeline may name."""
    return names_of([MODELS, TASK_UTILS, TRANSFORMS])


def of_runs() -> set[str]:
    """The types that the config of a whole run may name."""
    return names_of([registry for registry in vars(root).values() if isinstance(registry, Registry)])


def _register() -> None:
    """Import every module of the hosts and ours that registers types, before any config is checked."""
    for module in OURS:
        importlib.import_module(module)
    for host in ('mmdet', 'mmseg'):
        importlib.import_module(f'{host}.visualization')
        importlib.import_module(f'{host}.utils').register_all_modules(init_default_scope=False)


def is_known(kind: str, scope: str, known: set[str]) -> bool:
    """Whether a type is one of ``known``.

    mmengine looks a plain name up in the scope around it and then in its own. A dotted name is a scope and a
    name, or, in mmengine's newer style of configs, the path of a class.
    """
    if '.' not in kind:
        return bool({f'{scope}.{kind}', f'mmengine.{kind}'} & known) or kind in PLAIN
    if kind in known:
        return True
    module, _, name = kind.rpartition('.')
    # a package may offer a class of one of its modules; only imported packages are searched
    cls = vars(sys.modules[module]).get(name) if module in sys.modules else None
    return inspect.isclass(cls) and f'{cls.__module__}.{cls.__qualname__}' in known


def types_in(node: Any, scope: str, path: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401
    """Each ``type`` in a config: its path, its value and the scope around it."""
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
