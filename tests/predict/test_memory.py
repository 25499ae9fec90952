"""An image of 10000 x 10000 pixels on the CPU: below 3 GB, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.predict.conftest import ROOT, TASKS, Made

PEAK = """
import re, runpy
runpy.run_path('tools/predict.py', run_name='__main__')
print('peak', 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the peak is read from /proc')
@pytest.mark.parametrize('task', TASKS)
def test_memory_of_a_large_image(task: str, made: Made, tmp_path: Path):
    scenes = [cv2.resize(cv2.imread(str(path)), (500, 500)) for path in made.images(task)]
    large = np.zeros((10000, 10000, 3), np.uint8)
    for number in range(400):
        y, x = divmod(number, 20)
        large[y * 500 : y * 500 + 500, x * 500 : x * 500 + 500] = scenes[number % len(scenes)]
    cv2.imwrite(str(tmp_path / 'large.jpg'), large)
    del large
    arguments = [made.checkpoints[task], tmp_path / 'large.jpg', '--tile', '1024', '--out', tmp_path / 'out']
    done = subprocess.run(
        [sys.executable, '-c', PEAK, *map(str, arguments), '--device', 'cpu'],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout.split()[-1])
    print(f'{task}: {peak / 1e9:.2f} GB')
    assert peak < 3e9
    assert max(cv2.imread(str(tmp_path / 'out/pictures/large.jpg')).shape) < 4200
    if task == 'segmentation':
        labels = cv2.imread(str(tmp_path / 'out/label_maps/large.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (10000, 10000)
    else:
        entries = json.loads((tmp_path / 'out/predictions.json').read_text())
        assert len(entries) > 1000
        assert entries[0]['segmentation']['size'] == [10000, 10000]
