"""The private names of Python, torch and the hosts that we use: each in one file, and each still there.

A host's next version may rename them. Where we override such a method, it would then be called no more.
"""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
import torch

import swin_dense

PACKAGE = Path(swin_dense.__file__).parent
# by file: whose each name is
USED = {
    'data/failures.py': {'_get_ori_dataset_idx': 'mmengine.dataset:ConcatDataset'},
    'engine/config.py': {'_parse_iterable': 'mmengine.config:DictAction'},
    'engine/dry_run.py': {
        '_channel_conversion': 'mmengine.model:ImgDataPreprocessor',
        '_enable_normalize': 'mmengine.model:ImgDataPreprocessor',
    },
    'engine/finite.py': {'_foreach_copy_': 'torch:'},
    'engine/hooks.py': {'_resume': 'mmengine.runner:Runner'},
    'engine/loops.py': {
        '_decide_current_val_interval': 'mmengine.runner:IterBasedTrainLoop',
        '_epoch': 'mmengine.runner:EpochBasedTrainLoop',
        '_iter': 'mmengine.runner:IterBasedTrainLoop',
        '_max_epochs': 'mmengine.runner:EpochBasedTrainLoop',
        '_max_iters': 'mmengine.runner:IterBasedTrainLoop',
    },
    'engine/nan_batch.py': {'_run_forward': 'mmengine.model:BaseModel'},
    'engine/processes.py': {
        '_pid': 'multiprocessing.resource_tracker:ResourceTracker',
        '_resource_tracker': 'multiprocessing.resource_tracker:',
    },
    'engine/run_state.py': {'_accumulative_counts': 'mmengine.optim:OptimWrapper'},
    'engine/runner.py': {
        '_SlicedDataset': 'mmengine.runner.runner:',
        '_dataset': 'mmengine.runner.runner:_SlicedDataset',
        '_test_loop': 'mmengine.runner:Runner',
        '_train_dataloader': 'mmengine.runner:Runner',
        '_train_loop': 'mmengine.runner:Runner',
        '_val_loop': 'mmengine.runner:Runner',
    },
    'engine/signs_of_life.py': {
        '_get_default_group': 'torch.distributed.distributed_c10d:',
        '_get_sequence_number_for_group': 'torch.distributed:ProcessGroup',
    },
    'evaluate/online.py': {'_coco_api': 'mmdet.evaluation:CocoMetric'},
    'hosts/ops/deform_conv.py': {'_deform_conv2d_backward': 'torch:ops.torchvision'},
    'hosts/ops/rois.py': {'_roi_align_backward': 'torch:ops.torchvision'},
    'kernels/blocked_training.py': {'_softmax_backward_data': 'torch:ops.aten'},
    'kernels/eager.py': {
        '_C': 'torch:',
        '_TorchDispatchModeKey': 'torch:_C',
        '_add_batch_dim': 'torch:',
        '_current_level': 'torch.autograd.forward_ad:',
        '_dispatch_key_parse': 'torch:_C',
        '_dispatch_keys': 'torch:_C',
        '_functorch': 'torch:_C',
        '_get_dispatch_mode': 'torch:_C',
        '_remove_batch_dim': 'torch:',
        '_vmapmode_decrement_nesting': 'torch:_C',
        '_vmapmode_increment_nesting': 'torch:_C',
    },
    'kernels/linear.py': {'_linear_pointwise': 'torch:ops.mkldnn'},
    'models/fused.py': {
        '_backward_hooks': 'torch.nn:Module',
        '_backward_pre_hooks': 'torch.nn:Module',
        '_forward_hooks': 'torch.nn:Module',
        '_forward_pre_hooks': 'torch.nn:Module',
    },
    'models/uper_head.py': {'_transform_inputs': 'mmseg.models:UPerHead'},
}
OVERRIDDEN = {
    'engine/checkpoint.py': {'_save_best_checkpoint', '_save_checkpoint_with_step'},
    'models/uper_head.py': {'_forward_feature'},
    'models/winograd_conv.py': {'_conv_forward'},
}
# made by the metaclasses of abc, typing and autograd
MADE = {'_abc_impl', '_backward_cls', '_is_protocol', '_is_runtime_protocol'}
PUBLIC = {'_asdict', '_exit', '_getframe', '_replace'}  # of namedtuples, os and sys: documented


def is_private(name: str) -> bool:
    return name.startswith('_') and not name.startswith('__') and name not in PUBLIC


def definitions(tree: ast.AST) -> set[str]:
    """The names of functions, classes and variables, and of the attributes that are given to ``self``."""
    names = set()
    added_to = {node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign)}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Attribute(value=ast.Name(id='self'), attr=name, ctx=ast.Store()) if node not in added_to:
                names.add(name)
    return names


def uses(tree: ast.AST) -> tuple[set[str], set[str]]:
    """The private names that are looked up on ``self``, and elsewhere."""
    own, others = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id='self'), attr=name):
                own.add(name)
            case ast.Attribute(attr=name):
                others.add(name)
            case ast.Call(func=ast.Name(id='getattr'), args=[_, ast.Constant(value=name), *_]):
                others.add(name)
            case ast.ImportFrom(names=imported):
                others.update(alias.name for alias in imported)
    return set(filter(is_private, own)), set(filter(is_private, others))


def test_each_is_used_in_the_file_that_is_named_here():
    trees = {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob('*.py')
    }
    # what is looked up on self may come from a base class in another file
    ours = set().union(*map(definitions, trees.values()))
    foreign = {}
    for file, tree in trees.items():
        own, others = uses(tree)
        foreign[file] = (own - ours) | (others - definitions(tree))
    assert {file: names for file, names in foreign.items() if names} == {
        file: set(names) for file, names in USED.items()
    }


def test_each_is_named_once():
    names = [name for names in USED.values() for name in names]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ('name', 'owner'), [(name, owner) for names in USED.values() for name, owner in names.items()]
)
def test_each_is_there(name: str, owner: str):
    if owner == 'torch:ops.mkldnn' and not torch.backends.mkldnn.is_available():
        pytest.skip('this torch has no oneDNN')
    module, _, path = owner.partition(':')
    place = importlib.import_module(module)
    place = attrgetter(path)(place) if path else place
    if not hasattr(place, name):  # what only instances have is in the source
        assert f'self.{name}' in ''.join(inspect.getsource(kind) for kind in place.__mro__[:-1])


def classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(swin_dense.__path__, 'swin_dense.'):
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and kind.__module__ == module.name:
                yield kind


def test_the_overridden_ones_are_methods_of_the_hosts():
    overridden: dict[str, set[str]] = {}
    for kind in classes():
        hosts = [base for base in kind.__mro__[1:] if not base.__module__.startswith('swin_dense')]
        names = {name for name in filter(is_private, vars(kind)) if any(name in vars(base) for base in hosts)}
        if names := names - MADE:
            file = kind.__module__.removeprefix('swin_dense.').replace('.', '/') + '.py'
            overridden.setdefault(file, set()).update(names)
    assert overridden == OVERRIDDEN
