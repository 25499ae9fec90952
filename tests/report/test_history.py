"""Learning curves and facts of a run, from what mmengine logs."""

import json
from pathlib import Path

from mmengine.config import Config

from swin_dense.report import history


def log(folder: Path, start: str, lines: list[dict | str]) -> None:
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines))


def step(number: int, epoch: int, loss: float) -> dict:
    return dict(
        lr=0.1 / number,
        loss=loss,
        loss_cls=loss / 2,
        acc=90.0,
        time=2.0,
        epoch=epoch,
        iter=number,
        step=number,
    )


def test_epochs_and_a_resumption(tmp_path: Path):
    """Metrics of epoch 2 are at its last iteration; what was logged before the cut is replaced."""
    end = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_l': -1.0, 'data_time': 0.1, 'time': 1.0, 'step': 2}
    log(tmp_path, '20260101_101500', [step(10, 1, 3.0), step(20, 2, 2.0), step(30, 3, 9.0), '{"lr": 0.0'])
    log(
        tmp_path,
        '20260102_101500',
        [end, step(30, 3, 1.0), {**end, 'coco/bbox_mAP': 0.6, 'step': 3, 'val/loss': 4.0}],
    )
    records = history.read_scalars(tmp_path)
    assert len(records) == 6
    curves = history.learning_curves(records, False)
    assert curves['loss'] == {
        'loss': [(10, 3.0), (20, 2.0), (30, 1.0)],
        'loss_cls': [(10, 1.5), (20, 1.0), (30, 0.5)],
        'val/loss': [(30, 4.0)],
    }
    assert curves['metrics'] == {'bbox_mAP': [(20, 0.5), (30, 0.6)]}
    assert [x for x, _ in curves['learning rate']['learning rate']] == [10, 20, 30]


def test_iterations_in_percent(tmp_path: Path):
    log(tmp_path, '20260101_101500', [step(50, 1, 3.0), dict(aAcc=80.0, mIoU=float('nan'), step=50)])
    curves = history.learning_curves(history.read_scalars(tmp_path), True)
    assert curves['metrics'] == {'aAcc': [(50, 0.8)]}
    assert history.learning_curves([], True) == {}


def test_the_facts_of_a_run(tmp_path: Path):
    log(tmp_path / 'mine', '20260101_101500', [step(60, 1, 3.0), step(120, 2, 2.0)])
    loader = dict(batch_size=2, dataset=dict(dataset=dict(data_root='data', ann_file='train.json')))
    content = dict(
        default_scope='mmdet',
        model=dict(type='MaskRCNN', backbone=dict(type='swin_dense.SwinTransformer')),
        train_dataloader=loader,
        train_cfg=dict(max_epochs=12),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4)),
    )
    (tmp_path / 'recipe.py').write_text('')
    config = Config(content, filename=str(tmp_path / 'recipe.py'))
    facts = history.facts(config, tmp_path / 'mine', history.read_scalars(tmp_path / 'mine'))
    expected = {
        'run': 'mine',
        'config': 'recipe.py',
        'model': 'MaskRCNN > SwinTransformer',
        'trained on': 'data/train.json',
        'schedule': '12 epochs',
        'optimizer': 'AdamW, learning rate 0.0001',
        'batch size': '2',
        'started': '2026-01-01 10:15',
        'training time': '4 min',
    }
    assert {name: facts.get(name) for name in expected} == expected
    assert 'evaluated on' not in facts
