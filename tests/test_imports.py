"""Every module can be the first that a program imports, in any order; no host has to be prepared before."""

import json
import pkgutil
import random
import subprocess
import sys
from importlib import resources

import pytest

import swin_dense

MODULES = sorted(module.name for module in pkgutil.walk_packages(swin_dense.__path__, 'swin_dense.'))


def in_a_fresh_interpreter(code: str, *arguments: str) -> str:
    command = [sys.executable, '-c', code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(
    'statement',
    [
        'from swin_dense.models import SwinTransformer',
        'from swin_dense.predict import Predictor',
        'from swin_dense.checkpoints import Pretrained',
        'from swin_dense.data.loading import LoadImage',
        'from swin_dense.evaluate.online import IoUMetric',
        'from swin_dense.engine.runner import Runner',
        'from swin_dense.report import page',
        'from swin_dense.report.model_info import parts',
    ],
)
def test_a_public_import_is_the_first(statement: str):
    in_a_fresh_interpreter(statement)


@pytest.mark.slow
@pytest.mark.parametrize('name', MODULES)
def test_each_module_is_the_first(name: str):
    in_a_fresh_interpreter(f'import {name}')


@pytest.mark.parametrize('seed', range(3))
def test_in_any_order(seed: int):
    names = random.Random(seed).sample(MODULES, len(MODULES))
    code = 'import importlib, json, sys\nfor name in json.loads(sys.argv[1]): importlib.import_module(name)'
    in_a_fresh_interpreter(code, json.dumps(names))


def test_the_package_alone_imports_nothing_more():
    code = 'import os, sys; before = set(sys.modules); import swin_dense; print(*set(sys.modules) - before)'
    assert in_a_fresh_interpreter(code).split() == ['swin_dense']


WHEN_TORCH_IS_IMPORTED = """
import os, sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == 'torch':
            print(os.environ['OMP_WAIT_POLICY'])
sys.meta_path.insert(0, Finder())
from swin_dense.models import SwinTransformer
"""


@pytest.mark.parametrize(('users', 'expected'), [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_openmp_is_told_before_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch, users: str | None, expected: str
):
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    if users:
        monkeypatch.setenv('OMP_WAIT_POLICY', users)
    assert in_a_fresh_interpreter(WHEN_TORCH_IS_IMPORTED).split() == [expected]


def test_type_checkers_see_that_the_package_is_typed():
    assert resources.files('swin_dense').joinpath('py.typed').is_file()
