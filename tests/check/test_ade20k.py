"""The check of the files of ADE20K-style sets: pairs, sizes, and what can be read."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from swin_dense.check import ade20k_sets
from swin_dense.check.ade20k_sets import check_split
from swin_dense.formats import label_maps
from swin_dense.formats.images import BadImageError
from tests.check.ade20k_sets import CLASSES, FULL, DataSet, grave, rows


@FULL
def test_a_good_set_has_notes_alone(data: DataSet, decode: bool):
    found = data.check(decode=decode)
    assert not grave(found)
    text = '\n'.join(finding.line() for finding in found)
    assert 'label 0 covers 25 % of pixels and reduce_zero_label=True: it is ignored' in text
    assert 'road 25 %, house 25 %, tree 25 %, ignored 25 %' in text


# row 65


def test_sizes_that_differ(data: DataSet):
    data.label('1', rows(1, 2, 3)[:, :15])
    assert data.error() == (
        f'{data.labels / "1.png"}: size: 15 x 12, but image {data.images / "1.jpg"} is 16 x 12'
    )


def test_an_image_that_exif_turns(data: DataSet):
    exif = Image.Exif()
    exif[274] = 6
    Image.open(data.images / '1.jpg').save(data.images / '1.jpg', exif=exif)
    assert data.error().endswith('is 12 x 16 as its EXIF orientation 6 shows it')
    data.label('1', rows(1, 2, 3).T)  # drawn on what is shown
    (found,) = grave(data.check())
    assert (found.severity, found.field) == ('warning', 'EXIF orientation')


# row 66


def test_a_label_map_is_missing(data: DataSet):
    (data.labels / '1.png').unlink()
    text = data.error()
    assert text == (
        f'{data.labels / "1.png"}: image {data.images / "1.jpg"} has no label map: '
        'training fails where it is drawn'
    )


def test_an_image_is_missing(data: DataSet):
    (data.images / '1.jpg').unlink()
    (found,) = grave(data.check())
    assert (found.severity, found.examples) == ('warning', ('1.png',))


@pytest.mark.parametrize('suffix', ['.jpeg', '.JPG', '_rgb.jpg.jpg'])
def test_the_wrong_image_suffix_names_the_right_one(data: DataSet, suffix: str):
    text = data.error(suffixes=(suffix, '.png'))
    assert text.startswith(f'{data.images}: img_suffix: no image ends with {suffix!r}: 3 end with ')
    assert "'.jpg'" in text
    assert 'hangs under InfiniteSampler' in text


def test_the_wrong_label_suffix_names_the_right_one(data: DataSet):
    for path in sorted(data.labels.iterdir()):
        path.rename(path.with_name(f'{path.stem}_labelTrainIds.png'))
    text = data.error(suffixes=('.jpg', '_gtFine.png'))
    assert text == (
        f"{data.labels}: seg_map_suffix: no label map ends with '_gtFine.png': "
        "3 end with '_labelTrainIds.png'"
    )
    text = data.error()
    assert text.startswith(
        f"{data.labels}: seg_map_suffix: no label map has the name of an image and '.png': "
        "3 end with '_labelTrainIds.png'"
    )


def test_images_of_another_suffix_are_left_out(data: DataSet):
    Image.open(data.images / '0.jpg').save(data.images / '9.JPEG')
    (found,) = grave(data.check())
    assert (found.severity, found.examples) == ('warning', ('9.JPEG',))


@pytest.mark.parametrize('decode', [False, True])
def test_nothing_there(tmp_path: Path, decode: bool):
    folders = (tmp_path / 'images', tmp_path / 'labels')
    options = ('.jpg', '.png', CLASSES, True, decode)
    assert 'the folder does not exist' in check_split(*folders, *options)[0].line()
    for folder in folders:
        folder.mkdir()
    found = check_split(*folders, *options)
    assert [finding.severity for finding in found] == ['error', 'error']
    assert 'there are no image files at all' in found[0].message
    assert 'hangs under InfiniteSampler' in found[0].message


def test_folders_below_are_searched_once_as_mmseg_does(data: DataSet):
    for folder in (data.images, data.labels):
        (folder / 'below').mkdir()
        for path in list(folder.glob('0.*')):
            path.rename(folder / 'below' / path.name)
        (folder / 'below' / 'loop').symlink_to(folder)
        (folder / '.hidden.jpg').write_bytes(b'')
    assert not grave(data.check())
    (data.labels / 'below' / '0.png').unlink()
    assert str(data.labels / 'below' / '0.png') in data.error()


# rows 35, 36 and 41


@FULL
@pytest.mark.parametrize('which', ['images', 'labels'])
@pytest.mark.parametrize('content', ['nothing', 'HTML', 'half', 'huge'])
def test_files_that_are_no_images(data: DataSet, which: str, content: str, decode: bool):
    path = data.images / '1.jpg' if which == 'images' else data.labels / '1.png'
    good = path.read_bytes()
    said = {'nothing': 'empty', 'HTML': 'HTML', 'half': 'cut off', 'huge': 'more than'}[content]
    bad = {'nothing': b'', 'HTML': b'<!DOCTYPE html>', 'half': good[:-15], 'huge': huge()}[content]
    path.write_bytes(bad)
    text = data.error(decode=decode)
    assert text.startswith(f'{path}: ')
    assert said in text


def huge() -> bytes:
    """A PNG of 60000 x 60000, as far as its header goes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        rest = kind + content
        return struct.pack('>I', len(content)) + rest + struct.pack('>I', zlib.crc32(rest))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', zlib.compress(b'\0' * 100)) + chunk(b'IEND', b'')


def test_pixels_that_cannot_be_decoded(data: DataSet):
    """The header and the end are there: the full check finds it in images, and both in label maps."""
    path = data.labels / '1.png'
    content = bytearray(path.read_bytes())
    start = content.index(b'IDAT') + 4
    content[start : start + 8] = b'\xff' * 8
    path.write_bytes(content)
    with pytest.raises(BadImageError):
        label_maps.read_labels(path)
    assert data.error().startswith(f'{path}: the pixels cannot be decoded')


# what the hosts' loader does not take as it is


def test_images_of_other_kinds(data: DataSet):
    for path in data.images.glob('*.jpg'):
        pixels = np.dstack([np.asarray(Image.open(path)), rows(1, 2)]).astype(np.uint16) * 257
        style = dict(photometric='minisblack', planarconfig='contig')
        tifffile.imwrite(path.with_suffix('.tif'), pixels, **style)
        path.unlink()
    (found,) = grave(data.check(suffixes=('.tif', '.png'), decode=True))
    assert (found.severity, found.count) == ('warning', 3)
    assert "dict(type='swin_dense.LoadImage', channels=4)" in found.message
    tifffile.imwrite(data.images / '1.tif', pixels[..., :3], photometric='rgb')
    text = data.error(suffixes=('.tif', '.png'))
    assert text == f'{data.images / "1.tif"}: image: 3 channels, but other images have 4'


def test_sixteen_bits_and_alpha(data: DataSet):
    for path in data.images.glob('*.jpg'):
        image = Image.open(path)
        image.putalpha(Image.fromarray(rows(9, 200)))
        image.save(path.with_suffix('.tif'))
        path.unlink()
    (found,) = grave(data.check(suffixes=('.tif', '.png')))
    assert 'multiplies' in found.message
    for path in data.images.glob('*.tif'):
        Image.fromarray(rows(9, 60000, dtype=np.uint16)).save(path.with_suffix('.png'))
        path.unlink()
    (found,) = grave(data.check(suffixes=('.png', '.png')))
    assert '16 bits a value' in found.message


def test_a_large_set_is_sampled(data: DataSet, monkeypatch: pytest.MonkeyPatch):
    for number in range(3, 12):
        data.add(f'{number}')
    data.label('7', rows(9))
    (data.images / '11.jpg').write_bytes(b'')
    monkeypatch.setattr(ade20k_sets, 'SECONDS', -1)
    monkeypatch.setattr(ade20k_sets, 'BATCH', 4)
    monkeypatch.setattr(ade20k_sets, 'SAMPLED', 4)
    found = data.check()
    assert '4 of 12 pairs were read' in found[-1].message
    assert any('11.jpg' in finding.line() for finding in found), 'empty files come first'
    full = '\n'.join(finding.line() for finding in data.check(decode=True))
    assert 'pairs were read' not in full
    assert re.search(r'7\.png: label 9', full)


def test_any_beginning_of_the_order_is_evenly_spread():
    stems = [f'{i}' for i in range(1000)]
    first = sorted(int(stem) for stem in ade20k_sets._ordered(stems, set())[:100])
    assert ade20k_sets._ordered(stems, {'777'})[0] == '777'
    assert max(np.diff(first)) <= 20
    assert first[0] <= 20
    assert first[-1] >= 980
