"""The doctor's report."""

import pytest
from packaging.version import Version

from swin_dense import hosts
from swin_dense.errors import exit_on_user_error
from tests.tools.loading import load_tool
from tests.tools.runs import one_line, run


def test_the_doctor():
    done = run('tools/doctor.py')
    assert done.stderr == ''
    for name in (
        *(requirement.name for requirement in hosts.REQUIREMENTS),
        'mmcv',
        'NMS, RoIAlign',
        'device',
    ):
        assert name in done.stdout, name
    assert str(hosts.installed_version('torch')) in done.stdout
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
    real = hosts.installed_version
    fake = {'mmsegmentation': version}
    monkeypatch.setattr(hosts, 'installed_version', lambda name: fake[name] if name in fake else real(name))
    with pytest.raises(SystemExit) as ended:
        exit_on_user_error(load_tool('doctor').main)
    assert ended.value.code == 2
    out, err = capfd.readouterr()
    assert expected in one_line(err)
    assert 'pip install' in out
    assert 'torchvision' in out
