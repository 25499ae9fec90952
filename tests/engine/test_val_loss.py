"""The validation loss: the training loss of the same image, and nothing else changes."""

import json
import random
from pathlib import Path
from types import SimpleNamespace

import mmdet.registry
import mmseg.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.data import Dataset

from swin_dense.console import terminal
from swin_dense.data import coco
from swin_dense.demo import shapes
from swin_dense.engine import config as configs
from swin_dense.engine import val_loss
from swin_dense.engine.runner import Runner

DEMO = Path(__file__).parents[2] / 'configs' / 'demo'
SCALE = (107, 83)  # of images of 320 x 320 and others: no whole number of times smaller


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shapes')
    shapes.write(folder, train=1, val=2)
    return folder


def recipe(task: str, root: Path) -> Config:
    name = {'detection': 'mask_rcnn_swin_nano', 'segmentation': 'upernet_swin_nano'}[task]
    config = configs.load_config(str(DEMO / f'{name}.py'))
    dataset = config.val_dataloader.dataset
    if task == 'detection':
        coco.point_at(config, root / 'coco')
        coco.name_classes(config)
    else:
        dataset.data_root = str(root / 'ade')
        config.model.data_preprocessor.size = (32, 32)
        config.model.decode_head.num_classes = config.model.auxiliary_head.num_classes = 6
        dataset.metainfo = dict(classes=('background', 'a', 'b', 'c', 'd', 'e'))
    return config


REGISTRIES = {'detection': mmdet.registry, 'segmentation': mmseg.registry}


def loop_of(task: str, config: Config, transforms: list[dict]) -> SimpleNamespace:
    dataset = {**config.val_dataloader.dataset, 'pipeline': transforms}
    built = REGISTRIES[task].DATASETS.build(dataset)
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=built))


def pipelines(config: Config, keep_ratio: bool) -> tuple[list[dict], list[dict]]:
    """Those of validation and of training without its random parts."""
    load, resize, annotations, pack = config.val_dataloader.dataset.pipeline
    resize = {**resize, 'scale': SCALE, 'keep_ratio': keep_ratio}
    return [load, resize, annotations, pack], [load, annotations, resize, pack]


@pytest.mark.parametrize('keep_ratio', [True, False])
@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_the_loss_of_a_training_pipeline(task: str, keep_ratio: bool, root: Path):
    config = recipe(task, root)
    model = REGISTRIES[task].MODELS.build(config.model).eval()
    validation, training = (loop_of(task, config, p) for p in pipelines(config, keep_ratio))
    objects = 0
    for number in range(2):
        batch = pseudo_collate([validation.dataloader.dataset[number]])
        before = batch['data_samples'][0].clone()
        with torch.no_grad():
            found = val_loss.batch_losses(model, val_loss.with_annotations(batch, validation))
            torch.manual_seed(0)
            data = model.data_preprocessor(
                pseudo_collate([training.dataloader.dataset[number]]), training=True
            )
            expected = model.loss(data['inputs'], data['data_samples'])
        for name, value in expected.items():
            if 'loss' in name:
                value = sum(part.sum() for part in value) if isinstance(value, list) else value.mean()
                assert found[name] == float(value), name
        parts = [value for name, value in found.items() if name != 'loss']
        assert found['loss'] == pytest.approx(sum(parts), rel=1e-6)
        after = batch['data_samples'][0]
        if task == 'detection':
            assert torch.equal(after.gt_instances.bboxes.tensor, before.gt_instances.bboxes.tensor)
            objects += len(after.gt_instances)
        else:
            assert torch.equal(after.gt_sem_seg.data, before.gt_sem_seg.data), 'metrics need the original'
    assert objects > 0 or task == 'segmentation'


def test_annotations_in_the_scale_of_the_input_stay(root: Path):
    config = recipe('detection', root)
    _, training = pipelines(config, True)
    loop = loop_of('detection', config, training)
    batch = pseudo_collate([loop.dataloader.dataset[0]])
    assert val_loss.with_annotations(batch, loop) is batch


def test_no_annotations(root: Path):
    config = recipe('detection', root)
    load, resize, _, pack = config.val_dataloader.dataset.pipeline
    loop = loop_of('detection', config, [load, resize, pack])
    with pytest.raises(ValueError, match='loads no annotations'):
        val_loss.with_annotations({}, loop)


class LoadAnnotations:
    """What the points' pipeline is known by."""


class Points(Dataset):
    """Five points, in batches of 3 and 2."""

    metainfo = {'classes': ('one',)}
    pipeline = SimpleNamespace(transforms=[LoadAnnotations()])

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict:
        return {'inputs': torch.tensor([float(index)]), 'data_samples': BaseDataElement(y=torch.ones(1))}


class Line(BaseModel):
    """y = ax + b, whose loss draws random numbers and counts itself, as samplers and SeesawLoss do."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer('counted', torch.zeros(()))
        self.fails = False

    def forward(self, inputs: list, data_samples: list, mode: str = 'loss') -> dict | list:
        x = self.norm(self.line(torch.stack(list(inputs))))
        if mode == 'predict':
            return [BaseDataElement(found=value) for value in x]
        if self.fails and not self.training:
            raise KeyError('enc_outputs_class')
        self.counted += 1
        self.drawn = (random.random(), np.random.rand(), float(torch.rand(())))
        square = (x[:, 0] - 1).square().mean()
        return {'loss_a': square, 'loss_b': [square, square], 'acc': x.mean()}


class Mean(BaseMetric):
    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results += [float(sample['found']) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return {'mean': float(np.mean(results))}


def trained(work_dir: Path, model: nn.Module, hooks: list, best: str | None = None) -> Runner:
    torch.manual_seed(1)
    init_default_scope('mmdet')
    loader = dict(
        dataset=Points(),
        batch_size=3,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    run = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        val_evaluator=[Mean()],
        train_cfg=dict(by_epoch=True, max_epochs=3),
        val_cfg=dict(),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        randomness=dict(seed=3),
        default_scope='mmdet',
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', save_best=best, rule='less' if best else None)
        ),
        experiment_name=work_dir.name,
        cfg=Config(dict(work_dir=str(work_dir))),
    )
    for hook in hooks:
        run.register_hook(hook)
    run.train()
    return run


def scalars(run: Runner) -> list[dict]:
    lines = (Path(run.log_dir) / 'vis_data' / 'scalars.json').read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if 'mean' in entry]


class Reference(val_loss.ValLossHook):
    """The loss of each evaluation by hand: all points at once."""

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        model = runner.model
        x = torch.arange(5.0)[:, None]
        with torch.no_grad():
            self.found = [*getattr(self, 'found', []), float((model.norm(model.line(x)) - 1).square().mean())]

    def after_val_iter(self, *args: object, **kwargs: object) -> None:
        """Nothing."""


def test_each_evaluation_is_logged_with_its_own_loss_and_training_is_not_disturbed(tmp_path: Path):
    torch.manual_seed(5)
    model, other, by_hand = Line(), Line(), Reference()
    other.load_state_dict(model.state_dict())
    run = trained(tmp_path / 'with', model, [val_loss.ValLossHook(), by_hand], best='val/loss')
    plain = trained(tmp_path / 'without', other, [])
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    with_loss, without = scalars(run), scalars(plain)
    assert [entry['mean'] for entry in with_loss] == [entry['mean'] for entry in without]
    assert len(by_hand.found) == 3
    assert len(set(by_hand.found)) == 3
    for entry, expected in zip(with_loss, by_hand.found, strict=True):
        assert entry['val/loss_a'] == pytest.approx(expected, rel=1e-5), 'weighted by the images of a batch'
        assert entry['val/loss_b'] == pytest.approx(2 * expected, rel=1e-5)
        assert entry['val/loss'] == pytest.approx(3 * expected, rel=1e-5)
        assert 'val/acc' not in entry
    log = next((tmp_path / 'with').glob('*/*.log')).read_text()
    assert f'val/loss: {3 * by_hand.found[-1]:.4f}' in log
    assert list((tmp_path / 'with').glob('best_val_loss*')), 'save_best can follow it'


def test_random_states_and_buffers_stay_and_the_loss_is_repeatable():
    model = Line().eval()
    batch = pseudo_collate([Points()[i] for i in range(3)])
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    first, drawn = val_loss.batch_losses(model, batch), model.drawn
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    random.random(), np.random.rand(), torch.rand(3)
    assert val_loss.batch_losses(model, batch) == first
    assert model.drawn == drawn


def test_a_model_without_such_a_loss_is_still_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(val_loss, 'say', said.append)
    model = Line()
    model.fails = True
    run = trained(tmp_path / 'run', model, [val_loss.ValLossHook()])
    assert said == ["no validation loss: KeyError: 'enc_outputs_class'"]
    assert len(scalars(run)) == 3
    assert not any(name.startswith('val/') for entry in scalars(run) for name in entry)


RANKS = {
    'both': ([(True, 2, {'loss': 3.0}), (True, 1, {'loss': 0.5})], 3.5 / 3),
    'one failed': ([(True, 2, {'loss': 3.0}), (False, 1, {'loss': 0.5})], None),
    'no images': ([(True, 0, {}), (True, 0, {})], None),
}


@pytest.mark.parametrize('case', RANKS)
@pytest.mark.parametrize('metrics', [{'mAP': 0.5}, {}])
def test_ranks(case: str, metrics: dict, monkeypatch: pytest.MonkeyPatch):
    gathered, expected = RANKS[case]
    monkeypatch.setattr(val_loss, 'all_gather_object', lambda mine: gathered)
    logged: dict[str, float] = {}
    runner = SimpleNamespace(message_hub=SimpleNamespace(update_scalar=logged.__setitem__))
    found = dict(metrics)
    val_loss.ValLossHook().after_val_epoch(runner, found)
    assert logged == ({} if expected is None else {'val/val/loss': pytest.approx(expected)})
    if metrics and expected is not None:
        assert found.pop('val/loss') == pytest.approx(expected)
    assert found == metrics, 'without a detection there is no metric for save_best to take'


def test_the_table_has_the_losses_and_metrics_json_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from swin_dense.engine.hooks import MetricsHook

    shown: dict[str, float] = {}
    monkeypatch.setattr(terminal, 'show_metrics', lambda title, rows: shown.update(rows))
    logged = {'val/val/loss': SimpleNamespace(current=lambda: 150.0)}
    runner = SimpleNamespace(
        message_hub=SimpleNamespace(log_scalars=logged),
        work_dir=str(tmp_path),
        iter=4,
        cfg=Config(dict(default_scope='mmseg')),
    )
    MetricsHook().after_val_epoch(runner, {'mIoU': 40.0, 'val/loss': 150.0})
    assert shown == {'mIoU': 0.4, 'val/loss': 150.0}
    assert json.loads((tmp_path / 'metrics.json').read_text()) == {'mIoU': 0.4}
