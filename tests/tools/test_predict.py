"""tools/predict.py: a checkpoint and images in, pictures and predictions out."""

import json
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from swin_dense.tiling.tiles import grid
from tests.checkpoints.test_untrusted import hostile
from tests.predict.conftest import CONFIGS, FOLDERS, OPTIONS, TASKS, Made, made, tool  # noqa: F401


def from_test(tool: Callable, made: Made, task: str, folder: Path) -> Path:  # noqa: F811
    """What tools/test.py writes for the validation images."""
    out = folder / ('tested.json' if task == 'detection' else 'tested')
    arguments = ['--data', made.data / FOLDERS[task], '--work-dir', folder / 'work', '--out', out]
    ended = tool(
        'test',
        CONFIGS[task],
        made.checkpoints[task],
        *arguments,
        '--device',
        'cpu',
        '--cfg-options',
        *OPTIONS[task],
    )
    assert ended.status == 0, ended.err
    return out


def predict(tool: Callable, *arguments: object) -> str:  # noqa: F811
    ended = tool('predict', *arguments, '--device', 'cpu')
    assert ended.status == 0, ended.err
    assert ended.err == ''
    return ended.out


def test_objects_equal_those_of_test(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """To the last digit, from the checkpoint alone; the ids are those of the annotation file."""
    expected = json.loads(from_test(tool, made, 'detection', tmp_path).read_text())
    folder, out = made.data / 'coco/val2017', tmp_path / 'out'
    annotations = made.data / 'coco/annotations/instances_val2017.json'
    printed = predict(tool, made.checkpoints['detection'], folder, '--out', out, '--ids', annotations)
    assert 'images  3/3' in printed
    assert '\x1b' not in printed
    found = json.loads((out / 'predictions.json').read_text())
    assert [entry.pop('file_name') for entry in found] == sorted(
        path.name for path in folder.iterdir() for _ in range(20)
    )
    assert found == expected
    assert len(found) == 60
    scored = tool('test', CONFIGS['detection'], '--predictions', out / 'predictions.json',
                  '--data', made.data / 'coco', '--work-dir', tmp_path / 'scored')  # fmt: skip
    assert scored.status == 0


def test_label_maps_equal_those_of_test(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    expected = from_test(tool, made, 'segmentation', tmp_path)
    predict(
        tool, made.checkpoints['segmentation'], made.data / 'ade/images/validation', '--out', tmp_path / 'out'
    )
    maps = sorted((tmp_path / 'out/label_maps').iterdir())
    assert [path.name for path in maps] == sorted(path.name for path in expected.iterdir())
    for path in maps:
        labels, wanted = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in (path, expected / path.name))
        assert np.array_equal(labels, wanted)
        assert labels.min() >= 1, 'in the numbers of the training data, where 0 is unlabelled'


def test_ids_without_annotations(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Numbers in file names, else 1, 2, ...; classes from 1; images.json says what they mean."""
    image = made.images('detection')[0]
    for names in (('000000000139.jpg', '000000000285.jpg'), ('a.jpg', '7.jpg')):
        folder = tmp_path / names[0]
        for name in names:
            (folder / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(image, folder / 'in' / name)
        predict(tool, made.checkpoints['detection'], folder / 'in', '--out', folder / 'out')
        content = json.loads((folder / 'out/images.json').read_text())
        numbers = {entry['file_name']: entry['id'] for entry in content['images']}
        assert numbers == ({names[0]: 139, names[1]: 285} if '139' in names[0] else {'7.jpg': 1, 'a.jpg': 2})
        assert [x['id'] for x in content['categories']] == [1, 2, 3, 4, 5]
        (folder / 'truth.json').write_text(json.dumps({**content, 'annotations': []}))
        truth = COCO(str(folder / 'truth.json'))
        results = truth.loadRes(str(folder / 'out/predictions.json'))
        assert {x['file_name'] for x in results.anns.values()} == set(names)


@pytest.mark.parametrize('task', TASKS)
def test_sources(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """A folder with folders, a glob and a file; the output of the last run in it is no source."""
    first, second, third = made.images(task)
    folder = tmp_path / 'in'
    for path, name in (
        (first, 'a.jpg'),
        (second, 'below/a.jpg'),
        (third, 'below/b.PNG'),
        (first, 'notes.txt'),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    for _ in range(2):
        predict(tool, made.checkpoints[task], folder, '--out', folder / 'out', '--batch', 2)
        written = [
            str(p.relative_to(folder / 'out/pictures')) for p in (folder / 'out/pictures').rglob('*.jpg')
        ]
        assert sorted(written) == ['a.jpg', 'below/a.jpg', 'below/b.jpg']
    arguments = [f'{folder}/below/*.jpg', folder / 'a.jpg', third, '--out', tmp_path / 'more']
    predict(tool, made.checkpoints[task], *arguments)
    assert len(list((tmp_path / 'more/pictures').iterdir())) == 3, 'of two a.jpg, both'


@pytest.mark.parametrize('task', TASKS)
def test_unreadable_images(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """A line for each, the others are predicted, and at the end status 2 (rows 35 and 36)."""
    good = made.images(task)[0]
    folder = tmp_path / 'in'
    folder.mkdir()
    shutil.copyfile(good, folder / 'good.jpg')
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'page.jpg').write_text('<html></html>')
    (folder / 'noise.png').write_bytes(bytes(range(256)))
    ended = tool('predict', made.checkpoints[task], folder, '--out', tmp_path / 'out', '--device', 'cpu')
    assert '3 of 4 files could not be read' in ended.error()
    lines = [line for line in ended.out.splitlines() if line.startswith('left out: image ')]
    assert [Path(line.split()[3]).name for line in lines] == ['empty.jpg', 'noise.png', 'page.jpg']
    assert [path.name for path in (tmp_path / 'out/pictures').iterdir()] == ['good.jpg']


def variants(folder: Path) -> dict[str, Path]:
    """The images of rows 37, 38 and 42."""
    folder.mkdir()
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
    for mode in ('L', 'LA', 'RGBA', 'P', '1', 'RGB'):
        rgb.convert('L' if mode == 'LA' else mode).convert(mode).save(folder / f'{mode}.png')
    rgb.convert('CMYK').save(folder / 'CMYK.jpg')
    cv2.imwrite(str(folder / '16bit.png'), random.integers(0, 2**16, (40, 60), np.uint16))
    cv2.imwrite(str(folder / '16bit.tif'), random.integers(0, 2**16, (40, 60, 3), np.uint16))
    for name, size in {'dot': (1, 1), 'column': (4000, 1), 'line': (1, 4000)}.items():
        cv2.imwrite(str(folder / f'{name}.png'), random.integers(0, 256, (*size, 3), np.uint8))
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize('task', TASKS)
def test_images_of_all_kinds(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    images = variants(tmp_path / 'in')
    predict(tool, made.checkpoints[task], tmp_path / 'in', '--out', tmp_path / 'out')
    pictures = list((tmp_path / 'out/pictures').iterdir())
    assert len(pictures) == 12
    if task == 'segmentation':
        for path in (p for p in images.values() if not p.stem.startswith('16bit')):
            labels = cv2.imread(str(tmp_path / 'out/label_maps' / f'{path.stem}.png'), cv2.IMREAD_UNCHANGED)
            assert labels.shape == Image.open(path).size[::-1]


def test_an_image_too_large_to_decode(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """60000 x 60000 (row 41): one line. The file is whole, as far as its header can tell."""
    path = tmp_path / 'huge.png'
    Image.new('1', (8, 8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = (60000).to_bytes(4, 'big') * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
    path.write_bytes(content)
    ended = tool('predict', made.checkpoints['detection'], path, '--out', tmp_path / 'out', '--device', 'cpu')
    assert '1 of 1 files could not be read' in ended.error()
    assert 'has more pixels than OpenCV decodes' in ended.out


def video(path: Path, images: list[Path], frames: int) -> list[np.ndarray]:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'MJPG'), 7, (128, 96))
    written = [cv2.resize(cv2.imread(str(images[i % len(images)])), (128, 96)) for i in range(frames)]
    for frame in written:
        writer.write(frame)
    writer.release()
    return written


@pytest.mark.parametrize('task', TASKS)
def test_a_video(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    video(tmp_path / 'clip.avi', made.images(task), 5)
    out = tmp_path / 'out'
    printed = predict(tool, made.checkpoints[task], tmp_path / 'clip.avi', '--out', out, '--batch', 2)
    assert 'clip.avi  5/5' in printed
    written = cv2.VideoCapture(str(out / 'pictures/clip.mp4'))
    assert written.get(cv2.CAP_PROP_FPS) == 7
    assert written.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert written.get(cv2.CAP_PROP_FRAME_WIDTH) == 640, 'enlarged, to be readable'
    if task == 'segmentation':
        names = sorted(path.name for path in (out / 'label_maps/clip').iterdir())
        assert names == [f'{i:06}.png' for i in range(5)]
    else:
        images = json.loads((out / 'images.json').read_text())['images']
        assert [(x['id'], x['frame'], x['width'], x['height']) for x in images] == [
            (i + 1, i, 128, 96) for i in range(5)
        ]
        entries = json.loads((out / 'predictions.json').read_text())
        assert {(x['image_id'], x['frame']) for x in entries} == {(i + 1, i) for i in range(5)}


def test_a_broken_video(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    (tmp_path / 'clip.mp4').write_bytes(b'no video')
    arguments = [
        tmp_path / 'clip.mp4',
        made.images('detection')[0],
        '--out',
        tmp_path / 'out',
        '--device',
        'cpu',
    ]
    ended = tool('predict', made.checkpoints['detection'], *arguments)
    assert ended.status == 2
    assert '1 of 2 files' in ended.err
    assert 'clip.mp4 cannot be read' in ended.out


@pytest.mark.parametrize('task', TASKS)
def test_tiles(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    image = made.images(task)[0]
    printed = predict(
        tool, made.checkpoints[task], image, '--out', tmp_path / 'out', '--tile', 300, '--overlap', 0.3
    )
    height, width = cv2.imread(str(image)).shape[:2]
    count = sum(len(row) for row in grid((height, width), 300, 0.3))
    assert f'{image.name}: tiles  {count}/{count}' in printed
    if task == 'segmentation':
        labels = cv2.imread(str(tmp_path / 'out/label_maps' / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (height, width)
    else:
        entries = json.loads((tmp_path / 'out/predictions.json').read_text())
        assert {tuple(x['segmentation']['size']) for x in entries} == {(height, width)}


def test_score_and_classes(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    image, checkpoint = made.images('detection')[0], made.checkpoints['detection']
    predict(tool, checkpoint, image, '--out', tmp_path / 'all')
    everything = json.loads((tmp_path / 'all/predictions.json').read_text())
    score = sorted(x['score'] for x in everything)[10]
    names = {x['category_id'] for x in everything}
    chosen = [('circle', 'triangle', 'rectangle', 'star', 'ring')[i - 1] for i in sorted(names)][:1]
    predict(tool, checkpoint, image, '--out', tmp_path / 'some', '--score', score, '--classes', *chosen)
    some = json.loads((tmp_path / 'some/predictions.json').read_text())
    assert some == [x for x in everything if x['score'] >= score and x['category_id'] == min(names)]
    assert len(some) < len(everything)
    line = tool('predict', checkpoint, image, '--classes', 'cirkle').error()
    assert "'cirkle' is none of the 5 classes of the checkpoint; did you mean 'circle'?" in line


def test_classes_of_label_maps(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    image, checkpoint = made.images('segmentation')[0], made.checkpoints['segmentation']
    predict(tool, checkpoint, image, '--out', tmp_path / 'all')
    before = cv2.imread(str(tmp_path / 'all/label_maps' / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
    kept = int(np.bincount(before.ravel()).argmax())
    name = ('background', 'circle', 'triangle', 'rectangle', 'star', 'ring')[kept - 1]
    predict(tool, checkpoint, image, '--out', tmp_path / 'some', '--classes', name)
    after = cv2.imread(str(tmp_path / 'some/label_maps' / f'{image.stem}.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(after, np.where(before == kept, kept, 0))


@pytest.mark.parametrize('task', TASKS)
def test_a_config_and_the_newest_of_its_run(task: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Weights without a config, and a config for other classes: those of the checkpoint count."""
    content = torch.load(made.checkpoints[task], weights_only=True)
    del content['meta']['cfg']
    torch.save(content, tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/epoch_1.pth')
    (tmp_path / 'config.py').write_text(f'_base_ = {str(CONFIGS[task])!r}\nwork_dir = {str(tmp_path)!r}\n')
    image = made.images(task)[0]
    predict(tool, tmp_path / 'config.py', image, '--out', tmp_path / 'a', '--cfg-options', *OPTIONS[task])
    predict(tool, made.checkpoints[task], image, '--out', tmp_path / 'b')
    name = 'predictions.json' if task == 'detection' else f'label_maps/{image.stem}.png'
    assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()
    (tmp_path / 'epoch_1.pth').unlink()
    line = tool('predict', tmp_path / 'config.py', image, '--out', tmp_path / 'c').error()
    assert 'give --checkpoint FILE' in line


def test_untrusted_checkpoints(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Row 1: a pickle with a payload, beside the weights and alone."""
    path, trace = hostile(tmp_path)
    image = made.images('detection')[0]
    for arguments in ([path], [CONFIGS['detection'], '--checkpoint', path]):
        first, *rest = arguments
        line = tool('predict', first, image, *rest, '--out', tmp_path / 'out').error(status=3)
        assert f'checkpoint {path} is refused: it holds posix.system' in line
    assert not trace.exists()


@pytest.mark.parametrize('share', [0, 0.5, 0.99])
def test_cut_checkpoints(share: float, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Row 8."""
    content = made.checkpoints['detection'].read_bytes()
    path = tmp_path / 'cut.pth'
    path.write_bytes(content[: int(len(content) * share)])
    line = tool('predict', path, made.images('detection')[0], '--out', tmp_path / 'out').error()
    assert f'checkpoint {path} cannot be read safely' in line


def test_other_files_as_checkpoints(made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    """Row 9, and weights that are not the model's."""
    image, path = made.images('detection')[0], tmp_path / 'x.pth'
    path.write_text('<!DOCTYPE html><html></html>')
    assert 'cannot be read safely' in tool('predict', path, image).error()
    assert 'does not exist' in tool('predict', tmp_path / 'y.pth', image).error()
    content = torch.load(made.checkpoints['detection'], weights_only=True)
    del content['state_dict']['backbone.norm0.weight']
    torch.save(content, path)
    assert 'lacks 1 of the' in tool('predict', path, image, '--out', tmp_path / 'out').error()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['IMAGE', '--tile', 0], '--tile 0'),
        (['IMAGE', '--tile', 100, '--overlap', 1], '--overlap 1.0'),
        (['IMAGE', '--batch', 0], '--batch 0'),
        (['IMAGES/000101.jpeg'], 'did you mean'),
        (['IMAGES/*.bmp'], 'does not exist'),
        (['IMAGE', '--checkpoint', 'x.pth'], 'is no config (.py)'),
        (['IMAGE', '--ids', 'nothing.json'], 'nothing.json do not exist'),
    ],
)
def test_mistakes(arguments: list, message: str, made: Made, tool: Callable, tmp_path: Path):  # noqa: F811
    image = made.images('detection')[0]
    given = [str(x).replace('IMAGES', str(image.parent)).replace('IMAGE', str(image)) for x in arguments]
    line = tool(
        'predict', made.checkpoints['detection'], *given, '--out', tmp_path / 'out', '--device', 'cpu'
    ).error()
    assert message in line
    assert not (tmp_path / 'out').exists()
