"""Broken, foreign and absent files: one line that names the file (rows 8-12 and 14 of the fault matrix)."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swin_dense.checkpoints.convert import export, recognise
from swin_dense.checkpoints.formats import library_names
from swin_dense.checkpoints.pretrained import Pretrained
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer
from tests.checkpoints import microsoft
from tests.checkpoints.ways import commands

WEIGHTS = microsoft.weights(microsoft.classifier_v1())


def safetensors_of(header: bytes, body: bytes = b'', length: int | None = None) -> bytes:
    return struct.pack('<Q', len(header) if length is None else length) + header + body


def tensor(name: str, begin: int, end: int, shape: str = '[2]', dtype: str = 'F32') -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


def broken() -> dict[str, bytes]:
    """By file name. Nothing of these can be read."""
    generator = torch.Generator().manual_seed(0)
    noise = bytes(torch.randint(256, (5000,), generator=generator, dtype=torch.uint8).tolist())
    overlap = f'{{{tensor("a", 0, 8)},{tensor("b", 4, 12)}}}'.encode()
    return {
        'html.pth': b'<!DOCTYPE html><html><title>404: not found</title></html>',
        'noise.pth': noise,
        'noise.bin': noise[1:],
        'pointer.pt': b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 113',
        'noise.safetensors': noise,
        'html.safetensors': b'<!DOCTYPE html><html></html>',
        'huge_header.safetensors': safetensors_of(b'{}', length=2**63),
        'header_of_everything.safetensors': safetensors_of(b'{}', length=2**64 - 1),
        'header_beyond_the_end.safetensors': safetensors_of(b'{}', length=1000),
        'overlap.safetensors': safetensors_of(overlap, bytes(12)),
        'cut_tail.safetensors': safetensors_of(f'{{{tensor("a", 0, 8)}}}'.encode(), bytes(7)),
        'tail.safetensors': safetensors_of(f'{{{tensor("a", 0, 8)}}}'.encode(), bytes(9)),
        'backwards.safetensors': safetensors_of(f'{{{tensor("a", 8, 0)}}}'.encode(), bytes(8)),
        'shape.safetensors': safetensors_of(f'{{{tensor("a", 0, 8, "[3]")}}}'.encode(), bytes(8)),
        'overflow.safetensors': safetensors_of(f'{{{tensor("a", 0, 8, f"[{2**62},8]")}}}'.encode(), bytes(8)),
        'dtype.safetensors': safetensors_of(f'{{{tensor("a", 0, 8, dtype="X9")}}}'.encode(), bytes(8)),
        'json.safetensors': safetensors_of(b'{"a": [}'),
    }


@pytest.mark.parametrize('name', broken())
def test_a_file_that_is_no_checkpoint(name: str, tmp_path: Path, tool: Callable):
    path = tmp_path / name
    path.write_bytes(broken()[name])
    line = tool('convert_checkpoint', path, '--report').error()
    assert line.startswith(f'error: checkpoint {path} cannot be read safely: ')


def cut(folder: Path, suffix: str, share: float) -> Path:
    path = folder / f'swin{suffix}'
    if suffix == '.safetensors':
        save_file(WEIGHTS, path)
    else:
        torch.save(dict(model=WEIGHTS), path, _use_new_zipfile_serialization=suffix != '.bin')
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content)) if share < 1 else int(share)])
    return path


@pytest.mark.parametrize('suffix', ['.pth', '.bin', '.safetensors'])
@pytest.mark.parametrize('share', [0, 1, 0.5, 0.99])
def test_a_truncated_file(suffix: str, share: float, tmp_path: Path, tool: Callable):
    path = cut(tmp_path, suffix, share)
    line = tool('convert_checkpoint', path, '--report').error()
    assert line.startswith(f'error: checkpoint {path} cannot be read safely: ')


@pytest.mark.parametrize('command', ['train --resume', 'test'])
def test_a_truncated_file_on_every_way(command: str, data: Path, tmp_path: Path, tool: Callable):
    path = cut(tmp_path, '.pth', 0.5)
    line = tool(*commands(path, data, tmp_path)[command]).error()
    assert f'checkpoint {path} cannot be read safely: ' in line


@pytest.mark.parametrize('suffix', ['.pth', '.bin', '.safetensors'])
def test_damaged_bytes_never_end_in_a_traceback(suffix: str, tmp_path: Path):
    """What still loads is weights; what does not is refused by name."""
    path = cut(tmp_path, suffix, 0.999999)
    content, generator = path.read_bytes(), torch.Generator().manual_seed(1)
    for _ in range(60):
        damaged = bytearray(content)
        # most of the damage where the structure is: at both ends
        for place in torch.randint(3000, (3,), generator=generator).tolist():
            damaged[place if place % 2 else -1 - place] = place % 251
        path.write_bytes(damaged)
        try:
            Pretrained(str(path))(SwinTransformer(**microsoft.SMALL))
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf')])
@pytest.mark.parametrize('name', ['layers.2.blocks.1.attn.qkv.weight', 'layers.0.blocks.0.norm1.bias'])
def test_weights_that_are_not_finite(name: str, value: float, tmp_path: Path, tool: Callable):
    weights = {key: x.clone() for key, x in WEIGHTS.items()}
    weights[name].view(-1)[-1] = value
    torch.save(dict(model=weights), tmp_path / 'swin.pth')
    model = SwinTransformer(**microsoft.SMALL)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(UserError, match=f'{name} has values that are not finite$'):
        Pretrained(str(tmp_path / 'swin.pth'))(model)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items()), (
        'or it is left half filled'
    )
    assert (
        f'{name} has values'
        in tool('convert_checkpoint', tmp_path / 'swin.pth', tmp_path / 'out.pth').error()
    )
    assert not (tmp_path / 'out.pth').exists()


def test_large_weights_in_half_precision_are_finite(tmp_path: Path):
    """Their sum is not."""
    weights = {key: x.half() for key, x in WEIGHTS.items()}
    weights['layers.0.blocks.0.mlp.fc1.weight'] = torch.full((32, 8), 60000.0).half()
    torch.save(weights, tmp_path / 'swin.pth')
    Pretrained(str(tmp_path / 'swin.pth'))(SwinTransformer(**microsoft.SMALL))


def test_a_quantized_file(tmp_path: Path):
    name = 'layers.0.blocks.0.mlp.fc1.weight'
    torch.save(WEIGHTS | {name: torch.zeros(32, 8, dtype=torch.int8)}, tmp_path / 'swin.pth')
    with pytest.raises(UserError, match=rf'{name} is torch\.int8, but the model needs torch\.float32'):
        Pretrained(str(tmp_path / 'swin.pth'))(SwinTransformer(**microsoft.SMALL))


MISSHAPEN = {
    'layers.0.downsample.reduction.weight': (16, 30),
    'layers.0.downsample.norm.weight': (),
    'layers.1.blocks.0.attn.relative_position_bias_table': (10, 2),
    'layers.0.blocks.0.attn.relative_position_bias_table': (),
    'layers.0.blocks.0.mlp.fc1.weight': (0, 0),
    'layers.3.blocks.1.attn.qkv.weight': (3, 64),
    'patch_embed.proj.weight': (8,),
    'absolute_pos_embed': (1, 15, 8),
}


@pytest.mark.parametrize('layout', ['microsoft', 'torchvision', 'mmdet', 'hf'])
@pytest.mark.parametrize('name', MISSHAPEN)
def test_shapes_of_no_swin(name: str, layout: str, tmp_path: Path, tool: Callable):
    module, _, leaf = name.rpartition('.')
    place = library_names(layout).get(name) or f'{library_names(layout)[module]}.{leaf}'
    weights = export(recognise(WEIGHTS), layout)
    prefix = 'backbone.' if layout == 'mmdet' else 'swin.' if layout == 'hf' else ''
    place = prefix + place.replace('self.qkv', 'self.value')
    assert place in weights or name == 'absolute_pos_embed'
    torch.save(weights | {place: torch.zeros(MISSHAPEN[name])}, tmp_path / 'swin.pth')
    assert str(tmp_path / 'swin.pth') in tool('convert_checkpoint', tmp_path / 'swin.pth', '--report').error()
    with pytest.raises(UserError, match=r'swin\.pth'):
        Pretrained(str(tmp_path / 'swin.pth'))(SwinTransformer(**microsoft.SMALL))


OTHERS = {
    'a ViT': {
        'patch_embed.proj.weight': (8, 3, 4, 4),
        'blocks.0.attn.qkv.weight': (24, 8),
        'norm.weight': (8,),
    },
    'an EfficientNet': {'features.0.0.weight': (8, 3, 3, 3), 'features.1.0.block.0.0.weight': (8, 1, 3, 3)},
    'a ResNet': {'conv1.weight': (8, 3, 7, 7), 'layer1.0.conv1.weight': (8, 8, 1, 1)},
    'two ViTs': {f'{x}.patch_embed.proj.weight': (8, 3, 4, 4) for x in 'ab'},
    'nothing': {},
}


@pytest.mark.parametrize('name', OTHERS)
def test_other_networks_are_no_swin(name: str, tmp_path: Path, tool: Callable):
    tensors = {key: torch.zeros(shape) for key, shape in OTHERS[name].items()}
    torch.save(tensors, tmp_path / 'net.pth')
    line = tool('convert_checkpoint', tmp_path / 'net.pth', '--report').error()
    assert f'net.pth holds no Swin: none of its {len(tensors)} tensors has a known name' in line


def test_two_swins(tmp_path: Path, tool: Callable):
    """Such as the teacher and the student of a semi-supervised detector."""
    both = {f'{who}.backbone.{key}': x for who in ('teacher', 'student') for key, x in WEIGHTS.items()}
    torch.save(dict(state_dict=both), tmp_path / 'soft_teacher.pth')
    line = tool('convert_checkpoint', tmp_path / 'soft_teacher.pth', '--report').error()
    assert "soft_teacher.pth: there are 2 Swins in it, below 'teacher.backbone.', 'student.backbone.'" in line


def test_zero_matches_are_counted(tmp_path: Path):
    torch.save({'fc.weight': torch.zeros(3), 'fc.bias': torch.zeros(3)}, tmp_path / 'net.pth')
    model = SwinTransformer(**microsoft.SMALL)
    total = len(model.state_dict())
    with pytest.raises(UserError, match=f'none of its 2 tensors belongs to the model, which has {total}$'):
        Pretrained(str(tmp_path / 'net.pth'))(model)


def test_nothing_where_a_file_should_be(tmp_path: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch):
    def line(path: object) -> str:
        return tool('convert_checkpoint', path, '--report').error()

    monkeypatch.chdir(tmp_path)
    assert (
        line('absent.pth')
        == f'error: checkpoint absent.pth does not exist (looked for {tmp_path}/absent.pth)\n'
    )
    assert f'checkpoint {tmp_path} is a folder, not a file' in line(tmp_path)
    assert 'checkpoint s3://swin.pth does not exist' in line('s3://swin.pth')
    assert 'checkpoint ~nobody_at_all/swin.pth: ' in line('~nobody_at_all/swin.pth')
    assert 'File name too long' in line('x' * 300 + '.pth')
    (tmp_path / 'loop.pth').symlink_to('loop.pth')
    assert 'loop.pth' in line('loop.pth')


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_an_unreadable_file(tmp_path: Path, tool: Callable):
    (tmp_path / 'swin.pth').touch(mode=0)
    assert 'Permission denied' in tool('convert_checkpoint', tmp_path / 'swin.pth', '--report').error()


def test_a_read_that_fails(tmp_path: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch):
    def load(*arguments: object, **options: object) -> None:
        raise PermissionError(13, 'Permission denied')

    torch.save(WEIGHTS, tmp_path / 'swin.pth')
    monkeypatch.setattr(torch, 'load', load)
    line = tool('convert_checkpoint', tmp_path / 'swin.pth', '--report').error()
    assert 'cannot be read safely: [Errno 13] Permission denied' in line


def test_addresses(tmp_path: Path, tool: Callable, server: str):
    """Files of one name at different addresses are kept apart."""
    for folder, dim in (('tiny', 8), ('base', 16)):
        (tmp_path / folder).mkdir()
        save_file(
            SwinTransformer(**{**microsoft.SMALL, 'embed_dims': dim}).state_dict(),
            tmp_path / folder / 'model.safetensors',
        )
    for folder, dim in (('tiny', 8), ('base', 16), ('tiny', 8)):
        ended = tool('convert_checkpoint', f'{server}/{folder}/model.safetensors?download=true', '--report')
        assert ended.status == 0
        assert ended.err == ''
        assert f'Swin v1 {dim} channels' in ended.out
    assert len(list((tmp_path / 'hub' / 'hub' / 'checkpoints').iterdir())) == 2


BAD_ADDRESSES = [
    '{server}/absent.pth',
    'http://127.0.0.1:9/swin.pth',
    'http://[::1/swin.pth',
    'http://a b/swin.pth',
]


@pytest.mark.parametrize('address', BAD_ADDRESSES)
def test_an_address_that_cannot_be_reached(address: str, tool: Callable, server: str):
    line = tool('convert_checkpoint', address.format(server=server), '--report').error()
    assert 'cannot be downloaded (' in line


def test_a_download_that_breaks_off(tmp_path: Path, tool: Callable, server: str):
    torch.save(WEIGHTS, tmp_path / 'cut.pth')
    line = tool('convert_checkpoint', f'{server}/cut.pth', '--report').error()
    assert 'cannot be' in line
