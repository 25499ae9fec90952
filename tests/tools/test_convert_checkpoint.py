"""tools/convert_checkpoint.py: what it says of a file, and what it writes."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from swin_dense.checkpoints.architecture import architecture
from swin_dense.checkpoints.convert import TARGETS, export, open_swin, recognise
from swin_dense.models import SwinTransformer, SwinTransformerV2
from tests.checkpoints import microsoft
from tests.tools.loading import load_tool
from tests.tools.running import Ended, in_process

WEIGHTS = {
    1: microsoft.weights(microsoft.classifier_v1()),
    2: microsoft.weights(microsoft.classifier_v2()),
}


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    return partial(in_process(monkeypatch, capfd), 'convert_checkpoint')


def saved(tensors: dict[str, Tensor], folder: Path, name: str = 'swin.pth') -> Path:
    torch.save(dict(model=tensors), folder / name)
    return folder / name


def test_the_report_for_people(tmp_path: Path, convert: Callable):
    path = saved(WEIGHTS[1], tmp_path)
    ended = convert(path, '--report')
    assert (ended.status, ended.err) == (0, '')
    assert ended.out.splitlines() == [
        f'weights: {path} (Microsoft, Swin v1 8 channels, depths (2, 1, 3, 2), window 2): 117 of 125 tensors '
        'matched, 99.8% of the parameters filled',
        '  missing 8: norm0.weight, norm0.bias, norm1.weight, norm1.bias, ...',
        '  not used 4: norm.weight, norm.bias, head.weight, head.bias',
    ]


def test_the_report_for_programs(tmp_path: Path, convert: Callable):
    tensors = {
        f'backbone.{key}': x for key, x in WEIGHTS[2].items() if not key.startswith(('norm.', 'head.'))
    }
    path = saved({**tensors, 'neck.conv.weight': torch.zeros(3)}, tmp_path)
    del tensors['backbone.layers.2.blocks.1.mlp.fc2.bias']
    path = saved({**tensors, 'neck.conv.weight': torch.zeros(3)}, tmp_path)
    report = json.loads(convert(path, '--report', 'json').out)
    assert set(report) == {
        'file', 'source', 'matched', 'adapted', 'missing', 'unexpected', 'dropped', 'filled',
    }  # fmt: skip
    assert report['file'] == str(path)
    assert report['source'] == 'Microsoft, Swin v2 8 channels, depths (2, 1, 3, 2), window not told'
    assert report['matched'] == [key.removeprefix('backbone.') for key in sorted_as_built(tensors)]
    assert report['missing'][0] == 'layers.2.blocks.1.mlp.fc2.bias'
    assert report['unexpected'] == ['neck.conv.weight']
    assert (report['adapted'], report['dropped']) == ({}, {})
    assert 0.99 < report['filled'] < 1


def sorted_as_built(tensors: dict[str, Tensor]) -> list[str]:
    order = list(SwinTransformerV2(**microsoft.SMALL).state_dict())
    return sorted(tensors, key=lambda key: order.index(key.removeprefix('backbone.')))


TINY = dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24))
LARGE = dict(embed_dims=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48))
KINDS = {
    'Swin v1 Tiny, window 7': (SwinTransformer, TINY),
    'Swin v1 Small, window 7': (SwinTransformer, dict(TINY, depths=(2, 2, 18, 2))),
    'Swin v1 Base, window 12': (
        SwinTransformer,
        dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=12),
    ),
    'Swin v1 Large, window 7': (SwinTransformer, LARGE),
    'Swin v1 48 channels, depths (1, 3), window 5': (
        SwinTransformer,
        dict(embed_dims=48, depths=(1, 3), num_heads=(3, 6), window_size=5, in_channels=4)
        | dict(out_indices=(0, 1)),
    ),
    'Swin v2 Tiny, window not told': (SwinTransformerV2, TINY),
    'Swin v2 16 channels, depths (4, 4, 4, 4), window not told': (
        SwinTransformerV2,
        dict(embed_dims=16, depths=(4,) * 4, num_heads=(1, 2, 4, 8))
        | dict(extra_norm_every=2, mlp_ratio=2.0, qkv_bias=False),
    ),
}  # fmt: skip


@pytest.mark.parametrize('title', KINDS)
def test_the_architecture_is_read_off_the_shapes(title: str):
    cls, arguments = KINDS[title]
    with torch.device('meta'):
        kind = architecture(recognise(cls(**arguments).state_dict()))
    assert str(kind) == title
    defaults = dict(in_channels=3, mlp_ratio=4.0, qkv_bias=True, extra_norm_every=None)
    for name, value in {**defaults, **arguments}.items():
        if name not in ('window_size', 'out_indices'):
            assert getattr(kind, name) == value, name


@pytest.mark.parametrize('window', [[8, 8, 8, 8], [16, 16, 16, 8]])
def test_the_windows_of_a_v2_that_tells_them(window: list[int], tmp_path: Path, convert: Callable):
    """At 256 pixels a window of 16 does not fit into the last stage, and Microsoft and timm shrink it."""
    tables = {
        f'layers.{i}.blocks.{j}.attn.relative_coords_table': microsoft.coordinates(window[i], window[i])
        for i, j, _, _ in microsoft.blocks()
    }
    out = convert(saved(WEIGHTS[2] | tables, tmp_path), '--report').out
    assert f'window {" and ".join(map(str, sorted(set(window))))}): ' in out


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize('target', TARGETS)
def test_what_is_written(target: str, suffix: str, tmp_path: Path, convert: Callable):
    path, out = saved(WEIGHTS[1], tmp_path), tmp_path / 'new' / f'out{suffix}'
    ended = convert(path, out, '--to', target)
    assert (ended.status, ended.err) == (0, '')
    expected = export(open_swin(str(path)), target)
    assert f'written: {out} ({target}, {len(expected)} tensors)' in ended.out
    if suffix == '.safetensors':
        found = load_file(out)
    else:
        content = torch.load(out, weights_only=True)
        found = content[TARGETS[target]] if TARGETS[target] else content
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert [p.name for p in out.parent.iterdir()] == [out.name], 'no partial file is left'


def test_the_targets_are_those_of_the_package():
    assert set(load_tool('convert_checkpoint').FAMILIES) == set(TARGETS)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_file_in_place_of_itself(suffix: str, tmp_path: Path, convert: Callable):
    path = tmp_path / f'swin{suffix}'
    convert(saved(WEIGHTS[1], tmp_path, 'first'), path, '--to', 'timm')
    assert convert(path, path, '--to', 'hf').status == 0
    assert convert(path, path).status == 0
    assert all(torch.equal(open_swin(str(path)).weights[key], x) for key, x in WEIGHTS[1].items())


def test_a_whole_detector_goes_along(tmp_path: Path, convert: Callable):
    tensors = microsoft.weights(microsoft.backbone_v1()) | {'neck.conv.weight': torch.randn(3)}
    convert(saved(tensors, tmp_path), tmp_path / 'mmdet.pth', '--to', 'mmdet')
    found = torch.load(tmp_path / 'mmdet.pth', weights_only=True)['state_dict']
    assert torch.equal(found['neck.conv.weight'], tensors['neck.conv.weight'])
    assert 'backbone.stages.0.blocks.0.attn.w_msa.qkv.weight' in found
    convert(tmp_path / 'mmdet.pth', tmp_path / 'timm.pth', '--to', 'timm')
    assert not any('neck' in key for key in torch.load(tmp_path / 'timm.pth', weights_only=True))


def test_weights_that_share_memory(tmp_path: Path, convert: Callable):
    """As those of heads that are one module under two names; safetensors does not take them as they are."""
    shared = torch.randn(4, 4)
    tensors = microsoft.weights(microsoft.backbone_v1()) | {'head.a.weight': shared, 'head.b.weight': shared}
    assert convert(saved(tensors, tmp_path), tmp_path / 'out.safetensors').status == 0
    found = load_file(tmp_path / 'out.safetensors')
    assert torch.equal(found['head.a.weight'], shared)
    assert torch.equal(found['head.b.weight'], shared)


@pytest.mark.parametrize('sides', [['4'], ['4', '4', '4', '2']])
def test_the_window_of_a_v2(sides: list[str], tmp_path: Path, convert: Callable):
    path, out = saved(WEIGHTS[2], tmp_path), tmp_path / 'out.pth'
    told = ['--to', 'torchvision', '--window', *sides, '--pretrained-window', '8']
    assert convert(path, out, *told).status == 0
    swin = open_swin(str(out))
    expected = [int(side) for side in (sides * 4)[:4]]
    assert [swin.window(f'layers.{i}.blocks.0') for i in range(4)] == expected
    for i, side in enumerate(expected):
        table = swin.derived[f'layers.{i}.blocks.0.attn.relative_coords_table']
        torch.testing.assert_close(table, microsoft.coordinates(side, 8), rtol=0, atol=1e-6)


MISTAKES = {
    (): 'name a file to write, or --report',
    ('{tmp}/out.pth', '--to', 'mmdet'): 'mmdet has no Swin v2: convert to swin_dense, microsoft, timm, ',
    ('{tmp}/out.pth', '--to', 'microsoft'): 'this file does not tell: add --window SIDE',
    (
        '{tmp}/out.pth',
        '--window',
        '4',
        '2',
    ): 'a window of 4 2: give one side, or one for each of the 4 stages',
    ('{tmp}/out.pth', '--window', '0'): 'a window of 0: give one side, or one for each of the 4 stages',
    ('{tmp}/out.pth', '--pretrained-window', '1', '2', '3'): 'a window of 1 2 3: give one side',
    ('{tmp}',): '{tmp} cannot be written: ',
    ('{tmp}/swin.pth/out.pth',): '{tmp}/swin.pth/out.pth cannot be written: ',
    ('/proc/swin.pth',): '/proc/swin.pth cannot be written: ',
    ('/proc/swin.safetensors',): '/proc/swin.safetensors cannot be written: ',
}


@pytest.mark.parametrize('arguments', MISTAKES, ids=' '.join)
def test_mistakes(arguments: tuple[str, ...], tmp_path: Path, convert: Callable):
    path = saved(WEIGHTS[2], tmp_path)
    line = convert(path, *(x.format(tmp=tmp_path) for x in arguments)).error()
    assert MISTAKES[arguments].format(tmp=tmp_path) in line
    assert [p.name for p in tmp_path.iterdir()] == ['swin.pth'], 'nothing is left'


def test_a_full_disk(tmp_path: Path, convert: Callable, monkeypatch: pytest.MonkeyPatch):
    """The file that was there stays, and no partial one is left."""

    def save(content: object, path: Path) -> None:
        path.write_bytes(b'half of')
        raise OSError(28, 'No space left on device')

    path, out = saved(WEIGHTS[1], tmp_path), tmp_path / 'out.pth'
    out.write_text('the old one')
    monkeypatch.setattr(torch, 'save', save)
    line = convert(path, out).error(status=74)
    assert f'{out} cannot be written: the disk is full (7 bytes wanted, ' in line
    assert out.read_text() == 'the old one'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['out.pth', 'swin.pth']


def test_an_unknown_library(tmp_path: Path, convert: Callable):
    ended = convert(saved(WEIGHTS[1], tmp_path), tmp_path / 'out.pth', '--to', 'keras')
    assert ended.status == 2
    assert "invalid choice: 'keras'" in ended.err
