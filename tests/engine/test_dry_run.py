"""What a dry run counts and shows, against what runs really do."""

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import mmdet.registry
import mmseg.registry
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from swin_dense.engine import dry_run
from swin_dense.engine.dry_run import Measured
from tests.engine.test_runner import runner

LOOPS = {
    'every epoch': (dict(by_epoch=True, max_epochs=5), dict()),
    'some epochs': (dict(by_epoch=True, max_epochs=7, val_interval=3, val_begin=2), dict(interval=2)),
    'a plan': (
        dict(by_epoch=True, max_epochs=9, val_interval=4, dynamic_intervals=[(6, 1)]),
        dict(interval=4),
    ),
    'iterations': (
        dict(by_epoch=False, max_iters=20, val_interval=6),
        dict(by_epoch=False, interval=8, save_last=False),
    ),
    'a late start': (
        dict(by_epoch=False, max_iters=20, val_interval=4, val_begin=10),
        dict(by_epoch=False, interval=3, save_begin=4),
    ),
    'no checkpoints': (dict(by_epoch=True, max_epochs=2), dict(interval=-1, save_last=False)),
}


@pytest.mark.parametrize('case', LOOPS)
def test_evaluations_and_checkpoints_are_those_of_the_run(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    train_cfg, checkpoint = LOOPS[case]
    built = runner(
        tmp_path,
        train_cfg=train_cfg,
        param_scheduler=None,
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', **checkpoint)),
    )
    built._train_loop = loop = built.build_train_loop(built._train_loop)
    expected = dry_run.evaluations(loop, 0), dry_run.checkpoints(built)
    evaluated, saved = [], []

    class Validation:
        def run(self) -> None:
            evaluated.append(loop.iter)

    def save(*args: object) -> None:
        saved.append(loop.iter)

    monkeypatch.setattr(CheckpointHook, '_save_checkpoint', save)
    built._val_loop = Validation()
    monkeypatch.setattr(type(built), 'build_val_loop', lambda self, given: given)
    monkeypatch.setattr(type(built), 'build_train_loop', lambda self, given: given)
    built.train()
    assert (evaluated, len(saved)) == expected
    assert evaluated
    assert saved or case == 'no checkpoints'


def test_the_total_time():
    counts = dict(iterations=10, early_evaluations=4, evaluations=2, checkpoints=3)
    found = Measured(
        **counts, set_up=5.0, iteration=0.5, early_evaluation=11.0, evaluation=7.0, checkpoint=1.0
    )
    assert found.total == 5 + 10 * 0.5 + 4 * 11 + 2 * 7 + 3 * 1


def detector(limit: int) -> SimpleNamespace:
    return SimpleNamespace(roi_head=SimpleNamespace(test_cfg=ConfigDict(score_thr=0.05, max_per_img=limit)))


def images_with(*objects: int) -> list[DetDataSample]:
    return [DetDataSample(gt_instances=InstanceData(labels=torch.zeros(count))) for count in objects]


@pytest.mark.parametrize(('objects', 'limit'), [((40, 0), 100), ((1, 0), 10), ((900,), 500)])
def test_detections_are_limited_by_the_objects(objects: tuple[int, ...], limit: int):
    model = detector(500)
    assert dry_run.limit_detections(model, images_with(*objects)) == (limit < 500)
    assert model.roi_head.test_cfg.max_per_img == limit


def test_processes_limit_alike_whatever_images_they_see(monkeypatch: pytest.MonkeyPatch):
    """Otherwise one would evaluate once more, and wait for the others for ever."""

    def of_the_first_process(data: list) -> None:
        data[:] = [20.0]

    monkeypatch.setattr(dry_run, 'broadcast_object_list', of_the_first_process)
    for samples in (images_with(0), images_with(3, 300)):
        model = detector(500)
        assert dry_run.limit_detections(model, samples)
        assert model.roi_head.test_cfg.max_per_img == 100


@pytest.mark.parametrize('samples', [images_with(0), [SegDataSample()]], ids=['no objects', 'label maps'])
def test_detections_are_not_limited_where_nothing_is_known(samples: list):
    model = detector(500)
    assert not dry_run.limit_detections(model, samples)
    assert model.roi_head.test_cfg.max_per_img == 500


@pytest.mark.parametrize(('wanted', 'expected'), [(0.2, 4), (10.4, 10), (1e6, 60)])
def test_a_count_within_bounds(wanted: float, expected: int):
    assert dry_run.agreed(wanted, 4, 60) == expected
    assert dry_run.agreed(wanted, 4, 2) == 4, 'the least even where the run is shorter'


def test_batches_go_on_after_an_epoch():
    loop = SimpleNamespace(dataloader=[1, 2, 3])
    batches = dry_run.endless(loop)
    assert [next(batches) for _ in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    assert issubclass(EpochBasedTrainLoop, object)
    iterated = object.__new__(IterBasedTrainLoop)
    iterated.dataloader_iterator = iter([5])
    assert next(dry_run.endless(iterated)) == 5


PREPROCESSORS = {
    'mmdet': (mmdet.registry, dict(type='mmdet.DetDataPreprocessor')),
    'mmseg': (mmseg.registry, dict(type='mmseg.SegDataPreProcessor', size=(12, 16))),
}


@pytest.mark.parametrize('normalised', [True, False])
@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('host', PREPROCESSORS)
def test_images_are_shown_in_their_colours(host: str, to_rgb: bool, normalised: bool):
    """As files are read, blue first, whatever the model wants."""
    registry, kind = PREPROCESSORS[host]
    values = dict(mean=[120.0, 110, 100], std=[60.0, 50, 40]) if normalised else {}
    preprocessor = registry.MODELS.build(dict(kind, bgr_to_rgb=to_rgb, **values))
    bgr = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    sample = DetDataSample() if host == 'mmdet' else SegDataSample()
    if host == 'mmseg':
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, 12, 16, dtype=torch.long))
    batch = dict(inputs=[torch.from_numpy(bgr).permute(2, 0, 1)], data_samples=[sample])
    seen = dry_run.as_seen(SimpleNamespace(data_preprocessor=preprocessor), batch)
    (image,) = dry_run.visible(seen['inputs'], preprocessor)
    assert np.array_equal(image, bgr[..., ::-1])


@pytest.mark.parametrize('channels', [1, 4])
def test_images_of_other_channels(channels: int):
    inputs = torch.full((2, channels, 4, 5), 300.0)
    images = dry_run.visible(inputs, SimpleNamespace())
    assert [image.shape for image in images] == [(4, 5, 3)] * 2
    assert all((image == 255).all() for image in images)


def test_peak_memory_grows_with_what_is_held():
    before = dry_run.peak_memory()
    held = torch.ones(before // 4 + 30 * 2**20)  # float32: four bytes each, so more than ever before
    grown = [before, dry_run.peak_memory()]
    assert all(later > earlier for earlier, later in pairwise(grown))
    assert held.sum() > 0
