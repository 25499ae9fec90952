"""Files from other people are data: they are read or refused, and never run.

``parse`` reads the text of a config. ``check_model``, ``check_pipeline`` and ``check_config`` check values.
``guarded`` stops whatever a host tries to open or run while it builds from them.
"""

from swin_dense.trust.data_files import is_pickle, read_config
from swin_dense.trust.guard import guarded
from swin_dense.trust.pipelines import check_pipeline
from swin_dense.trust.text import parse
from swin_dense.trust.values import check_config, check_model, without_weights

__all__ = [
    'check_config',
    'check_model',
    'check_pipeline',
    'guarded',
    'is_pickle',
    'parse',
    'read_config',
    'without_weights',
]
