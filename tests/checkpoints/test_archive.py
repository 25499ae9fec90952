"""Damaged and hostile archives are found while they are read, and tensors that are no weights are named."""

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from swin_dense.checkpoints import archive, files
from swin_dense.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
WEIGHTS = {f'layer{i}': torch.randn(64, 32, generator=GENERATOR) for i in range(4)}


def saved(path: Path, crc: bool = True) -> Path:
    torch.serialization.set_crc32_options(crc)
    try:
        torch.save(dict(state_dict=WEIGHTS, meta=dict(epoch=3)), path)
    finally:
        torch.serialization.set_crc32_options(True)
    return path


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    content[place + 1] ^= 128
    path.write_bytes(content)


@pytest.mark.parametrize('mapped', [True, False])
def test_two_flipped_bytes_in_the_middle(mapped: bool, tmp_path: Path):
    path = saved(tmp_path / 'x.pth')
    damaged = path.read_bytes().index(WEIGHTS['layer2'].numpy().tobytes())
    flip(path, damaged + 1000)
    assert not torch.equal(torch.load(path)['state_dict']['layer2'], WEIGHTS['layer2']), 'torch reads it'
    with pytest.raises(UserError, match=r'x\.pth is damaged: the CRC32 of its record x/data/2 is wrong'):
        files.read_checkpoint(path, mapped)
    with pytest.raises(UserError, match='x/data/2'):
        files.check_whole(path)


def test_every_place_of_a_record_counts(tmp_path: Path):
    path = saved(tmp_path / 'x.pth')
    content = path.read_bytes()
    start = content.index(WEIGHTS['layer1'].numpy().tobytes())
    for place in (start, start + 4096, start + WEIGHTS['layer1'].nbytes - 2):
        path.write_bytes(content)
        files.check_whole(path)
        flip(path, place)
        with pytest.raises(UserError, match='x/data/1'):
            files.check_whole(path)


def test_a_file_without_checksums_is_taken_as_it_is(tmp_path: Path):
    path = saved(tmp_path / 'x.pth', crc=False)
    with zipfile.ZipFile(path) as content:
        assert content.testzip() is not None, 'none matches'
    assert torch.equal(files.read_checkpoint(path)['state_dict']['layer3'], WEIGHTS['layer3'])
    files.check_whole(path)


def test_the_checksum_is_that_of_zipfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever the pieces in which a record is read."""
    path = saved(tmp_path / 'x.pth')
    for chunk in (1, 7, 8192, 2**22):
        monkeypatch.setattr(archive, 'CHUNK', chunk)
        with path.open('rb') as file, zipfile.ZipFile(path) as content:
            for record in content.infolist():
                assert archive._crc32(file, content, record) == zlib.crc32(content.read(record)) == record.CRC


def repacked(path: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, 'w', method) as new:
        for name in old.namelist():
            new.writestr(name.replace(path.stem, target.stem), old.read(name))
    return target


def test_a_packed_file_is_read_and_not_mapped(tmp_path: Path):
    path = repacked(saved(tmp_path / 'x.pth'), tmp_path / 'packed.pth')
    for mapped in (True, False):
        content = files.read_checkpoint(path, mapped)
        assert all(torch.equal(content['state_dict'][key], value) for key, value in WEIGHTS.items())
    size = path.stat().st_size
    with zipfile.ZipFile(path) as content:
        record = content.getinfo('packed/data/1')
    flip(path, record.header_offset + 200)
    assert path.stat().st_size == size
    with pytest.raises(UserError, match='packed/data/1'):
        files.read_checkpoint(path)


def test_a_small_archive_that_unpacks_to_much(tmp_path: Path):
    torch.save(dict(state_dict=dict(a=torch.zeros(2**26, dtype=torch.uint8))), tmp_path / 'x.pth')
    path = repacked(tmp_path / 'x.pth', tmp_path / 'bomb.pth')
    assert path.stat().st_size < 2**17
    with pytest.raises(UserError, match=r'bomb\.pth is refused: its \d+ bytes unpack to 671'):
        files.read_checkpoint(path)


def overlapping(path: Path) -> Path:
    """An archive in which a second record is the bytes of the first: the list of records has it twice."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as content:
        content.writestr('x/data.pkl', pickle.dumps({}))
        content.writestr('x/data/0', bytes(1000))
        content.writestr('x/data/1', bytes(1000))
        first, second = content.getinfo('x/data/0'), content.getinfo('x/data/1')
        second.header_offset = first.header_offset
    path.write_bytes(buffer.getvalue())
    return path


def test_records_that_overlap(tmp_path: Path):
    with pytest.raises(UserError, match=r'x\.pth is damaged: its record x/data/\d overlaps another'):
        files.read_checkpoint(overlapping(tmp_path / 'x.pth'))


def test_a_record_beyond_the_end(tmp_path: Path):
    path = saved(tmp_path / 'x.pth')
    content = bytearray(path.read_bytes())
    entry = content.rindex(b'PK\x01\x02', 0, content.rindex(b'x/data/2'))
    content[entry + 20 : entry + 28] = struct.pack('<II', 10**6, 10**6)
    path.write_bytes(content)
    with pytest.raises(UserError, match='overlaps another'):
        files.check_whole(path)


@pytest.mark.parametrize('content', [b'', b'P', b'PK\x03\x04', b'<html>', b'\0' * 5000])
def test_what_is_no_checkpoint_is_not_whole(content: bytes, tmp_path: Path):
    (tmp_path / 'x.pth').write_bytes(content)
    with pytest.raises(UserError, match=r'x\.pth cannot be read safely: '):
        files.check_whole(tmp_path / 'x.pth')


def test_other_formats_that_are_whole(tmp_path: Path):
    torch.save(WEIGHTS, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    files.write_tensors(tmp_path / 'x.safetensors', WEIGHTS, None)
    for name in ('old.pth', 'x.safetensors'):
        files.check_whole(tmp_path / name)
    (tmp_path / 'x.safetensors').write_bytes((tmp_path / 'x.safetensors').read_bytes()[:-1])
    with pytest.raises(UserError, match='cannot be read safely'):
        files.check_whole(tmp_path / 'x.safetensors')


KINDS: dict[str, tuple[Callable[[], Tensor], str]] = {
    'sparse': (lambda: torch.eye(4).to_sparse(), r'sparse \(torch.sparse_coo\)'),
    'float8': (lambda: torch.ones(4).to(torch.float8_e4m3fn), 'torch.float8_e4m3fn'),
    'meta': (lambda: torch.empty(4, device='meta'), 'meta'),
    'quantized': (lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), 'quantized'),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', KINDS)
def test_tensors_that_are_no_weights(kind: str, tmp_path: Path):
    make, named = KINDS[kind]
    torch.save(dict(state_dict={**WEIGHTS, 'odd.weight': make()}), tmp_path / 'x.pth')
    with pytest.raises(UserError, match=rf'x\.pth: state_dict\.odd\.weight is a {named}.* tensor') as caught:
        files.read_checkpoint(tmp_path / 'x.pth')
    assert caught.value.status == 2


@pytest.mark.parametrize('meta', [5, 'text', [1]])
def test_meta_data_that_are_no_dict(meta: object, tmp_path: Path):
    torch.save(dict(state_dict=WEIGHTS, meta=meta), tmp_path / 'x.pth')
    with pytest.raises(UserError, match=r'x\.pth: meta is .*, not a dict') as caught:
        files.read_checkpoint(tmp_path / 'x.pth')
    assert caught.value.status == 2


def test_writing_replaces_the_file_or_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ('x.pth', 'x.safetensors'):
        files.write_tensors(tmp_path / name, WEIGHTS, None)

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError('unexpected pos 64 vs 0')

    monkeypatch.setattr(torch, 'save', refuse)
    with pytest.raises(UserError, match=r'x\.pth cannot be written'):
        files.write_tensors(tmp_path / 'x.pth', WEIGHTS, None)
    assert files.read_checkpoint(tmp_path / 'x.pth').keys() == WEIGHTS.keys()
    assert len(list(tmp_path.iterdir())) == 2, 'nothing partial is left'
