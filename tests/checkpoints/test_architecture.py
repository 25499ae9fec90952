"""The shapes that an architecture has, against the models themselves; and conversion without a host."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from swin_dense.checkpoints.architecture import architecture, shapes
from swin_dense.checkpoints.convert import find_swin
from swin_dense.models import SwinTransformer, SwinTransformerV2

ROOT = Path(__file__).parents[2]
KINDS = {
    'v1 Tiny': (SwinTransformer, dict()),
    'v1 with a position embedding': (SwinTransformer, dict(use_abs_pos_embed=True, pretrain_img_size=224)),
    'v1 Base 12': (
        SwinTransformer,
        dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12),
    ),
    'v1 without qkv bias': (SwinTransformer, dict(qkv_bias=False, in_channels=4, mlp_ratio=2)),
    'v1 of three stages': (
        SwinTransformer,
        dict(depths=(1, 3, 2), num_heads=(2, 4, 8), embed_dims=32, out_indices=(0, 1, 2)),
    ),
    'v2 Tiny': (SwinTransformerV2, dict(window_size=8)),
    'v2 Giant in small': (
        SwinTransformerV2,
        dict(window_size=(8, 8, 8, 4), depths=(2, 2, 6, 2), extra_norm_every=3, qkv_bias=False),
    ),
}


@pytest.mark.parametrize('name', KINDS)
def test_shapes_are_those_of_the_model(name: str):
    kind, arguments = KINDS[name]
    with torch.device('meta'):
        model = kind(**arguments)
    state = model.state_dict()
    assert set(state) == set(dict(model.named_parameters())), 'nothing but parameters'
    weights = {key: torch.empty(value.shape) for key, value in state.items()}
    swin = find_swin(weights, 'w.pth')
    found = shapes(architecture(swin), weights.get('absolute_pos_embed'))
    assert list(found.items()) == [(key, tuple(value.shape)) for key, value in state.items()]


def test_a_conversion_imports_no_host(tmp_path: Path):
    model = SwinTransformer(embed_dims=24, num_heads=(1, 2, 4, 8))
    torch.save({'model': model.state_dict()}, tmp_path / 'w.pth')
    code = (
        'import runpy, sys\n'
        f'sys.argv = ["", {str(tmp_path / "w.pth")!r}, {str(tmp_path / "out.pth")!r}, "--to", "timm"]\n'
        'runpy.run_path("tools/convert_checkpoint.py", run_name="__main__")\n'
        'hosts = {"mmcv", "mmdet", "mmengine", "mmseg", "torchvision"} & set(sys.modules)\n'
        'assert not hosts, hosts\n'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'written: ' in done.stdout
    converted = torch.load(tmp_path / 'out.pth')
    expected = model.state_dict()['layers.0.blocks.0.attn.qkv.weight']
    assert torch.equal(converted['layers.0.blocks.0.attn.qkv.weight'], expected)
