"""The tools in this process, a loopback server, what is said on the terminal, and a little data."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from swin_dense.demo import shapes
from tests.tools.running import in_process


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable:
    """``tool('train', ...)`` does what tools/train.py does."""
    return in_process(monkeypatch, capfd)


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
