"""Make the installed OpenMMLab packages usable: versions, ops without a compiler, devices."""

from swin_dense.hosts.packages import (
    Requirement,
    installed_version,
    mmcv_flavour,
    prepare,
    problems,
    use_device,
)

__all__ = ['Requirement', 'installed_version', 'mmcv_flavour', 'prepare', 'problems', 'use_device']
