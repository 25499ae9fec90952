"""Open checkpoint files without running anything that they contain."""

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
    """In place of the yacs.config.CfgNode that Microsoft's training script saves: a plain dict."""

    def __new__(cls) -> OrderedDict:  # type: ignore[misc]  # the pickle makes a CfgNode, and gets a dict
        return OrderedDict()


# what torch refuses first of a checkpoint with mmengine's message hub
OF_MMENGINE = re.compile(r'\b(mmengine|numpy|builtins\.getattr)\b')
# plain data beside the tensors, of training scripts
HARMLESS: list[Any] = [argparse.Namespace, (_Settings, 'yacs.config.CfgNode')]


def fetch(location: str) -> Path:
    """The local path of a file path or http(s) address; an address is downloaded once into torch's cache.

    Raises:
        UserError: there is no such file, or it cannot be downloaded.
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
    # named by the whole address: that of half the files on a hub ends in model.safetensors
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
        path: the file; ``.safetensors`` is told by its name.
        mapped: leave the tensors on disk until they are used. For files that stay as they are until then.

    Raises:
        UnsafeFileError: it names code to run.
        UserError: it is damaged, or holds more than tensors and plain data, or tensors of a kind that are
            no weights: sparse, quantized, without values.
    """
    try:
        if path.suffix == '.safetensors':
            return _checked(load_file(path), path)
        # only the zip format, torch's own since 1.6, can be mapped
        mapped = archive.is_archive(path) and archive.check(path) and mapped
        content = _load(path, mapped)
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its bytes happen to mean
        if code := _code_in(path, str(error)):
            raise UnsafeFileError(
                f'checkpoint {path} is refused: it holds {code}, code that opening it would run'
            ) from error
        # torch puts its advice, to open the file unsafely, first
        reason = str(error).rpartition('WeightsUnpickler error: ')[2].strip().split('\n')[0]
        raise UserError(
            f'checkpoint {path} cannot be read safely: {reason[:200] or type(error).__name__}'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'checkpoint {path} holds a {type(content).__name__}, not a dict of tensors')
    return _checked(content, path)


def _load(path: Path, mapped: bool) -> object:
    with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of newer pickles and of TorchScript: an error follows
        try:
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)
        except Exception as error:
            if not OF_MMENGINE.search(str(error)):
                raise
            hosts.allow_mmengine_checkpoints()  # imports mmengine, which few files need
            return torch.load(path, map_location='cpu', weights_only=True, mmap=mapped)


def check_whole(path: Path) -> None:
    """Read a checkpoint once in little memory, to know whether it is what was written.

    A zip archive's records have checksums. Of safetensors the sizes are known, and of torch's older format
    nothing but how it begins.

    Raises:
        UserError: it is not; or it cannot be read.
    """
    try:
        if path.suffix == '.safetensors':
            with safe_open(path, 'pt'):
                return
        if archive.is_archive(path):
            archive.check(path)
            return
        with path.open('rb') as file:
            if file.read(1) == PICKLE:
                return
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise UserError(f'checkpoint {path} cannot be read safely: {error}') from error
    raise UserError(f'checkpoint {path} cannot be read safely: it is empty, or of no known format')


def _checked(content: dict, path: Path) -> dict:
    """The content, if its meta data are names with values and its tensors have values in a plain layout."""
    meta = content.get('meta')
    if meta is not None and not isinstance(meta, (dict, Tensor)):
        raise UserError(f'checkpoint {path}: meta is {meta!r:.40}, not a dict of what the file is')
    for name, tensor in _tensors(content):
        if kind := _kind(tensor):
            raise UserError(f'checkpoint {path}: {name} is a {kind} tensor, and no model is filled from it')
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
    # of eight bits or fewer: they lack their scales, and torch neither sums nor compares them
    return str(tensor.dtype) if tensor.is_floating_point() and tensor.itemsize < 2 else None


def _code_in(path: Path, message: str) -> str | None:
    """The function or class that torch refused, or that a pickle which torch's reader cannot read names."""
    if refused := re.search(r'(?:GLOBAL|class) `?([\w.]+)', message):
        return refused[1]
    strings: list[str] = []
    try:
        file = io.BytesIO(_pickle_in(path))
        while True:  # torch's older format is several pickles
            for opcode, argument, _ in pickletools.genops(file):  # it runs nothing
                if isinstance(argument, str):
                    strings.append(argument)
                name = strings[-1].replace(' ', '.') if opcode.name == 'GLOBAL' else '.'.join(strings[-2:])
                if opcode.name.endswith('GLOBAL') and not name.startswith(('torch.', 'collections.')):
                    return name
    except Exception:  # this is no pickle either, or its end
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
    """The tensors by name, out of the wrappers and prefixes that training code puts around them."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES * 2:  # either may be around the other
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        # mmengine's averaged models count their steps beside the module
        if len(inside) == len(tensors.keys() - {'steps'}):
            tensors = inside
    return tensors


def write(path: Path, tensors: dict[str, Tensor], wrapper: str | None) -> None:
    """Save tensors: as safetensors if the name ends so, else by ``torch.save``, below ``wrapper`` if given.

    Raises:
        DiskFullError: the disk is full; what was there before is intact.
        UserError: the file cannot be written for another reason.
    """
    with atomic.replacing(path) as partial:
        partial.touch()  # the system says why it cannot; the libraries below say it in words of their own
        try:
            if path.suffix == '.safetensors':
                save_file(_apart(tensors), partial, metadata={'format': 'pt'})
            else:
                torch.save({wrapper: tensors} if wrapper else tensors, partial)
        except (RuntimeError, SafetensorError) as error:  # torch's own for what the system refuses
            code = _system_error(partial, sum(tensor.nbytes for tensor in tensors.values()))
            raise OSError(code, str(error).split('\n')[0]) from error


def _system_error(path: Path, wanted: int) -> int:
    """Why a library could not write a file of so many bytes: the disk is full, or another reason."""
    return errno.ENOSPC if shutil.disk_usage(path.parent).free < wanted else errno.EIO


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of those that share memory, which safetensors refuses."""
    memory = {key: value.untyped_storage().data_ptr() for key, value in tensors.items()}
    shared = {place for place, count in Counter(memory.values()).items() if count > 1}
    return {key: value.clone() if memory[key] in shared else value for key, value in tensors.items()}
