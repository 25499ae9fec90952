"""Open any checkpoint safely, convert it, and load it into a model."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swin_dense.checkpoints.pretrained import Pretrained

__all__ = ['Pretrained']


def __getattr__(name: str) -> type:
    # our initializer needs mmengine, which a conversion does not
    if name != 'Pretrained':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return importlib.import_module(f'{__name__}.pretrained').Pretrained
