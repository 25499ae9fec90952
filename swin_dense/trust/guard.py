"""Python's audit hook stops what a host may not do while it builds from somebody else's values.

The checks of values know what the hosts' classes do today. The hook need not know: it stops whatever class
unpickles, starts a program, connects or opens a file that the user did not name.
"""

import os
import site
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from swin_dense.errors import UnsafeFileError

# audit events that building a model or reading a file never needs, each with the verb for the message
STOPPED = {
    'pickle.find_class': 'unpickle',
    'subprocess.Popen': 'start',
    'os.system': 'start',
    'os.exec': 'start',
    'os.posix_spawn': 'start',
    'os.spawn': 'start',
    'os.startfile': 'start',
    'os.fork': 'start another process',
    'os.forkpty': 'start another process',
    'pty.spawn': 'start',
    'os.kill': 'send a signal to',
    'socket.connect': 'connect to',
    'socket.bind': 'listen at',
    'socket.getaddrinfo': 'connect to',
    'socket.gethostbyname': 'connect to',
    'urllib.Request': 'fetch',
    'http.client.connect': 'connect to',
    'ftplib.connect': 'connect to',
    'webbrowser.open': 'open',
    'sqlite3.connect': 'open',
    'shelve.open': 'unpickle',
    'os.remove': 'remove',
    'os.rename': 'rename',
    'os.rmdir': 'remove',
    'os.mkdir': 'make',
    'os.chmod': 'change',
    'os.chown': 'change',
    'os.link': 'link',
    'os.symlink': 'link',
    'os.truncate': 'write',
    'shutil.copyfile': 'copy',
    'shutil.move': 'move',
    'shutil.rmtree': 'remove',
    'shutil.unpack_archive': 'unpack',
}
OURSELVES = __name__.partition('.')[0]
HOSTS = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')  # what these evaluate comes from a config
# folders of the system that are harmless to read
SYSTEM = ('/usr/lib', '/usr/lib64', '/usr/local/lib', '/usr/share', '/lib', '/lib64', '/sys', '/proc')
ALONE = ('/dev/null', '/dev/urandom', '/dev/random', '/etc/localtime', '/etc/ld.so.cache', '/etc/os-release')
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class _Guard:
    """What one guarded block allows and what it has refused."""

    what: str
    allowed: tuple[str, ...]
    values: Mapping[str, Any]
    refused: list[str] = field(default_factory=list)


_active: ContextVar[_Guard | None] = ContextVar('guard', default=None)
_lock = threading.Lock()
_installed: list[Callable[[str, tuple], None]] = []  # an audit hook cannot be taken away again
_looking: ContextVar[bool] = ContextVar('inside the guard itself', default=False)


@contextmanager
def guarded(
    allowed_files: Sequence[str | Path], what: str, values: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Refuse, in this thread and inside the block, whatever reading data never needs.

    Refused are unpickling other than by torch's safe reader, starting programs, connecting, evaluating text
    in a host, writing, and opening files other than ``allowed_files`` and the installed packages. If a host
    swallows the exception, the end of the block raises it again. Threads that start inside the block are not
    watched.

    Args:
        allowed_files: files that may be read; a folder allows everything below it.
        what: the name of what is read or built, for messages: ``'checkpoint x.pth'``.
        values: the config that is built. The message names the field of it that holds the refused text.

    Raises:
        UnsafeFileError: something was refused.
    """
    _install()
    outer = _active.get()
    around = outer.allowed if outer else ()
    guard = _Guard(what, (*around, *(os.path.realpath(path) for path in allowed_files)), values or {})
    libraries()
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    token = _active.set(guard)
    try:
        yield
    except BaseException as error:
        if guard.refused and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise UnsafeFileError(guard.refused[0]) from error
        raise
    finally:
        _active.reset(token)
        sys.dont_write_bytecode = written
    if guard.refused:
        raise UnsafeFileError(guard.refused[0])


@cache
def libraries() -> tuple[str, ...]:
    """Folders of Python's own files and of the installed packages."""
    places = {sysconfig.get_path(name) for name in ('stdlib', 'platstdlib', 'purelib', 'platlib')}
    places |= {*site.getsitepackages(), site.getusersitepackages()}
    for name in (*HOSTS, 'torch', 'torchvision', 'numpy', 'cv2', 'PIL', 'swin_dense'):  # editable installs
        file = getattr(sys.modules.get(name), '__file__', None)
        if file:
            places.add(str(Path(file).parent))
    return tuple(sorted({os.path.realpath(place) for place in places if place} | set(SYSTEM)))


def _install() -> None:
    with _lock:
        if not _installed:
            sys.addaudithook(_watch)
            _installed.append(_watch)


def _watch(event: str, arguments: tuple) -> None:
    """The hook. Python calls it for every event, so it returns at once where no block is guarded."""
    guard = _active.get()
    if guard is None or _looking.get():
        return
    token = _looking.set(True)
    try:
        refused = _judged(event, arguments, guard)
        if refused is not None:
            verb, thing = refused
            where = _field_of(thing, guard.values)
            named = f' ({where})' if where else ''
            guard.refused.append(
                f'{guard.what} is refused: reading or building it would {verb} {thing}{named}; '
                f'if you trust it, give its config file'
            )
            raise UnsafeFileError(guard.refused[-1])
    finally:
        _looking.reset(token)


def _judged(event: str, arguments: tuple, guard: _Guard) -> tuple[str, str] | None:
    """What an event would do, and to what, if it has to be stopped; else None."""
    if event in STOPPED:
        return STOPPED[event], _shown(arguments)
    if event == 'open':
        path, mode, flags = arguments
        return _judged_open(path, mode, flags, guard)
    if event in ('compile', 'exec') and _caller() in HOSTS:
        source = arguments[0]
        return 'evaluate', _shown((getattr(source, 'co_filename', source),))
    if event in ('import', 'ctypes.dlopen'):  # of a compiled module, or of a library
        path = arguments[1] if event == 'import' else arguments[0]
        if isinstance(path, str) and os.sep in path and not _is_below(path, libraries()):
            return 'load', path
    return None


def _judged_open(path: Any, mode: str | None, flags: int, guard: _Guard) -> tuple[str, str] | None:  # noqa: ANN401
    if isinstance(path, int) or path is None:  # a file that is open already
        return None
    name = os.fsdecode(path)
    if (mode is not None and set(mode) & set('wax+')) or (isinstance(flags, int) and flags & WRITES):
        return None if name == os.devnull else ('write', name)
    if name in ALONE or _is_below(name, libraries()) or _is_below(name, guard.allowed):
        return None
    return 'open', name


def _is_below(path: str, places: Sequence[str]) -> bool:
    real = os.path.realpath(path)
    return any(real == place or real.startswith(place.rstrip(os.sep) + os.sep) for place in places)


def _caller() -> str:
    """The package whose function called ``eval``, ``exec`` or ``compile``."""
    return next(package for package in _callers() if package != OURSELVES)


def _callers() -> Iterator[str]:
    """The packages of the functions that are being called, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield str(frame.f_globals.get('__name__', '')).partition('.')[0]
        frame = frame.f_back


def _shown(arguments: tuple) -> str:
    """The first two arguments of an event that are text, for the message."""
    parts = []
    for argument in arguments[:2]:
        if isinstance(argument, (bytes, bytearray)):
            parts.append(argument.decode('utf-8', 'replace'))
        elif isinstance(argument, (list, tuple)):
            parts.append(' '.join(map(str, argument)))
        elif isinstance(argument, (str, os.PathLike)):
            parts.append(str(argument))
        elif callable(argument):
            parts.append(getattr(argument, '__qualname__', type(argument).__name__))
    text = ' '.join(' '.join(parts).split())
    return text if len(text) <= 120 else text[:117] + '...'


def _field_of(thing: str, values: Any, path: str = '') -> str | None:  # noqa: ANN401
    """The path of the config's field whose text occurs in ``thing``."""
    if isinstance(values, str):
        return path if len(values) > 3 and values in thing else None
    items: Any = ()
    if isinstance(values, Mapping):
        items = values.items()
    elif isinstance(values, (list, tuple)):
        items = enumerate(values)
    for key, value in items:
        if place := _field_of(thing, value, f'{path}.{key}' if path else str(key)):
            return place
    return None
