"""Every tool's --help comes at once: it imports neither torch nor a host."""

import json
import subprocess
import sys

import pytest

from tests.tools.loading import TOOLS

HEAVY = ['cv2', 'matplotlib', 'mmcv', 'mmdet', 'mmengine', 'mmseg', 'numpy', 'torch', 'torchvision']
CODE = """
import json, runpy, sys
path, heavy = sys.argv[1:]
sys.argv = [path, '--help']
try:
    runpy.run_path(path, run_name='__main__')
except SystemExit as ended:
    assert not ended.code, ended.code
print([name for name in json.loads(heavy) if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize('tool', sorted(path.stem for path in TOOLS.glob('*.py')))
def test_help_imports_nothing_heavy(tool: str):
    command = [sys.executable, '-c', CODE, str(TOOLS / f'{tool}.py'), json.dumps(HEAVY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'usage: {tool}.py')
    assert done.stderr == '[]\n'
