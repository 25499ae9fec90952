"""A task that the package does not know: the engine trains, evaluates and draws it without a change."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from mmengine.structures import BaseDataElement

from swin_dense import tasks
from swin_dense.drawing.pictures import Drawing, Pair
from swin_dense.engine import prepare, runs
from swin_dense.errors import UserError
from swin_dense.tasks.task import Task

CLASSES = ('blue', 'red')


class Classification(Task):
    """The class of a whole image, by mmpretrain."""

    name = 'classification'
    scopes = ('mmpretrain',)
    in_percent = True

    def truth(self, sample: BaseDataElement) -> Drawing:
        return Drawing(caption=CLASSES[sample.gt_label.item()])

    def pair(self, sample: BaseDataElement) -> Pair:
        prediction = Drawing(caption=f'{CLASSES[sample.pred_label.item()]} {sample.pred_score.max():.2f}')
        return Pair(Path(sample.img_path), self.truth(sample), prediction)


CONFIG = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[128] * 3, std=[64] * 3, num_classes=2),
    backbone=dict(
        type='swin_dense.SwinTransformer', embed_dims=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8),
        window_size=4, out_indices=(3,), drop_path_rate=0.0,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=192, loss=dict(type='CrossEntropyLoss')),
)
dataset = dict(
    type='CustomDataset', data_root='ROOT', classes=['blue', 'red'],
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
)
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True), dataset=dataset)
val_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy')
train_cfg = dict(by_epoch=True, max_epochs=4, val_interval=4)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=3e-3))
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=4))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images of two colours with noise, and a config of a classifier."""
    monkeypatch.setattr(tasks, 'KNOWN', list(tasks.KNOWN))
    random = np.random.default_rng(0)
    for channel, name in ((0, 'blue'), (2, 'red')):
        (tmp_path / 'data' / name).mkdir(parents=True)
        for number in range(8):
            image = random.integers(0, 128, (32, 32, 3), np.uint8)
            image[..., channel] += 127
            cv2.imwrite(str(tmp_path / 'data' / name / f'{number}.png'), image)
    path = tmp_path / 'classifier.py'
    path.write_text(CONFIG.replace('ROOT', str(tmp_path / 'data')))
    return path


def test_a_task_of_a_users_own(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tasks.register(Classification())
    titles = captions(monkeypatch)
    command = prepare.Command(str(config), work_dir=str(tmp_path / 'run'), seed=0)
    runs.train(prepare.training(command))
    metrics = json.loads((tmp_path / 'run' / 'metrics.json').read_text())
    assert metrics == {'accuracy/top1': 1.0}, 'red and blue are easily told apart'
    picture = cv2.imread(str(tmp_path / 'run' / 'predictions.png'))
    assert picture.std() > 10
    assert sorted({title.split()[0] for title in titles}) == ['blue'], 'the first six images'
    assert len(titles) == 12, 'ground truth and prediction of each'
    (tmp_path / 'run' / 'metrics.json').unlink()
    runs.test(prepare.evaluation(command, str(tmp_path / 'run' / 'epoch_4.pth')))
    assert json.loads((tmp_path / 'run' / 'metrics.json').read_text()) == metrics


def captions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of all pictures that are saved from now on."""
    titles: list[str] = []
    save = Figure.savefig

    def noting(figure: Figure, *arguments: object, **options: object) -> None:
        titles.extend(axis.get_title('right') for axis in figure.axes if axis.get_title('right'))
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, 'savefig', noting)
    return titles


def test_what_a_task_lacks_is_one_line(config: Path):
    tasks.register(Classification())
    for command in (
        prepare.Command(str(config), data=Path('data')),
        prepare.Command(str(config), classes=Path('classes.txt')),
    ):
        with pytest.raises(UserError, match='is not there for classification'):
            prepare.training(command)


def test_a_task_that_is_not_registered(config: Path):
    with pytest.raises(UserError, match=r"default_scope='mmpretrain' is none of \['mmdet', 'mmseg'\]"):
        prepare.training(prepare.Command(str(config)))
