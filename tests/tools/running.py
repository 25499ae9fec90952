"""The tools in the process of the tests: their exit status and what they print."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mmengine.device.utils as mmengine_device
import pytest
from rich.console import Console

from swin_dense.console import terminal
from swin_dense.errors import exit_on_user_error
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


def in_process(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    """A function that does, given a tool's name and arguments, what a process of its own would."""
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
