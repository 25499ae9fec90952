"""Read and write checkpoint files. No code in a file is run."""

import argparse
import errno
import io
import pickletools
import re
import shutil
import sys
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from swin_dense import hosts
from swin_dense.checkpoints import archive
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.storage import atomic

PICKLE = b'\x80'  # the first byte of every binary pickle
WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'module', 'ema_state_dict', 'model_ema')
PREFIXES = ('module.', '_orig_mod.')  # of DataParallel, of torch.compile


class _Settings:
    """Makes a plain dict of the yacs.config.CfgNode that Microsoft's training script saves."""

    def __new__(cls) -> OrderedDict:  # type: ignore[misc]  # it returns no _Settings on purpose
        return OrderedDict()


# in torch's refusal of a checkpoint of mmengine's: one of these comes first in its message hub
MMENGINE_NAMES = re.compile(r'\b(mmengine|numpy|builtins\.getattr)\b')
# plain data that training scripts save beside the tensors
HARMLESS: list[Any] = [argparse.Namespace, (_Settings, 'yacs.config.CfgNode')]


def fetch(location: str) -> Path:
    """The local path of a checkpoint. A file at an address is downloaded once, into torch's cache.

    Args:
        location: a path or an http(s) address.

    Raises:
        UserError: the file does not exist, or cannot be downloaded.
    """
    if location.startswith(('http://', 'https://')):
        return _download(location)
    try:
        path = Path(location).expanduser()
        if path.is_file():
            return path
        what = 'is a folder, not a file' if path.is_dir() else 'does not exist'
    except (OSError, RuntimeError) as error:  # no permission, a name too long, no such user
        raise UserError(f'checkpoint {location}: {error}') from error
    raise UserError(f'checkpoint {location} {what} (looked for {path.absolute()})')


def _download(address: str) -> Path:
    # the name is made of the whole address: on a hub, half of the files are called model.safetensors
    name = re.sub(r'[^\w.-]+', '_', address.partition('://')[2].partition('?')[0])
    path = Path(torch.hub.get_dir()) / 'checkpoints' / name
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(address, str(path), progress=sys.stderr.isatty())
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(
            f'checkpoint {address} cannot be downloaded ({error}): put the file at {path}, or name a '
            f'local one with --cfg-options model.backbone.init_cfg.checkpoint=FILE'
        ) from error
    return path


def read_checkpoint(path: Path, mapped: bool = False) -> dict:
    """The content of a file of ``torch.save`` or safetensors, on the CPU. Nothing in it is ever run.

    Args:
        path: the file. The suffix ``.safetensors`` tells the format.
        mapped: leave the tensors on disk until they are used. The file must not change before that.

    Raises:
        UnsafeFileError: the file names code to run.
        UserError: the file is damaged, holds other things than tensors and plain data, or holds tensors that
            cannot be weights: sparse ones, quantized ones, tensors without values.
    """
    try:
        if path.suffix == '.safetensors':
            return _checked(load_file(path), path)
        # only zip archives can be mapped; torch has written them since 1.6
        mapped = archive.is_archive(path) and archive.check_records(path) and mapped
        content = _load(path, mapped)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise any exception
        if code := _code_in(path, str(error)):
            raise UnsafeFileError(
                f'checkpoint {path} is refused: it holds {code}, code that opening it would run'
            ) from error
        # torch's message begins with advice to open the file unsafely
        reason = str(error).rpartition('WeightsUnpickler error: ')[2].strip().split('\n')[0]
        raise UserError(
            f'checkpoint {path} cannot be read safely: {reason[:200] or type(error).__name__}'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'checkpoint {path} holds a {type(content).__name__}, not a dict of tensors')
    return _checked(content, path)


def _load(path: Path, mapped: bool) -> object:
    with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch warns of newer pickles and TorchScript; an error follows
        try:
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
        except Exception as error:
            if not MMENGINE_NAMES.search(str(error)):
                raise
            hosts.allow_mmengine_checkpoints()  # it imports mmengine, and few files need that
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)


def check_whole(path: Path) -> None:
    """Check that a checkpoint is whole, by reading it once in little memory.

    The records of a zip archive have checksums. A file of safetensors tells its size. In torch's older format
    only the first byte can be checked.

    Raises:
        UserError: the file is damaged or cut off, or it cannot be read.
    """
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, 'pt'):
                return
        if archive.is_archive(path):
            archive.check_records(path)
            return
        with path.open('rb') as file:
            if file.read(1) == PICKLE:
                return
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise UserError(f'checkpoint {path} cannot be read safely: {error}') from error
    raise UserError(f'checkpoint {path} cannot be read safely: it is empty, or has no known format')


def _checked(content: dict, path: Path) -> dict:
    """The content, after a check: ``meta`` must be a dict, and every tensor a plain array of numbers."""
    meta = content.get('meta')
    if meta is not None and not isinstance(meta, (dict, Tensor)):
        raise UserError(f'checkpoint {path}: meta is {meta!r:.40}, not a dict')
    for name, tensor in _tensors(content):
        if kind := _kind(tensor):
            raise UserError(f'checkpoint {path}: {name} is a {kind} tensor: it cannot be loaded into a model')
    return content


def _tensors(node: object, name: str = '') -> Iterator[tuple[str, Tensor]]:
    if isinstance(node, Tensor):
        yield name, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _tensors(value, f'{name}.{key}' if name else str(key))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _tensors(value, f'{name}.{i}')


def _kind(tensor: Tensor) -> str | None:
    """The kind of a tensor that is no plain array of numbers; None for one that is."""
    if tensor.is_meta:
        return 'meta (without values)'
    if tensor.layout != torch.strided:
        return f'sparse ({tensor.layout})'
    if tensor.is_quantized:
        return 'quantized'
    if tensor.is_nested:
        return 'nested'
    # floats of eight bits or fewer lack their scales, and torch neither sums nor compares them
    return str(tensor.dtype) if tensor.is_floating_point() and tensor.itemsize < 2 else None


def _code_in(path: Path, message: str) -> str | None:
    """The function or class that the file would import, from torch's refusal or from the pickle itself."""
    if refused := re.search(r'(?:GLOBAL|class) `?([\w.]+)', message):
        return refused[1]
    strings: list[str] = []
    try:
        file = io.BytesIO(_pickle_in(path))
        while True:  # torch's older format consists of several pickles
            for opcode, argument, _ in pickletools.genops(file):  # this runs nothing
                if isinstance(argument, str):
                    strings.append(argument)
                name = strings[-1].replace(' ', '.') if opcode.name == 'GLOBAL' else '.'.join(strings[-2:])
                if opcode.name.endswith('GLOBAL') and not name.startswith(('torch.', 'collections.')):
                    return name
    except Exception:  # the file is no pickle, or this is its end
        return None


def _pickle_in(path: Path, limit: int = 2**24) -> bytes:
    if not zipfile.is_zipfile(path):
        with path.open('rb') as file:
            return file.read(limit)
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith('data.pkl'))
        with archive.open(name) as file:
            return file.read(limit)


def state_dict(content: dict) -> dict[str, Tensor]:
    """The tensors by name, without the dicts and prefixes that training code puts around them."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES * 2:  # each may stand before the other
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        # mmengine's averaged models keep a counter, 'steps', beside the module
        if len(inside) == len(tensors.keys() - {'steps'}):
            tensors = inside
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor], wrapper: str | None) -> None:
    """Save tensors: in the format of safetensors if the suffix says so, and else with ``torch.save``.

    Args:
        path: the file.
        tensors: the tensors by name.
        wrapper: with ``torch.save``, the key of the dict of tensors in the file; None for no dict around it.

    Raises:
        DiskFullError: the disk is full; the file that was there before is intact.
        UserError: the file cannot be written for another reason.
    """
    with atomic.replacing(path) as partial:
        partial.touch()  # an error here names the reason; the libraries below put it into words of their own
        try:
            if path.suffix == '.safetensors':
                save_file(_unshared(tensors), partial, metadata={'format': 'pt'})
            else:
                torch.save({wrapper: tensors} if wrapper else tensors, partial)
        except (RuntimeError, SafetensorError) as error:  # the libraries' errors for a failed write
            code = _system_error(partial, sum(tensor.nbytes for tensor in tensors.values()))
            raise OSError(code, str(error).split('\n')[0]) from error


def _system_error(path: Path, wanted: int) -> int:
    """The system's code for a failed write of ``wanted`` bytes: a full disk, or an input/output error."""
    return errno.ENOSPC if shutil.disk_usage(path.parent).free < wanted else errno.EIO


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those that share memory copied: safetensors refuses shared memory."""
    memory = {key: value.untyped_storage().data_ptr() for key, value in tensors.items()}
    shared = {place for place, count in Counter(memory.values()).items() if count > 1}
    return {key: value.clone() if memory[key] in shared else value for key, value in tensors.items()}
