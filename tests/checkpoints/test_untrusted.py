"""Untrusted files: refused in one line, and nothing in them is ever run (rows 1-4 of the fault matrix)."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from swin_dense.checkpoints import files
from swin_dense.checkpoints.convert import open_swin
from swin_dense.errors import UnsafeFileError, UserError
from tests.checkpoints import microsoft
from tests.checkpoints.ways import COMMANDS, ROOT, commands
from tests.engine.test_runner import trained

WEIGHTS = microsoft.weights(microsoft.classifier_v1())


class Payload:
    """Calls a function while it is unpickled."""

    def __init__(self, call: Callable, *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple:
        return self.call, self.arguments


class Import(Payload):
    """The same through the state of an object that an allow-list lets pass."""

    def __reduce__(self) -> tuple:
        return dict, (), None, None, iter([('x', Payload(self.call, *self.arguments))])


def payloads(trace: Path) -> dict[str, Payload]:
    touch, python = f'touch {trace}', f'open({str(trace)!r}, "w").close()'
    return {
        'system': Payload(os.system, touch),
        'eval': Payload(eval, python),
        'exec': Payload(exec, python),
        'popen': Payload(subprocess.check_call, touch.split()),
        'inside': Import(os.system, touch),
    }


PLACES: dict[str, Callable[[object], object]] = {
    'everything': lambda payload: payload,
    'beside': lambda payload: dict(model=WEIGHTS, epoch=payload),
    'among the weights': lambda payload: dict(model={**WEIGHTS, 'head.bias': payload}),
    'meta': lambda payload: dict(state_dict=WEIGHTS, meta=dict(cfg=payload)),
    'message hub': lambda payload: dict(state_dict=WEIGHTS, message_hub=dict(runtime_info=payload)),
}


SAVE: dict[str, Callable[[object, Path], object]] = {
    'zip': torch.save,
    'newer zip': lambda content, path: torch.save(content, path, pickle_protocol=5),
    'older format': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'pickle': lambda content, path: path.write_bytes(pickle.dumps(content)),
    'text pickle': lambda content, path: path.write_bytes(pickle.dumps(content, 0)),
}
HIDDEN = [*((name, 'beside') for name in payloads(Path())), *(('system', place) for place in PLACES)]


@pytest.mark.parametrize('how', SAVE)
@pytest.mark.parametrize(('name', 'place'), dict.fromkeys(HIDDEN))
def test_a_payload_is_not_run(name: str, place: str, how: str, tmp_path: Path):
    trace, path = tmp_path / 'trace', tmp_path / 'swin.pth'
    SAVE[how](PLACES[place](payloads(trace)[name]), path)
    with pytest.raises(UnsafeFileError, match=r'is refused: it holds [\w.]+, code that opening it') as caught:
        open_swin(str(path))
    assert caught.value.status == 3
    assert not trace.exists()
    if 'pickle' in how:
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trace.exists(), 'it would do its work'


@pytest.mark.parametrize('protocol', [0, 1, 4, 5])
def test_weights_alone_in_a_pickle_that_torch_does_not_read(protocol: int, tmp_path: Path):
    torch.save(WEIGHTS, tmp_path / 'swin.pth', pickle_protocol=protocol)
    with pytest.raises(UserError, match=r'cannot be read safely: Unsupported operand \d+$') as caught:
        open_swin(str(tmp_path / 'swin.pth'))
    assert caught.value.status == 2


def hostile(folder: Path) -> tuple[Path, Path]:
    """A file that would leave a trace, and the trace."""
    torch.save(
        dict(model=WEIGHTS, epoch=Payload(os.system, f'touch {folder / "trace"}')), folder / 'swin.pth'
    )
    return folder / 'swin.pth', folder / 'trace'


@pytest.mark.parametrize('command', COMMANDS)
def test_no_way_leads_to_a_payload(command: str, data: Path, tmp_path: Path, tool: Callable):
    path, trace = hostile(tmp_path)
    line = tool(*commands(path, data, tmp_path)[command]).error(status=3)
    assert f'checkpoint {path} is refused: it holds posix.system' in line
    assert not trace.exists()


@pytest.mark.parametrize('command', ['train --checkpoint', 'report'])
def test_nor_over_http(command: str, data: Path, tmp_path: Path, tool: Callable, server: str):
    _, trace = hostile(tmp_path)
    line = tool(*commands(f'{server}/swin.pth', data, tmp_path)[command]).error(status=3)
    assert 'is refused: it holds posix.system' in line
    assert not trace.exists()


@pytest.mark.parametrize('command', ['train init_cfg', 'convert'])
def test_a_process_of_its_own(command: str, data: Path, tmp_path: Path):
    path, trace = hostile(tmp_path)
    name, *arguments = commands(path, data, tmp_path)[command]
    line = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]
    done = subprocess.run(
        line, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith('error: checkpoint ')
    assert done.stderr.count('\n') == 1
    assert not trace.exists()


@pytest.mark.parametrize(
    ('place', 'key'), [('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'cfg'), ('message_hub', 'config')]
)
def test_python_text_is_never_run(place: str, key: str, tmp_path: Path):
    """mmengine would run meta.config when it resumes; nothing of ours reads the others."""
    trained(tmp_path / 'run', 1)
    path, trace = tmp_path / 'run' / 'epoch_1.pth', tmp_path / 'trace'
    content = torch.load(path, weights_only=False)
    where = content['meta'] if place == 'meta' else content['message_hub']['runtime_info']
    where[key] = f'open({str(trace)!r}, "w").close()'
    content['message_hub']['resumed_keys'][key] = True
    torch.save(content, path)
    if (place, key) == ('meta', 'config'):
        with pytest.raises(UnsafeFileError, match=r'meta\.config is Python text, which resuming would run'):
            trained(tmp_path / 'run', 2, path)
    else:
        assert trained(tmp_path / 'run', 2, path).epoch == 2
    assert not trace.exists()


def test_settings_of_microsofts_training_are_plain_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its checkpoints hold a yacs.config.CfgNode, a dict; yacs need not be there."""
    module = type(sys)('yacs.config')
    module.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})
    settings = module.CfgNode(MODEL=module.CfgNode(TYPE='swin'), OUTPUT='x')
    settings.__dict__['__immutable__'] = True
    path = tmp_path / 'ckpt_epoch_299.pth'
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'yacs.config', module)
        patch.setitem(sys.modules, 'yacs', type(sys)('yacs'))
        torch.save(dict(model=WEIGHTS, config=settings), path)
    assert files.read_checkpoint(path)['config'] == dict(MODEL=dict(TYPE='swin'), OUTPUT='x')
    assert open_swin(str(path)).title == 'Microsoft, Swin v1'


def test_a_model_is_no_bag_of_tensors(tmp_path: Path, tool: Callable):
    """A pickled module names its class; a TorchScript archive is a program."""
    torch.save(nn.Linear(2, 2), tmp_path / 'module.pth')
    assert 'it holds torch.nn' in tool('convert_checkpoint', tmp_path / 'module.pth', '--report').error(
        status=3
    )
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / 'script.pth'))
    assert 'it holds __torch__' in tool('convert_checkpoint', tmp_path / 'script.pth', '--report').error(
        status=3
    )
