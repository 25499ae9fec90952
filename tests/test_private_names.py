"""Private names of torch, Python and the hosts that we use: all of them are here, and are still there."""

import ast
import multiprocessing.resource_tracker
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision  # noqa: F401  registers its operators
from mmengine.config import DictAction
from mmengine.dataset import ConcatDataset
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import distributed, nn
from torch.autograd import forward_ad

import swin_dense

PACKAGE = Path(swin_dense.__file__).parent
TRACKER, GROUPS = multiprocessing.resource_tracker._resource_tracker, distributed.distributed_c10d


def written_in(owner: type, name: str) -> Callable[[], bool]:
    """Whether an attribute is named in the source of a class, which sets it in its instances."""
    return lambda: name in Path(sys.modules[owner.__module__].__file__).read_text(encoding='utf-8')


def has(owner: object, name: str) -> Callable[[], bool]:
    return lambda: hasattr(owner, name)


# each name, by where it is used, with what tells that it is still there
NAMES: dict[tuple[str, str], Callable[[], bool]] = {
    ('engine/config.py', '_parse_iterable'): has(DictAction, '_parse_iterable'),
    ('engine/dry_run.py', '_channel_conversion'): written_in(ImgDataPreprocessor, '_channel_conversion'),
    ('engine/dry_run.py', '_enable_normalize'): written_in(ImgDataPreprocessor, '_enable_normalize'),
    ('engine/dry_run.py', '_iter'): written_in(EpochBasedTrainLoop, 'self._iter'),
    ('engine/finite.py', '_accumulative_counts'): written_in(OptimWrapper, 'self._accumulative_counts'),
    ('engine/finite.py', '_buffers'): lambda: isinstance(nn.BatchNorm2d(1)._buffers, dict),
    ('engine/finite.py', '_foreach_copy_'): has(torch, '_foreach_copy_'),
    ('engine/hooks.py', '_resume'): written_in(Runner, 'self._resume'),
    ('engine/nan_batch.py', '_run_forward'): has(BaseModel, '_run_forward'),
    ('engine/processes.py', '_pid'): lambda: hasattr(
        multiprocessing.resource_tracker._resource_tracker, '_pid'
    ),
    ('engine/processes.py', '_resource_tracker'): has(multiprocessing.resource_tracker, '_resource_tracker'),
    ('engine/runner.py', '_accumulative_counts'): written_in(OptimWrapper, 'self._accumulative_counts'),
    ('engine/signs_of_life.py', '_exit'): has(os, '_exit'),
    ('engine/signs_of_life.py', '_get_default_group'): has(
        distributed.distributed_c10d, '_get_default_group'
    ),
    ('engine/signs_of_life.py', '_get_sequence_number_for_group'): has(
        distributed.ProcessGroupGloo, '_get_sequence_number_for_group'
    ),
    ('engine/workers.py', '_exit'): has(os, '_exit'),
    ('data/failures.py', '_get_ori_dataset_idx'): has(ConcatDataset, '_get_ori_dataset_idx'),
    ('hosts/ops.py', '_roi_align_backward'): has(torch.ops.torchvision, '_roi_align_backward'),
    ('kernels/blocked_training.py', '_softmax_backward_data'): has(torch.ops.aten, '_softmax_backward_data'),
    ('kernels/eager.py', '_C'): has(torch, '_C'),
    ('kernels/eager.py', '_TorchDispatchModeKey'): has(torch._C, '_TorchDispatchModeKey'),
    ('kernels/eager.py', '_add_batch_dim'): has(torch, '_add_batch_dim'),
    ('kernels/eager.py', '_current_level'): has(forward_ad, '_current_level'),
    ('kernels/eager.py', '_dispatch_key_parse'): has(torch._C, '_dispatch_key_parse'),
    ('kernels/eager.py', '_dispatch_keys'): has(torch._C, '_dispatch_keys'),
    ('kernels/eager.py', '_functorch'): has(torch._C, '_functorch'),
    ('kernels/eager.py', '_get_dispatch_mode'): has(torch._C, '_get_dispatch_mode'),
    ('kernels/eager.py', '_remove_batch_dim'): has(torch, '_remove_batch_dim'),
    ('kernels/eager.py', '_vmapmode_decrement_nesting'): has(torch._C, '_vmapmode_decrement_nesting'),
    ('kernels/eager.py', '_vmapmode_increment_nesting'): has(torch._C, '_vmapmode_increment_nesting'),
    ('kernels/linear.py', '_linear_pointwise'): lambda: (
        not torch.backends.mkldnn.is_available() or hasattr(torch.ops.mkldnn, '_linear_pointwise')
    ),
    ('models/fused.py', '_backward_hooks'): has(nn.Module(), '_backward_hooks'),
    ('models/fused.py', '_backward_pre_hooks'): has(nn.Module(), '_backward_pre_hooks'),
    ('models/fused.py', '_forward_hooks'): has(nn.Module(), '_forward_hooks'),
    ('models/fused.py', '_forward_pre_hooks'): has(nn.Module(), '_forward_pre_hooks'),
    ('models/swin_v2.py', '_replace'): lambda: True,  # of every NamedTuple, and public in spite of its name
    ('trust/guard.py', '_getframe'): has(sys, '_getframe'),
}
OURS = {('engine/runner.py', '_dataset')}  # of SeededSamples


def used() -> set[tuple[str, str]]:
    """Every private attribute that the package takes from something else than ``self``."""
    places = set()
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            name = ''
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ('self', 'cls', 'super()'):
                name = node.attr
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == 'getattr':
                argument = node.args[1]
                name = argument.value if isinstance(argument, ast.Constant) else ''
            if name.startswith('_') and not name.startswith('__'):
                places.add((path.relative_to(PACKAGE).as_posix(), name))
    return places - OURS


def test_every_private_name_is_listed():
    assert used() == set(NAMES)


@pytest.mark.parametrize('place', NAMES, ids=':'.join)
def test_a_private_name_is_there(place: tuple[str, str]):
    assert NAMES[place]()
