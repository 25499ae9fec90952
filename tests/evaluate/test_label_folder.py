"""The label maps of an evaluation: a map for each image, and the folder of one evaluation as a whole."""

import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from swin_dense.errors import DiskFullError, UserError
from swin_dense.evaluate import online
from swin_dense.evaluate.label_folder import LabelFolder, map_names
from swin_dense.storage import folders
from swin_dense.tasks.segmentation import Segmentation
from tests.evaluate.test_ade20k import NAMES, save


def names(*paths: str) -> dict[str, str]:
    return {str(path): name for path, name in map_names(map(Path, paths)).items()}


def test_names_are_stems_where_these_differ():
    assert names('/data/val/a.jpg', '/data/val/x/b.jpg') == {
        '/data/val/a.jpg': 'a',
        '/data/val/x/b.jpg': 'b',
    }


def test_names_of_one_stem_tell_the_folder_or_the_suffix():
    found = names('d/x/a.jpg', 'd/y/a.jpg', 'd/y/z/a.jpg', 'd/y/a.png', 'd/b.jpg', 'd/c.v1.jpg', 'e/c.v1.png')
    assert found == {
        'd/x/a.jpg': 'x/a',
        'd/y/a.jpg': 'y/a_jpg',
        'd/y/z/a.jpg': 'y/z/a',
        'd/y/a.png': 'y/a_png',
        'd/b.jpg': 'b',
        'd/c.v1.jpg': 'd/c.v1',
        'e/c.v1.png': 'e/c.v1',
    }
    assert names('a.jpg', 'a.jpg') == {'a.jpg': 'a'}
    many = names(*(f'{folder}/image.png' for folder in range(2_000)))
    assert len(set(many.values())) == 2_000


def evaluate(folder: Path, data: dict[str, np.ndarray], reduced: bool = False) -> dict[str, float]:
    """mmseg's loop with our metric: predictions that equal the ground truth."""
    metric = online.IoUMetric(output_dir=str(folder))
    metric.dataset_meta = dict(classes=NAMES)
    assert not folder.exists() or any(folder.iterdir())
    for path, labels in data.items():
        maps = dict(data=torch.tensor(labels.astype(np.int64))[None])
        metric.process(
            {}, [dict(gt_sem_seg=maps, pred_sem_seg=maps, img_path=path, reduce_zero_label=reduced)]
        )
    return metric.evaluate(len(data))


def labels(value: int) -> np.ndarray:
    return np.full((4, 5), value, np.uint8)


def read(folder: Path) -> dict[str, int]:
    """The first label of every map."""
    return {
        str(path.relative_to(folder)): int(np.asarray(Image.open(path))[0, 0])
        for path in sorted(folder.rglob('*.png'))
    }


def test_two_images_of_one_stem(tmp_path: Path):
    """Both maps are written, and scored: what the evaluation says, its label maps say."""
    for name, value in {'x/a': 0, 'y/a': 1, 'b': 2}.items():
        save(tmp_path / 'images' / f'{name}.jpg', np.zeros((4, 5, 3), np.uint8))
        save(tmp_path / 'labels' / f'{name}.png', labels(value))
    leaf = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        metainfo=dict(classes=NAMES),
    )
    paths = [str(tmp_path / f'images/{name}.jpg') for name in ('x/a', 'y/a', 'b')]
    found = evaluate(tmp_path / 'maps', dict(zip(paths, map(labels, range(3)), strict=True)))
    assert read(tmp_path / 'maps') == {'x/a.png': 0, 'y/a.png': 1, 'b.png': 2}
    task = Segmentation()
    truth = task.ground_truth(Config(dict(test_dataloader=dict(dataset=leaf))))
    scored = task.score(truth, tmp_path / 'maps').evaluated
    assert scored.metrics == dict(aAcc=100.0, mIoU=100.0, mAcc=100.0)
    assert found == scored.metrics


def test_labels_are_in_the_numbers_of_the_data(tmp_path: Path):
    evaluate(tmp_path / 'maps', {'a.jpg': labels(0)}, reduced=True)
    assert read(tmp_path / 'maps') == {'a.png': 1}


def test_the_folder_is_replaced_as_a_whole(tmp_path: Path):
    evaluate(tmp_path / 'maps', {'a.jpg': labels(0), 'b.jpg': labels(1)})
    evaluate(tmp_path / 'maps', {'c.jpg': labels(2)})
    assert read(tmp_path / 'maps') == {'c.png': 2}
    assert [path.name for path in tmp_path.iterdir()] == ['maps']


def test_an_evaluation_that_was_interrupted_changes_nothing(tmp_path: Path):
    evaluate(tmp_path / 'maps', {'a.jpg': labels(0)})
    interrupted = LabelFolder(tmp_path / 'maps')
    interrupted.add('a.jpg', labels(1))
    interrupted.add('b.jpg', labels(1))
    assert read(tmp_path / 'maps') == {'a.png': 0}
    evaluate(tmp_path / 'maps', {'c.jpg': labels(2)})
    assert read(tmp_path / 'maps') == {'c.png': 2}
    assert [path.name for path in tmp_path.iterdir()] == ['maps']


def test_files_of_others_stay(tmp_path: Path):
    """A config may name any folder: one with checkpoints in it is not replaced."""
    (tmp_path / 'epoch_1.pth').write_text('weights')
    save(tmp_path / 'old.png', labels(3))
    evaluate(tmp_path, {'x/a.jpg': labels(0), 'y/a.jpg': labels(1)})
    assert (tmp_path / 'epoch_1.pth').read_text() == 'weights'
    assert read(tmp_path) == {'old.png': 3, 'x/a.png': 0, 'y/a.png': 1}


@pytest.mark.parametrize('exchanges', [True, False])
def test_a_kill_at_any_call_leaves_one_of_the_two(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where two folders cannot be exchanged at once, both lie beside at one moment."""
    if not exchanges:
        monkeypatch.setattr(folders.ctypes, 'CDLL', lambda name: object())

    class KilledError(BaseException):
        pass

    def killing(real: Callable, count: Iterator[int], last: int) -> Callable:
        def call(*given: object, **more: object) -> object:
            if next(count) == last:
                raise KilledError
            return real(*given, **more)

        return call

    for number in range(1, 100):
        shutil.rmtree(tmp_path / 'maps', ignore_errors=True)
        evaluate(tmp_path / 'maps', {'a.jpg': labels(0), 'b.jpg': labels(0)})
        count = itertools.count(1)
        with pytest.MonkeyPatch.context() as patch:
            for name in ('rename', 'replace', 'unlink', 'rmdir', 'fsync', 'mkdir'):
                patch.setattr(os, name, killing(getattr(os, name), count, number))
            try:
                evaluate(tmp_path / 'maps', {'b.jpg': labels(1), 'c.jpg': labels(1)})
            except KilledError:
                left = read(tmp_path / 'maps') if (tmp_path / 'maps').is_dir() else {}
                whole = {'a.png': 0, 'b.png': 0}, {'b.png': 1, 'c.png': 1}
                if exchanges:
                    assert left in whole
                else:
                    assert left in (*whole, {})
                    assert any(read(path) in whole for path in places(tmp_path))
            else:
                assert number > 10
                return
    raise AssertionError


def places(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob('*') if path.is_dir())


@pytest.mark.parametrize('at', ['a map', 'the end'])
def test_a_full_disk(at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    evaluate(tmp_path / 'maps', {'a.jpg': labels(0)})

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(*((Path, 'write_bytes', full) if at == 'a map' else (os, 'fsync', full)))
    with pytest.raises(DiskFullError) as caught:
        evaluate(tmp_path / 'maps', {'a.jpg': labels(1)})
    assert caught.value.status == 74
    assert f'{tmp_path / "maps"} cannot be written: the disk is full' in str(caught.value)
    assert read(tmp_path / 'maps') == {'a.png': 0}


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='cannot be written: Not a directory'):
        evaluate(tmp_path / 'file/maps', {'a.jpg': labels(1)})


PROCESSES = """
import sys, torch
from swin_dense import hosts
hosts.prepare()
from mmengine.dist import get_rank
from swin_dense.evaluate import online
torch.distributed.init_process_group('gloo')
for turn in range(2):
    metric = online.IoUMetric(output_dir=sys.argv[1])
    metric.dataset_meta = dict(classes=('a', 'b'))
    for number in range(3):
        maps = dict(data=torch.full((1, 2, 2), turn, dtype=torch.int64))
        metric.process({}, [dict(gt_sem_seg=maps, pred_sem_seg=maps, img_path=f'{get_rank()}{number}.jpg')])
    metric.evaluate(6)
"""


@pytest.mark.slow
def test_two_processes(tmp_path: Path):
    (tmp_path / 'run.py').write_text(PROCESSES)
    command = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', tmp_path / 'run.py']
    done = subprocess.run(
        [sys.executable, *map(str, command), str(tmp_path / 'maps')],
        cwd=Path(__file__).parents[2],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert read(tmp_path / 'maps') == {f'{rank}{number}.png': 1 for rank in range(2) for number in range(3)}
