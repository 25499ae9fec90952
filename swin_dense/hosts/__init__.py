"""Make the installed OpenMMLab packages usable: versions, ops without a compiler, devices."""

from swin_dense.hosts.packages import (
    Requirement,
    allow_mmengine_checkpoints,
    installed_version,
    mmcv_flavour,
    prepare,
    problems,
    use_device,
)

__all__ = [
    'Requirement',
    'allow_mmengine_checkpoints',
    'installed_version',
    'mmcv_flavour',
    'prepare',
    'problems',
    'use_device',
]
