"""Loading Swin-L costs little more memory than its file has bytes, and little time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swin_dense.checkpoints import files
from swin_dense.checkpoints.convert import TARGETS, export, recognise
from swin_dense.models import SwinTransformer
from tests.checkpoints.ways import ROOT

LARGE = dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48), window_size=12)
MEASURE = f"""
import json, sys, time
from pathlib import Path
from swin_dense import hosts
hosts.prepare()
import torch
from swin_dense.checkpoints import Pretrained
from swin_dense.models import SwinTransformer

def status(name):
    line = next(line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])

with torch.device('meta'):
    model = SwinTransformer(**{LARGE})
model.to_empty(device='cpu')
for parameter in model.parameters():
    torch.nn.init.zeros_(parameter)
with open(sys.argv[1], 'rb') as file:
    while file.read(2**24):  # into the page cache
        pass
Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
before, times = status('VmRSS'), []
for _ in range(3):
    # the processor's time: others may be busy on this machine, too
    start = time.process_time()
    Pretrained(sys.argv[1])(model)
    times.append(time.process_time() - start)
print(json.dumps(dict(peak=status('VmHWM') - before, seconds=min(times))))
"""


def swin_l(target: str, path: Path) -> None:
    with torch.device('meta'):
        shapes = {key: x.shape for key, x in SwinTransformer(**LARGE).state_dict().items()}
    weights = {key: 0.02 * torch.randn(shape) for key, shape in shapes.items() if not key.startswith('norm')}
    weights |= {'norm.weight': torch.ones(1536), 'norm.bias': torch.zeros(1536)}
    weights |= {'head.weight': torch.zeros(1000, 1536), 'head.bias': torch.zeros(1000)}
    files.write_tensors(path, export(recognise(weights), target), TARGETS[target])


@pytest.mark.slow
@pytest.mark.skipif(not os.access('/proc/self/clear_refs', os.W_OK), reason='the peak cannot be measured')
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('target', ['microsoft', 'timm', 'hf', 'mmdet'])
def test_swin_l(target: str, suffix: str, tmp_path: Path):
    path = tmp_path / f'swin_l{suffix}'
    swin_l(target, path)
    done = subprocess.run(
        [sys.executable, '-c', MEASURE, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    size = path.stat().st_size
    path.unlink()
    assert size > 780e6
    measured = json.loads(done.stdout.splitlines()[-1])
    print(f'{target}{suffix}: {measured["peak"] / size:.3f} of the file, {measured["seconds"]:.2f} s')
    assert measured['peak'] <= 1.1 * size
    assert measured['seconds'] < 2
