"""The tools in this process, a loopback server, and what is said on the terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import mmengine.device.utils as mmengine_device
import pytest
from rich.console import Console

from swin_dense.data import shapes
from swin_dense.errors import exit_on_user_error
from swin_dense.report import terminal
from tests.tools.loading import load_tool


@dataclass
class Ended:
    """What a tool left: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    def error(self, status: int = 2) -> str:
        """The one line of a refusal."""
        assert self.status == status, f'{self.out}\n{self.err}'
        assert self.err.startswith('error: ')
        assert self.err.count('\n') == 1, self.err
        return self.err


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    """``tool('train', ...)`` does what tools/train.py does."""
    monkeypatch.setattr(mmengine_device, 'DEVICE', mmengine_device.DEVICE)
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', os.environ.get('CUDA_VISIBLE_DEVICES', ''))

    # mmengine prettifies the config four times a run, which takes longer than all the rest
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **style: (text, True))

    def run(name: str, *arguments: object) -> Ended:
        monkeypatch.setattr(terminal, 'console', Console(file=sys.stdout, width=160))
        monkeypatch.setattr(sys, 'argv', [f'tools/{name}.py', *map(str, arguments)])
        status = 0
        try:
            exit_on_user_error(load_tool(name).main)
        except SystemExit as ended:
            status = ended.code
        return Ended(status, *capfd.readouterr())

    return run


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that loading into a backbone says."""
    lines: list[str] = []
    monkeypatch.setattr('swin_dense.checkpoints.pretrained.say', lines.append)
    return lines


class _Handler(SimpleHTTPRequestHandler):
    """Serves files; those named cut.* to half of their announced length."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def copyfile(self, source: object, outputfile: object) -> None:
        content = source.read()
        outputfile.write(content[: len(content) // 2] if Path(self.path).stem == 'cut' else content)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server of ``tmp_path``; downloads go to ``tmp_path / 'hub'``."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    with ThreadingHTTPServer(('127.0.0.1', 0), partial(_Handler, directory=tmp_path)) as serving:
        Thread(target=serving.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{serving.server_port}'
        serving.shutdown()


@pytest.fixture(scope='session')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of shapes."""
    root = tmp_path_factory.mktemp('shapes')
    shapes.write(root, train=2, val=1)
    return root
