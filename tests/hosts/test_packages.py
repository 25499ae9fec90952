import importlib
import os
import pickle
import sys
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import mmengine.device.utils
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from packaging.version import Version

from swin_dense.errors import UserError
from swin_dense.hosts import packages


def test_prepare_names_the_backend_and_does_its_work_once():
    extension = sys.modules['mmcv._ext']
    assert packages.prepare() in ('mmcv', 'torchvision')
    assert packages.prepare() == packages.prepare.__wrapped__() == packages.prepare()
    assert sys.modules['mmcv._ext'] is extension
    assert importlib.import_module('mmcv.ops').nms


def test_nothing_is_wrong_here():
    assert packages.problems() == []


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch):
    """``pretend(name=version)``: other versions than the installed ones, None for not installed."""
    installed = packages.installed_version

    def change(**versions: str | None) -> None:
        def installed_version(package: str) -> Version | None:
            key = package.replace('-', '_')
            if key not in versions:
                return installed(package)
            return Version(versions[key]) if versions[key] else None

        monkeypatch.setattr(packages, 'installed_version', installed_version)

    return change


@pytest.mark.parametrize(
    ('package', 'fix'),
    [
        ('mmdet', "pip install 'mmdet>=3.3,<3.4'"),
        ('mmsegmentation', "pip install 'mmsegmentation>=1.2.2,<1.3'"),
        ('torchvision', 'pip install torchvision'),
        ('ftfy', 'pip install ftfy'),
    ],
)
def test_a_missing_package(pretend: object, package: str, fix: str):
    pretend(**{package: None})
    with pytest.raises(UserError) as caught:
        packages.prepare.__wrapped__()
    assert str(caught.value) == f'{package} is not installed: {fix}'


@pytest.mark.parametrize(
    ('package', 'version', 'needed'),
    [
        ('mmdet', '3.2.0', '>=3.3,<3.4'),
        ('mmdet', '3.4.1', '>=3.3,<3.4'),
        ('mmengine', '0.7.0', '>=0.10.7'),
        ('torch', '2.9.1', '>=2.10'),
        ('setuptools', '81.0.0', '<81'),
    ],
)
def test_an_unsupported_version(pretend: object, package: str, version: str, needed: str):
    pretend(**{package: version})
    with pytest.raises(UserError) as caught:
        packages.prepare.__wrapped__()
    message = str(caught.value)
    assert message.startswith(f'{package} {version} is installed, but {needed} is needed: pip install')
    assert '\n' not in message


def test_all_problems_in_one_line(pretend: object):
    pretend(mmdet=None, torch='2.4.0')
    with pytest.raises(UserError) as caught:
        packages.prepare.__wrapped__()
    assert str(caught.value).count('; ') == 1
    assert 'torch 2.4.0' in str(caught.value)
    assert 'mmdet is not' in str(caught.value)


def test_either_mmcv_will_do(pretend: object):
    pretend(mmcv='2.1.0', mmcv_lite=None)
    assert packages.problems() == []
    pretend(mmcv=None, mmcv_lite='2.1.0')
    assert packages.problems() == []
    pretend(mmcv=None, mmcv_lite=None)
    assert packages.problems() == ["mmcv-lite is not installed: pip install 'mmcv-lite>=2.0.1,<2.2'"]


def test_an_unsupported_full_mmcv_must_go_before_another_comes(pretend: object):
    pretend(mmcv='2.2.0', mmcv_lite='2.1.0')
    (problem,) = packages.problems()
    assert problem.startswith('mmcv 2.2.0 is installed, but >=2.0.1,<2.2 is needed: pip uninstall mmcv; pip')


def test_local_and_pre_release_versions_count(pretend: object):
    pretend(torch='2.12.0a0+git123', torchvision='0.26.0+cpu')
    assert packages.problems() == []


def test_a_compiled_extension_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    compiled = ModuleType('mmcv._ext')
    compiled.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin='mmcv/_ext.so')
    monkeypatch.setitem(sys.modules, 'mmcv._ext', compiled)
    assert packages._provide_ops() == 'mmcv'
    assert sys.modules['mmcv._ext'] is compiled


def test_an_absent_extension_is_replaced(monkeypatch: pytest.MonkeyPatch):
    def no_extension(name: str) -> ModuleType:
        if name in sys.modules:
            return sys.modules[name]
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, 'import_module', no_extension)
    monkeypatch.delitem(sys.modules, 'mmcv._ext')
    assert packages._provide_ops() == 'torchvision'
    stand_in = sys.modules['mmcv._ext']
    assert stand_in.nms.__module__ == 'swin_dense.hosts.ops.boxes'
    assert packages._provide_ops() == 'torchvision'
    assert sys.modules['mmcv._ext'] is stand_in


@pytest.fixture
def device_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without accelerators, whose settings are put back afterwards."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    monkeypatch.setattr(mmengine.device.utils, 'DEVICE', 'unset')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: False)
    return monkeypatch


@pytest.mark.parametrize('device', ['cuda', 'cuda:1', 'mps'])
def test_a_device_that_the_machine_lacks(device_settings: pytest.MonkeyPatch, device: str):
    with pytest.raises(UserError, match=f'--device {device}: torch .* sees no such device'):
        packages.use_device(device)
    assert mmengine.device.utils.DEVICE == 'unset'


@pytest.mark.parametrize('device', ['nonsense', 'cuda:x', 'gpu', '', '0'])
def test_a_device_that_does_not_exist(device_settings: pytest.MonkeyPatch, device: str):
    with pytest.raises(UserError, match=f'--device {device}: choose cpu, cuda, cuda:N or mps'):
        packages.use_device(device)
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '0'


def test_the_device_is_the_one_that_mmengine_uses(device_settings: pytest.MonkeyPatch):
    packages.use_device(None)
    assert mmengine.device.get_device() == 'unset'
    packages.use_device('cpu')
    assert mmengine.device.get_device() == 'cpu'
    assert os.environ['CUDA_VISIBLE_DEVICES'] == ''
    device_settings.setattr(torch.cuda, 'is_available', lambda: True)
    packages.use_device('cuda:3')
    assert mmengine.device.get_device() == 'cuda'
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '3'


def training_checkpoint() -> dict:
    """What mmengine's Runner saves, as far as it is more than tensors and plain data."""
    hub = MessageHub('test')
    for step in range(5):
        hub.update_scalar('train/loss', 1.0 / (step + 1))
        hub.update_scalar('train/lr', np.float32(0.1))
        hub.update_scalar('train/time', torch.tensor(0.5))
    hub.update_info('iter', 5)
    hub.update_info('metric', np.float64(0.25))
    return dict(
        state_dict={'weight': torch.arange(3.0)},
        message_hub=hub.state_dict(),
        meta=dict(
            epoch=1, palette=np.zeros((2, 3), dtype=np.uint8), flags=np.array([True, False]), seed=np.int64(3)
        ),
    )


def check_loaded(content: dict) -> None:
    loss = content['message_hub']['log_scalars']['train/loss']
    assert type(loss) is HistoryBuffer
    assert loss.mean() == pytest.approx(np.mean([1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]))
    assert loss.statistics('min') == pytest.approx(0.2)
    assert content['message_hub']['runtime_info']['metric'] == 0.25
    assert content['meta']['palette'].shape == (2, 3)
    assert content['meta']['flags'].tolist() == [True, False]
    assert content['meta']['seed'] == 3
    assert torch.equal(content['state_dict']['weight'], torch.arange(3.0))


def test_a_training_checkpoint_loads_safely(tmp_path: Path):
    torch.save(training_checkpoint(), tmp_path / 'epoch_1.pth')
    check_loaded(torch.load(tmp_path / 'epoch_1.pth', weights_only=True))


def test_a_training_checkpoint_of_the_older_numpy_loads_safely(tmp_path: Path):
    """numpy 1 writes numpy.core where numpy 2 writes numpy._core."""
    torch.save(training_checkpoint(), tmp_path / 'numpy2.pth')
    with (
        zipfile.ZipFile(tmp_path / 'numpy2.pth') as source,
        zipfile.ZipFile(tmp_path / 'numpy1.pth', 'w') as target,
    ):
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('data.pkl'):
                assert b'cnumpy._core.multiarray\n' in content or np.__version__ < '2'
                content = content.replace(b'cnumpy._core.multiarray\n', b'cnumpy.core.multiarray\n')
            target.writestr(name, content)
    check_loaded(torch.load(tmp_path / 'numpy1.pth', weights_only=True))


class Payload:
    """Runs a function while it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple:
        return self.reduced


def test_a_pickle_that_runs_a_command_is_refused_and_not_run(tmp_path: Path):
    trace = tmp_path / 'trace'
    torch.save(dict(state_dict=Payload(os.system, f'touch {trace}')), tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='system'):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
    assert not trace.exists()
    torch.load(tmp_path / 'evil.pth', weights_only=False)
    assert trace.exists(), 'the payload would have worked'


@pytest.mark.parametrize(
    ('owner', 'name'),
    [(HistoryBuffer, '__init__'), (HistoryBuffer, '__setstate__'), (np.ndarray, 'tofile'), (dict, 'min')],
)
def test_getattr_is_no_way_around(tmp_path: Path, owner: type, name: str):
    """The allow-list has a stand-in for getattr, which gives a HistoryBuffer's statistics only."""
    torch.save(Payload(getattr, owner, name), tmp_path / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'evil.pth', weights_only=True)
