"""The config files that the hosts' packages carry: ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``."""

import importlib.util
from functools import cache
from pathlib import Path

from mmengine.config import Config

from swin_dense.errors import UserError

PACKAGES = ('mmdet', 'mmseg')


def stock_path(name: str) -> Path:
    """The file of a name like ``'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'``.

    Raises:
        UserError: the package or the file is not there.
    """
    package, _, relative = name.partition('::')
    if package not in PACKAGES:
        raise UserError(f'config {name}: write mmdet::FILE or mmseg::FILE')
    root = stock_root(package)
    file = root / relative
    if not file.is_file():
        raise UserError(f'config {name}: {package} has no {relative} (looked in {root})')
    return file


def stock_root(package: str) -> Path:
    """The folder of the config files of ``'mmdet'`` or ``'mmseg'``."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f'{package} is not installed')
    return Path(spec.origin).parent / '.mim' / 'configs'


@cache
def stock_config(name: str) -> Config:
    """The values of such a file. They are shared: copy them before you change them."""
    return Config.fromfile(stock_path(name))
