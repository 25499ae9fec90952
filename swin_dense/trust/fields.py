"""The fields of a config that a host opens, fetches, imports or evaluates, with the reason for each."""

import re
from fnmatch import fnmatchcase
from typing import Any

from swin_dense.trust.data_files import is_pickle

# weights to start from: a checkpoint replaces them all, so they are set to None
DROPPED = ('init_cfg', 'pretrained')
OPENED = 'a host opens it'
FETCHED = 'a host fetches it'
IMPORTED = 'a host imports it'
LOADED = 'a host loads weights from it'
EXECUTED = 'a host runs it as a config'
HUB = 'a host fetches a model of that name, or unpickles a folder'
BACKEND = 'it says where and how files are read'
# the first pattern that matches decides; only strings are looked up here
FIELDS: dict[str, str] = {
    'class_weight': 'mmseg opens it, and unpickles what it holds',
    'warp_mode': 'mmdet evaluates it',
    'decode_backend': 'mmseg unpickles images for some',
    'checkpoint': LOADED,
    '*_checkpoint': LOADED,
    'checkpoint_*': LOADED,
    '*ckpt*': LOADED,
    'load_from': LOADED,
    'resume_from': LOADED,
    'weights': LOADED,
    '*_weights': LOADED,
    'config': EXECUTED,
    '*_config': EXECUTED,
    '_base_': EXECUTED,
    'config_*': EXECUTED,
    'cfg': EXECUTED,
    '*_cfg': EXECUTED,
    'file': OPENED,
    'files': OPENED,
    'filename': OPENED,
    '*_file': OPENED,
    '*_files': OPENED,
    'file_*': OPENED,
    'path': OPENED,
    '*_path': OPENED,
    'path_*': OPENED,
    'dir': OPENED,
    '*_dir': OPENED,
    'root': OPENED,
    '*_root': OPENED,
    'folder': OPENED,
    'cache*': OPENED,
    '*_ann': OPENED,
    'prefix': OPENED,
    '*_prefix': OPENED,
    'url': FETCHED,
    'urls': FETCHED,
    '*_url': FETCHED,
    '*uri': FETCHED,
    'address': FETCHED,
    'host': FETCHED,
    'module': IMPORTED,
    '*_module': IMPORTED,
    'imports': IMPORTED,
    'custom_imports': IMPORTED,
    'target': IMPORTED,
    'package': IMPORTED,
    'library': IMPORTED,
    'lang_model_name': HUB,
    'tokenizer*': HUB,
    '*_or_path': HUB,
    'repo*': HUB,
    'hub*': HUB,
    'command': 'a host might run it',
    'backend_args': BACKEND,
    'file_client_args': BACKEND,
}
ANY_VALUE = ('custom_imports', 'imports', '_base_', 'backend_args', 'file_client_args')  # not only strings
LOCAL_BACKENDS = ('local', 'disk')
# text that names a file, an address or a program, whatever the field
_SUFFIXES = 'pkl|pickle|pth|pt|bin|ckpt|npy|npz|yaml|yml|json|py|pyc|so|dll|txt|csv|gz|bz2|xz|zip|tar|h5|onnx'
_FILE = re.compile(r'[/\\:~\x00-\x1f]|\.\.|\.(?:' + _SUFFIXES + r')$', re.IGNORECASE)
WEIGHTS_OF_RUNS = ('load_from', 'resume')  # read by us, and safely


def reason_against(field: str, value: Any, data: bool = False) -> str | None:  # noqa: ANN401
    """The reason to refuse this value in this field of somebody else's config; None to accept it.

    Args:
        field: its name, without its path.
        value: its value; the caller walks through dicts and lists.
        data: whether the field belongs to a data set, an evaluator or a run, which may name files.
    """
    if value is None or value == '':
        return None
    pattern = next((pattern for pattern in FIELDS if fnmatchcase(field, pattern)), '')
    if field in ANY_VALUE:
        return None if _is_local(field, value) else FIELDS[pattern]
    if not isinstance(value, str):
        return None
    if is_pickle(value):
        return 'a pickle runs code when it is opened'
    reason = FIELDS.get(pattern)
    if data and reason in (None, OPENED):
        return 'an address, which would be fetched' if '://' in value else None
    if data and field in WEIGHTS_OF_RUNS:
        return None
    return reason or _looks_like_a_file(value)


def _is_local(field: str, value: Any) -> bool:  # noqa: ANN401
    """Whether the value says no more than that files are on the local disk."""
    return field in ('backend_args', 'file_client_args') and (
        isinstance(value, dict) and set(value) == {'backend'} and value['backend'] in LOCAL_BACKENDS
    )


def _looks_like_a_file(value: str) -> str | None:
    return 'it names a file, a folder or an address' if _FILE.search(value) else None
