"""The doctor's report."""

import shutil
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from swin_dense.errors import exit_on_user_error
from swin_dense.hosts import packages
from tests.tools.loading import load_tool
from tests.tools.runs import ITERS, Run, one_line, run


def test_the_doctor():
    done = run('tools/doctor.py')
    assert done.stderr == ''
    for name in (
        *(requirement.name for requirement in packages.REQUIREMENTS),
        'mmcv',
        'NMS, RoIAlign',
        'device',
    ):
        assert name in done.stdout, name
    assert str(packages.installed_version('torch')) in done.stdout
    assert '\x1b' not in done.stdout


@pytest.mark.parametrize(
    ('version', 'expected'),
    [
        (None, "mmsegmentation is not installed: pip install 'mmsegmentation>=1.2.2,<1.3'"),
        (Version('1.3.0'), 'mmsegmentation 1.3.0 is installed, but >=1.2.2,<1.3 is needed: pip install'),
    ],
)
def test_the_doctor_where_a_package_is_missing(
    version: Version | None, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    real = packages.installed_version
    fake = {'mmsegmentation': version}
    monkeypatch.setattr(
        packages, 'installed_version', lambda name: fake[name] if name in fake else real(name)
    )
    monkeypatch.setattr(sys, 'argv', ['doctor'])
    with pytest.raises(SystemExit) as ended:
        exit_on_user_error(load_tool('doctor').main)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert expected in one_line(err)
    assert 'pip install' in out
    assert 'torchvision' in out


def test_the_doctor_on_a_run(segmentation: Run, tmp_path: Path):
    folder = Path(shutil.copytree(segmentation.folder, tmp_path / 'run'))
    torn = folder / 'iter_99.pth'
    torn.write_bytes((folder / f'iter_{ITERS}.pth').read_bytes()[:-100])
    done = run('tools/doctor.py', '--run', folder)
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if '.pth' in line and '│' in line}
    assert 'cannot be read' in lines['iter_99.pth']
    assert 'whole: --resume goes on from it' in lines[f'iter_{ITERS}.pth']
    assert 'held by' in done.stdout
    assert 'nobody' in done.stdout
    (folder / f'iter_{ITERS}.pth').unlink()
    assert 'nothing to resume' in one_line(run('tools/doctor.py', '--run', folder, status=2).stderr)
