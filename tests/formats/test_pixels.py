"""Images of any kind, by our transform and the hosts', against Pillow and what was written."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from mmcv.transforms import LoadImageFromFile
from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmseg.registry import TRANSFORMS as MMSEG_TRANSFORMS
from PIL import Image

from swin_dense.data.loading import LoadImage
from swin_dense.errors import UserError
from swin_dense.formats.pixels import read_picture

HEIGHT, WIDTH = 24, 32
HOSTS = {'LoadImageFromFile': LoadImageFromFile(), 'swin_dense.LoadImage': LoadImage()}


def photo() -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return Image.fromarray(np.dstack([8 * x, 10 * y, 255 - 8 * x]).clip(0, 255).astype(np.uint8))


def with_alpha(mode: str) -> Image.Image:
    image = photo().convert(mode)
    image.putalpha(Image.fromarray(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)))
    return image


def transparent_palette() -> Image.Image:
    image = photo().quantize(16)
    image.info['transparency'] = 3
    return image


PICTURES = {
    'RGB.png': photo,
    'gray.png': lambda: photo().convert('L'),
    'gray.jpg': lambda: photo().convert('L'),
    'LA.png': lambda: with_alpha('L'),
    'RGBA.png': lambda: with_alpha('RGB'),
    'palette.png': lambda: photo().quantize(16),
    'palette.bmp': lambda: photo().quantize(16),
    'palette.tif': lambda: photo().quantize(16),
    'transparent palette.png': transparent_palette,
    'bilevel.png': lambda: photo().convert('1'),
    'bilevel.tif': lambda: photo().convert('1'),
    'CMYK.jpg': lambda: photo().convert('CMYK'),
    'CMYK.tif': lambda: photo().convert('CMYK'),
    'RGB.tif': photo,
    'RGBA.tif': lambda: with_alpha('RGB'),
    'gray.tif': lambda: photo().convert('L'),
}


def load(transform: LoadImageFromFile | LoadImage, path: Path) -> np.ndarray:
    return transform.transform({'img_path': str(path)})['img']


@pytest.mark.parametrize('loader', HOSTS)
@pytest.mark.parametrize('name', PICTURES)
def test_every_kind_of_picture_becomes_what_pillow_shows(tmp_path: Path, name: str, loader: str):
    """Blue, green, red; an alpha channel is dropped, nothing is put behind it. CMYK by its plain formula."""
    path = tmp_path / name
    PICTURES[name]().save(path)
    if (name, loader) == ('RGBA.tif', 'LoadImageFromFile'):
        pytest.skip('OpenCV multiplies the colours by alpha, which the check tells')
    found = load(HOSTS[loader], path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert('RGB'))[..., ::-1]
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - expected).max() <= 1  # CMYK's products are rounded in two ways


SIXTEEN = np.linspace(0, 65535, HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3).astype(np.uint16)


def test_opencv_multiplies_the_colours_of_a_tiff_by_its_alpha(tmp_path: Path):
    """The one kind that the hosts' loader gets wrong."""
    path = tmp_path / 'x.tif'
    with_alpha('RGB').save(path)
    pixels = np.asarray(with_alpha('RGB')).astype(float)
    found = load(HOSTS['LoadImageFromFile'], path)
    assert np.abs(found - pixels[..., 2::-1] * pixels[..., 3:] / 255).max() <= 1
    np.testing.assert_array_equal(load(LoadImage(), path), pixels[..., 2::-1])


@pytest.mark.parametrize('colours', [1, 3])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_sixteen_bits_are_scaled_and_never_wrapped(tmp_path: Path, suffix: str, colours: int):
    path, written = tmp_path / f'x{suffix}', SIXTEEN[..., :colours]
    assert cv2.imwrite(str(path), written)  # TIFF with LZW, for which tifffile needs imagecodecs
    expected = np.broadcast_to(written / 257, (HEIGHT, WIDTH, 3))
    hosts = load(HOSTS['LoadImageFromFile'], path)
    assert hosts.dtype == np.uint8
    assert np.abs(hosts - expected).max() <= 1  # the upper eight bits
    ours = load(LoadImage(), path)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    if colours == 1:
        np.testing.assert_allclose(load(LoadImage(1), path), written / 257, rtol=1e-6)


def test_the_hosts_with_pillow_cut_sixteen_bits_off(tmp_path: Path):
    """imdecode_backend='pillow', which no stock config has."""
    path = tmp_path / 'x.png'
    cv2.imwrite(str(path), SIXTEEN[..., 0])
    found = load(LoadImageFromFile(imdecode_backend='pillow'), path)
    assert (found[SIXTEEN[..., 0] > 255] == 255).all()


def bands(count: int, dtype: str) -> np.ndarray:
    values = np.random.default_rng(count).random((HEIGHT, WIDTH, count))
    return values.astype(dtype) if dtype == 'float32' else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize('layout', ['contig', 'separate', 'tiled', 'deflate', 'pages'])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'int16', 'float32'])
@pytest.mark.parametrize('count', [2, 4, 13])
def test_tiff_of_many_bands(tmp_path: Path, count: int, dtype: str, layout: str):
    path, written = tmp_path / 'x.tif', bands(count, dtype)
    planes = np.ascontiguousarray(written.transpose(2, 0, 1))
    if layout == 'pages':
        tifffile.imwrite(path, planes, photometric='minisblack')
    elif layout == 'separate':
        tifffile.imwrite(path, planes, photometric='minisblack', planarconfig='separate')
    else:
        tile = (16, 16) if layout == 'tiled' else None
        compression = 'deflate' if layout == 'deflate' else None
        style = dict(photometric='minisblack', planarconfig='contig')
        tifffile.imwrite(path, written, tile=tile, compression=compression, **style)
    found = load(LoadImage(count), path)
    assert found.dtype == (np.uint8 if dtype == 'uint8' else np.float32)
    expected = written / 257 if dtype == 'uint16' else written
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_hosts_read_one_of_four_bands(tmp_path: Path):
    """Why we read TIFFs ourselves: no error, and three bands are gone."""
    path, written = tmp_path / 'x.tif', bands(4, 'uint8')
    tifffile.imwrite(path, written, photometric='minisblack', planarconfig='contig')
    found = load(HOSTS['LoadImageFromFile'], path)
    np.testing.assert_array_equal(found, np.repeat(written[..., :1], 3, axis=2))


def test_a_fourth_channel_called_alpha_is_kept_where_four_are_wanted(tmp_path: Path):
    """GDAL calls a fourth band alpha unless it is told otherwise."""
    path, written = tmp_path / 'x.tif', bands(4, 'uint16')
    tifffile.imwrite(path, written, photometric='rgb', extrasamples=['unassalpha'])
    np.testing.assert_allclose(load(LoadImage(4), path), written / 257, rtol=1e-6)
    np.testing.assert_allclose(load(LoadImage(3), path), written[..., 2::-1] / 257, rtol=1e-6)
    png = tmp_path / 'x.png'
    with_alpha('RGB').save(png)
    np.testing.assert_array_equal(load(LoadImage(4), png), np.asarray(with_alpha('RGB')))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['jpg', 'tif'])
def test_orientation(tmp_path: Path, orientation: int, suffix: str):
    path = tmp_path / f'x.{suffix}'
    exif = Image.Exif()
    exif[274] = orientation
    photo().save(path, exif=exif)
    stored = np.asarray(photo()).astype(int)[..., ::-1]
    turned = [
        *(stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]),
        *(np.rot90(stored, -1)[:, ::-1], np.rot90(stored, -1), np.rot90(stored, -1)[::-1], np.rot90(stored)),
    ]
    found = load(LoadImage(), path)
    expected = turned[orientation - 1]
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (12 if suffix == 'jpg' else 0)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_both_hosts_find_the_transform(tmp_path: Path, scope: str):
    registry = {'mmdet': MMDET_TRANSFORMS, 'mmseg': MMSEG_TRANSFORMS}[scope]
    path = tmp_path / 'x.tif'
    tifffile.imwrite(path, bands(5, 'uint16'), photometric='minisblack', planarconfig='contig')
    sample = registry.build(dict(type='swin_dense.LoadImage', channels=5))({'img_path': str(path)})
    assert sample['img'].shape == (HEIGHT, WIDTH, 5)
    assert sample['img_shape'] == sample['ori_shape'] == (HEIGHT, WIDTH)


def refusal(path: Path, channels: int) -> str:
    with pytest.raises(UserError) as caught:
        LoadImage(channels)({'img_path': str(path)})
    assert f'image {path}: ' in str(caught.value)
    assert '\n' not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(('stored', 'wanted'), [(4, 3), (3, 4), (4, 5), (5, 1), (2, 3)])
def test_the_wrong_number_of_channels(tmp_path: Path, stored: int, wanted: int):
    path = tmp_path / 'x.tif'
    tifffile.imwrite(path, bands(stored, 'uint8'), photometric='minisblack', planarconfig='contig')
    text = refusal(path, wanted)
    assert text.endswith(f'the file has {stored} channels, but LoadImage(channels={wanted})')
    photo().save(tmp_path / 'x.png')
    assert 'the file has 3 channels' in refusal(tmp_path / 'x.png', 1)


@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif'])
@pytest.mark.parametrize('kept', [0, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str, kept: float):
    path = tmp_path / f'x.{suffix}'
    photo().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refusal(path, 3)


def test_what_is_no_image(tmp_path: Path):
    refusal(tmp_path / 'missing.png', 3)
    (tmp_path / 'x.tif').write_text('<html>')
    refusal(tmp_path / 'x.tif', 4)
    tifffile.imwrite(tmp_path / 'volume.tif', np.zeros((3, 4, 16, 16, 2), np.uint8), photometric='minisblack')
    assert 'are not those of one image' in refusal(tmp_path / 'volume.tif', 4)


def test_a_compression_that_needs_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """OpenCV reads gray and colours; of four bands it would read one."""

    def absent(*args: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, 'asarray', absent)
    path = tmp_path / 'x.tif'
    photo().save(path, compression='tiff_lzw')
    np.testing.assert_array_equal(load(LoadImage(), path), np.asarray(photo())[..., ::-1])
    tifffile.imwrite(path, bands(4, 'uint16'), photometric='minisblack', planarconfig='contig')
    assert refusal(path, 4).endswith("requires the 'imagecodecs' package: pip install imagecodecs")


@pytest.mark.parametrize('count', [1, 2, 4, 13])
def test_a_picture_of_any_image(tmp_path: Path, count: int):
    path, written = tmp_path / 'x.tif', bands(count, 'uint16') // 16 + 1000
    tifffile.imwrite(path, written.squeeze(), photometric='minisblack', planarconfig='contig')
    shown = read_picture(path)
    assert shown.shape == (HEIGHT, WIDTH, 3)
    assert shown.dtype == np.uint8
    assert shown.min() == 0
    assert shown.max() == 255
    red = np.argsort(written[..., 0], axis=None)
    assert (np.diff(shown[..., 0].ravel()[red].astype(int)) >= 0).all()
    photo().save(tmp_path / 'x.png')
    np.testing.assert_array_equal(read_picture(tmp_path / 'x.png'), np.asarray(photo()))
