"""The audit hook alone: what no check of values knows is stopped when it happens."""

import io
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from swin_dense import trust
from swin_dense.errors import UnsafeFileError
from swin_dense.predict import model
from tests.trust.canaries import Canaries

ADDRESS = ('127.0.0.1', 9)
DEEDS: dict[str, tuple[Callable[[Canaries], object], str]] = {
    'unpickle': (lambda c: pickle.loads(Path(c.path('x.pkl')).read_bytes()), 'unpickle'),
    'unpickle in C': (lambda c: pickle.load(io.BytesIO(pickle.dumps(os.getcwd))), 'unpickle posix getcwd'),
    'unsafe torch': (lambda c: torch.load(c.path('x.pth'), weights_only=False), 'unpickle'),
    'open': (lambda c: open(__file__), f'open {__file__}'),  # noqa: PTH123, SIM115
    'os.open': (lambda c: os.open(__file__, os.O_RDONLY), 'open'),
    'write': (lambda c: c.trace.write_text('x'), 'write'),
    'append': (lambda c: c.trace.open('a'), 'write'),
    'remove': (lambda c: os.remove(c.path('x')), 'remove'),  # noqa: PTH107
    'rename': (lambda c: os.rename(c.path('x'), c.trace), 'rename'),  # noqa: PTH104
    'link': (lambda c: c.trace.symlink_to(c.path('x')), 'link'),
    'folder': (lambda c: c.trace.mkdir(), 'make'),
    'system': (lambda c: os.system(f'touch {c.trace}'), 'start touch'),
    'popen': (lambda c: subprocess.run(['touch', c.trace]), 'start touch'),
    'spawn': (lambda c: os.posix_spawn('/bin/touch', ['touch', str(c.trace)], {}), 'start'),
    'connect': (lambda c: socket.create_connection(ADDRESS), 'connect'),
    'fetch': (lambda c: torch.hub.download_url_to_file(f'{c.address}/x.pth', str(c.trace)), 'fetch'),
    'import': (lambda c: __import__('stranger'), 'stranger'),
    'library': (lambda c: __import__('ctypes').CDLL(c.path('x')), 'load'),
    'eval by a host': (lambda c: eval(HOST, dict(__name__='mmdet.models.x', code=c.code)), 'evaluate open('),
}
HOST = compile('eval(code)', 'x.py', 'eval')


@pytest.mark.parametrize('swallowed', [False, True], ids=['raised', 'swallowed'])
@pytest.mark.parametrize('name', DEEDS)
def test_a_deed_is_refused(name: str, swallowed: bool, canaries: Canaries):
    deed, told = DEEDS[name]
    allowed = [canaries.path(x) for x in ('x.pkl', 'x.pth')]

    def build() -> None:
        try:
            deed(canaries)
        except Exception:
            if not swallowed:
                raise

    with (
        pytest.raises(UnsafeFileError, match=r'^checkpoint x is refused: ') as caught,
        trust.guarded(allowed, 'checkpoint x'),
    ):
        build()
    assert told in str(caught.value)
    assert caught.value.status == 3
    assert not canaries.sang()


@pytest.mark.parametrize('name', ['write', 'popen', 'system', 'unpickle', 'eval by a host', 'import'])
def test_outside_the_block_it_happens(name: str, canaries: Canaries):
    with trust.guarded([], 'checkpoint x'):
        pass
    DEEDS[name][0](canaries)
    assert canaries.sang()


def test_what_reading_needs_is_allowed(tmp_path: Path, canaries: Canaries):
    torch.save(dict(a=torch.ones(3)), tmp_path / 'a.pth')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder' / 'b').write_text('b')
    (tmp_path / 'link').symlink_to(__file__)
    with trust.guarded([tmp_path / 'a.pth', tmp_path / 'folder'], 'checkpoint a'):
        for mapped in (True, False):
            assert torch.equal(
                torch.load(tmp_path / 'a.pth', weights_only=True, mmap=mapped)['a'], torch.ones(3)
            )
        assert (tmp_path / 'folder' / 'b').read_text() == 'b'
        import this  # noqa: F401  of the standard library
    with pytest.raises(UnsafeFileError, match='open'), trust.guarded([tmp_path / 'folder'], 'x'):
        (tmp_path / 'folder' / '..' / 'a.pth').read_bytes()
    with pytest.raises(UnsafeFileError, match='open'), trust.guarded([tmp_path / 'a.pth'], 'x'):
        (tmp_path / 'link').read_bytes()


def test_blocks_inside_one_another(tmp_path: Path):
    (tmp_path / 'a').write_text('a')
    (tmp_path / 'b').write_text('b')
    with trust.guarded([tmp_path / 'a'], 'outer'):
        with trust.guarded([tmp_path / 'b'], 'inner'):
            assert (tmp_path / 'a').read_text() + (tmp_path / 'b').read_text() == 'ab'
        with pytest.raises(UnsafeFileError, match=r'^inner'), trust.guarded([], 'inner'):
            (tmp_path / 'b').read_text()
        assert (tmp_path / 'a').read_text() == 'a'


def test_other_threads_go_on(tmp_path: Path):
    inside, done, errors = threading.Event(), threading.Event(), []

    def work() -> None:
        inside.wait(10)
        try:
            (tmp_path / 'x').write_text('x')
        except Exception as error:
            errors.append(error)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    with trust.guarded([], 'x'):
        inside.set()
        assert done.wait(10)
    thread.join()
    assert not errors


def test_other_errors_stay_as_they_are():
    before = sys.dont_write_bytecode
    with pytest.raises(ZeroDivisionError), trust.guarded([], 'x'):
        _ = 1 / 0
    assert sys.dont_write_bytecode == before


@pytest.mark.parametrize('swallowed', [False, True], ids=['raised', 'swallowed'])
def test_a_class_that_nobody_knew_of(
    swallowed: bool, checkpoint: Callable, canaries: Canaries, monkeypatch: pytest.MonkeyPatch
):
    """A registered type, in the list of those allowed, which the next version of a host may change so."""
    from mmseg.models.decode_heads import FCNHead

    plain = FCNHead.__init__

    def init(self: nn.Module, *arguments: object, **named: object) -> None:
        try:
            pickle.loads(Path(canaries.path('x.pkl')).read_bytes())
        except Exception:
            if not swallowed:
                raise
        plain(self, *arguments, **named)

    monkeypatch.setattr(FCNHead, '__init__', init)
    path = checkpoint('segmentation', lambda config: None)
    with pytest.raises(UnsafeFileError, match=r'received\.pth is refused: reading or building it would open'):
        model.load_model(str(path), None)
    assert not canaries.sang()


def test_the_field_is_named(checkpoint: Callable, canaries: Canaries, monkeypatch: pytest.MonkeyPatch):
    """Even where only the hook knows, by what is in the config."""
    from mmseg.models.losses import CrossEntropyLoss

    def init(self: nn.Module, avg: str, **named: object) -> None:
        nn.Module.__init__(self)
        pickle.loads((canaries.folder / f'{avg}.pkl').read_bytes())

    monkeypatch.setattr(CrossEntropyLoss, '__init__', init)
    (canaries.folder / 'payload.pkl').write_bytes((canaries.folder / 'x.pkl').read_bytes())

    def change(config: Config) -> None:
        config.model.decode_head.loss_decode.avg = 'payload'

    with pytest.raises(UnsafeFileError, match=r'\(model\.decode_head\.loss_decode\.avg\)'):
        model.load_model(str(checkpoint('segmentation', change)), None)
    assert not canaries.sang()
