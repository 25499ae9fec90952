"""Files and addresses that leave a trace where they are unpickled, run, evaluated, imported or fetched."""

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class _Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return open, (str(self.trace), 'w')


@dataclass
class Canaries:
    """One file of each kind; all leave the same trace.

    Attributes:
        address: of a server that hands out the pickle.
        asked: what was fetched from it.
    """

    folder: Path
    address: str = ''
    asked: list[str] = field(default_factory=list)

    @property
    def trace(self) -> Path:
        return self.folder / 'trace'

    @property
    def code(self) -> str:
        """An expression that leaves the trace."""
        return f'open({str(self.trace)!r}, "w").close()'

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def write(self) -> None:
        payload = pickle.dumps(_Payload(self.trace))
        for name in ('x.pkl', 'x.pth', 'x.npy', 'x'):
            (self.folder / name).write_bytes(payload)
        (self.folder / 'x.yaml').write_text(f'!!python/object/apply:builtins.open ["{self.trace}", "w"]')
        (self.folder / 'x.py').write_text(f'{self.code}\nmodel = dict()')
        package = self.folder / 'stranger'
        package.mkdir(exist_ok=True)
        for name in ('__init__.py', 'registry.py'):
            (package / name).write_text(self.code)

    def sang(self) -> bool:
        """Whether any of them was opened, run or fetched."""
        return self.trace.exists() or bool(self.asked)


@contextmanager
def served(canaries: Canaries) -> Iterator[None]:
    """Hand out the pickle over http on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            canaries.asked.append(self.path)
            content = (canaries.folder / 'x.pkl').read_bytes()
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(('127.0.0.1', 0), Handler)
    canaries.address = f'http://127.0.0.1:{server.server_port}'
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
