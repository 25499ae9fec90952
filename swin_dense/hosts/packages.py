"""Make the installed OpenMMLab packages usable: every tool calls ``prepare()`` first.

This module imports torch and the hosts only after ``problems()`` has found them installed.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from swin_dense.errors import UserError


@dataclass(frozen=True)
class Requirement:
    """A package that must be there: the versions that work, and the command that installs one."""

    name: str
    versions: str
    fix: str

    def problem(self) -> str | None:
        """The problem with the installed package in one line; None if there is none."""
        installed = installed_version(self.name)
        if installed is None:
            return f'{self.name} is not installed: {self.fix}'
        if not SpecifierSet(self.versions).contains(installed, prereleases=True):
            return f'{self.name} {installed} is installed, but {self.versions} is needed: {self.fix}'
        return None


REQUIREMENTS = (
    Requirement('torch', '>=2.10', "pip install 'torch>=2.10'"),
    Requirement('torchvision', '>=0.25', 'pip install torchvision'),
    Requirement('mmengine', '>=0.10.7', "pip install 'mmengine>=0.10.7'"),
    Requirement('mmdet', '>=3.3,<3.4', "pip install 'mmdet>=3.3,<3.4'"),
    Requirement('mmsegmentation', '>=1.2.2,<1.3', "pip install 'mmsegmentation>=1.2.2,<1.3'"),
    Requirement('setuptools', '<81', "pip install 'setuptools<81'"),
    Requirement('ftfy', '>=0', 'pip install ftfy'),
    Requirement('regex', '>=0', 'pip install regex'),
)
MMCV = (
    Requirement('mmcv', '>=2.0.1,<2.2', "pip uninstall mmcv; pip install 'mmcv-lite>=2.0.1,<2.2'"),
    Requirement('mmcv-lite', '>=2.0.1,<2.2', "pip install 'mmcv-lite>=2.0.1,<2.2'"),
)


# mmdet's language models import and call what later ones have moved or removed
LANGUAGE = Requirement('transformers', '>=4.30,<4.56', "pip install 'transformers<4.56'")


def installed_version(package: str) -> Version | None:
    """The version of an installed distribution, None if it is absent."""
    try:
        return Version(metadata.version(package))
    except metadata.PackageNotFoundError:
        return None


def mmcv_flavour() -> Requirement:
    """The package that ``import mmcv`` takes: mmcv if it is installed, else mmcv-lite."""
    full, lite = MMCV
    return full if installed_version(full.name) is not None else lite


def problems() -> list[str]:
    """One line for each package that is missing or of an unsupported version."""
    checked = (requirement.problem() for requirement in (*REQUIREMENTS, mmcv_flavour()))
    return [problem for problem in checked if problem]


@cache
def prepare() -> str:
    """Make mmengine, mmdet and mmseg usable in this process; further calls do nothing.

    Checks the versions. Where mmcv's compiled ops are absent, ``mmcv.ops`` gets those of ``hosts/ops``.
    Allow-lists the classes that mmengine writes into checkpoints, so that
    ``torch.load(..., weights_only=True)`` reads them.

    Returns:
        The ops backend: ``'mmcv'`` (compiled) or ``'torchvision'``.

    Raises:
        UserError: a package is missing or of a version that does not work.
    """
    if wrong := problems():
        raise UserError('; '.join(wrong))
    # our users can change neither of these
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
    warnings.filterwarnings('ignore', message='.*mmcv-lite.*')
    backend = _provide_ops()
    _leave_out_multimodal()
    allow_mmengine_checkpoints()
    return backend


def _provide_ops() -> str:
    try:
        compiled = importlib.import_module('mmcv._ext')
    except ImportError:
        from swin_dense.hosts.ops import extension

        sys.modules['mmcv._ext'] = compiled = extension()
    from swin_dense.hosts.ops import deform_attention

    deform_attention.install()
    origin = getattr(compiled.__spec__, 'origin', None)
    return 'torchvision' if origin == 'swin_dense.hosts.ops' else 'mmcv'


def _leave_out_multimodal() -> None:
    """Leave out mmpretrain's multimodal models where importing them would fail.

    mmdet imports mmpretrain wherever it is installed. Those models subclass classes of transformers that
    its newer versions have renamed, so that the import of mmdet would fail too.
    """
    transformers = importlib.util.find_spec('transformers')
    if transformers is None or transformers.origin is None:
        return
    if importlib.util.find_spec('mmpretrain') is None:
        return
    source = Path(transformers.origin).with_name('modeling_utils.py')
    if 'find_pruneable_heads_and_indices' not in source.read_text(encoding='utf-8'):
        sys.modules.setdefault('mmpretrain.models.multimodal', ModuleType('mmpretrain.models.multimodal'))


@cache
def allow_mmengine_checkpoints() -> None:
    """Allow-list the classes that mmengine's message hub and meta data put into a checkpoint."""
    from pickle import UnpicklingError

    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    def statistic(owner: type, name: str) -> object:
        """Stands in for ``getattr``, by which a pickled HistoryBuffer names its four statistics."""
        if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
            raise UnpicklingError(f'getattr of {name!r} is not allowed in a checkpoint')
        return getattr(HistoryBuffer, name)

    dtypes = {type(np.dtype(kind)) for kind in ('float64', 'float32', 'int64', 'int32', 'uint8', 'bool')}
    functions: list[Any] = [np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]]
    # numpy 1 and 2 write different module names
    rebuilders: list[Any] = [
        (rebuild, f'numpy.{core}.multiarray.{rebuild.__name__}')
        for rebuild in functions
        for core in ('core', '_core')
    ]
    torch.serialization.add_safe_globals(
        [HistoryBuffer, (statistic, 'builtins.getattr'), *rebuilders, np.ndarray, np.dtype, *dtypes]
    )


def use_device(device: str | None) -> None:
    """Make mmengine use ``device``. Call this before anything imports torch.

    Args:
        device: ``'cpu'``, ``'cuda'``, ``'cuda:N'``, ``'mps'``, or None for the best there is.

    Raises:
        UserError: the machine has no such device.
    """
    if device is None:
        return
    kind, _, index = device.partition(':')
    if kind not in ('cpu', 'cuda', 'mps') or (index and not index.isdigit()):
        raise UserError(f'--device {device}: choose cpu, cuda, cuda:N or mps')
    if kind == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    elif index:
        os.environ['CUDA_VISIBLE_DEVICES'] = index

    import mmengine.device.utils as mmengine_device
    import torch

    available = {'cpu': True, 'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available()}
    if not available[kind]:
        raise UserError(f'--device {device}: torch {torch.__version__} sees no such device on this machine')
    mmengine_device.DEVICE = kind
