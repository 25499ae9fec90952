"""Losses and gradients that are not finite: the run stops, or leaves the iteration out without a trace."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mmdet.registry
import mmseg.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.structures import BaseDataElement
from torch import nn

from swin_dense.data import coco
from swin_dense.demo import shapes
from swin_dense.engine import config as configs
from swin_dense.engine import nan_batch
from swin_dense.engine.finite import SKIPPED, FiniteHook, largest, non_finite, tensors_in
from swin_dense.engine.runner import Runner
from swin_dense.errors import NotFiniteError, UserError
from tests.engine import finite_toy
from tests.engine.finite_toy import BATCH, DETACHED, GRADIENT, IMAGES, INF, NAN, SUM, TOO_LARGE, plainly, toy

ROOT = Path(__file__).parents[2]
BATCHES = [list(range(begin, begin + BATCH)) for begin in range(0, IMAGES, BATCH)]
REASONS = {
    NAN: 'loss_fit is nan',
    INF: 'loss_fit is inf',
    SUM: 'the sum of the losses is inf',
    GRADIENT: 'the gradient norm is nan (gradient of norm.weight and 3 more)',
    TOO_LARGE: 'the gradient norm is inf (gradient of other)',
    DETACHED: 'loss_size is nan',
}


def run(work_dir: Path, faults: dict[int, int], skip: int = 0, **changes: object) -> Runner:
    """A trained runner; ``faults`` by iteration, counted from 1."""
    images = {(iteration - 1) * BATCH: fault for iteration, fault in faults.items()}
    built = finite_toy.runner(work_dir, images, **changes)
    built.register_hook(FiniteHook(skip))
    built.train()
    return built


def stopped(work_dir: Path, faults: dict[int, int], skip: int = 0, **changes: object) -> str:
    with pytest.raises(NotFiniteError) as caught:
        run(work_dir, faults, skip, **changes)
    assert caught.value.status == 4
    return str(caught.value)


def assert_same(found: Runner, model: nn.Module, optimizer: dict) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    state = found.optim_wrapper.optimizer.state_dict()['state']
    assert state.keys() == optimizer['state'].keys()
    for index, values in optimizer['state'].items():
        for name, value in values.items():
            assert torch.equal(torch.as_tensor(state[index][name]), torch.as_tensor(value)), (index, name)


CLIPPED = dict(optimizer=dict(type='AdamW', lr=0.1), clip_grad=dict(max_norm=0.5))
BY_VALUE = dict(optimizer=dict(type='AdamW', lr=0.1), clip_grad=dict(type='value', clip_value=0.5))
WRAPPERS = {
    'plain': dict(optimizer=dict(type='AdamW', lr=0.1)),
    'clipped': CLIPPED,
    'by value': BY_VALUE,
    'bf16': dict(type='swin_dense.BFloat16OptimWrapper', optimizer=dict(type='AdamW', lr=0.1)),
}


STOPS = [('plain', fault) for fault in REASONS]
STOPS += [('clipped', NAN), ('clipped', GRADIENT), ('clipped', TOO_LARGE), ('clipped', SUM)]
STOPS += [('by value', GRADIENT), ('bf16', DETACHED), ('bf16', GRADIENT)]


@pytest.mark.parametrize(('wrapper', 'fault'), STOPS)
def test_a_run_stops_at_the_iteration(tmp_path: Path, fault: int, wrapper: str):
    text = stopped(tmp_path, {4: fault}, optim_wrapper=WRAPPERS[wrapper].copy())
    reason = REASONS[fault]
    if wrapper == 'clipped':
        reason = reason.partition(' (gradient')[0]  # mmengine has made NaN of all gradients
    assert text.startswith(f'iteration 4: {reason}')
    assert '; images images/6.jpg, images/7.jpg; learning rate 0.1; largest parameter ' in text
    assert text.endswith(f'no step was made; the batch is in {tmp_path / "nan_batch.pt"}')
    assert '\n' not in text
    content = torch.load(tmp_path / 'nan_batch.pt', weights_only=True)
    assert content['iteration'] == 4
    assert content['images'] == ['images/6.jpg', 'images/7.jpg']
    if wrapper == 'plain':
        model, _ = plainly([[batch] for batch in BATCHES[:3]])
        for name, value in model.state_dict().items():
            assert torch.equal(content['state_dict'][name], value), name
    repeated = nan_batch.reproduce(tmp_path / 'nan_batch.pt', toy())
    for name, value in content['losses'].items():
        assert np.array_equal(repeated.losses[name], value, equal_nan=True), name
    assert not (math.isfinite(repeated.losses['loss']) and math.isfinite(repeated.gradient_norm))


def test_random_numbers_are_repeated(tmp_path: Path):
    stopped(tmp_path, {3: DETACHED}, model=toy(dropout=0.5))
    losses = torch.load(tmp_path / 'nan_batch.pt', weights_only=True)['losses']
    for _ in range(2):
        repeated = nan_batch.reproduce(tmp_path / 'nan_batch.pt', toy(dropout=0.5))
        assert repeated.losses['loss_fit'] == losses['loss_fit']
    torch.manual_seed(0)
    others = toy(dropout=0.5).train()(**pseudo_collate([finite_toy.Images({})[i] for i in (4, 5)]))
    assert float(others['loss_fit'].detach()) != losses['loss_fit']


@pytest.mark.parametrize(
    ('fault', 'clip'),
    [(NAN, 0.5), (GRADIENT, 0.5), (SUM, 0.5), (NAN, None), (TOO_LARGE, None), (DETACHED, None)],
)
def test_a_skipped_iteration_leaves_no_trace(tmp_path: Path, fault: int, clip: float | None):
    wrapper = dict(WRAPPERS['plain']) if clip is None else dict(CLIPPED)
    found = run(tmp_path, {3: fault, 5: fault}, skip=2, optim_wrapper=wrapper)
    kept = [[batch] for index, batch in enumerate(BATCHES) if index not in (2, 4)]
    assert_same(found, *plainly(kept, clip=clip))
    assert found.message_hub.get_info(SKIPPED) == 2
    assert not (tmp_path / 'nan_batch.pt').exists()
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert f'skipped (2 of 2): iteration 5: {REASONS[fault].partition(" (")[0]}' in log
    scalars = max(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    losses = [entry['loss'] for entry in map(json.loads, scalars.splitlines()) if 'loss' in entry]
    assert len(losses) == 6
    assert np.isfinite(losses).all()


def test_the_first_iteration_can_be_skipped(tmp_path: Path):
    found = run(tmp_path, {1: NAN}, skip=1, optim_wrapper=dict(CLIPPED))
    assert_same(found, *plainly([[batch] for batch in BATCHES[1:]], clip=0.5))


@pytest.mark.parametrize('fault', [NAN, GRADIENT])
@pytest.mark.parametrize(
    ('iteration', 'windows', 'dropped'),
    [
        (3, [BATCHES[:2], BATCHES[3:4], BATCHES[4:]], ()),  # the first of a step: the other one stays
        (4, [BATCHES[:2], BATCHES[2:3], BATCHES[4:]], (1,)),  # the second one: the first goes with it
    ],
)
def test_accumulated_gradients_are_dropped(
    tmp_path: Path, iteration: int, windows: list, dropped: tuple, fault: int
):
    wrapper = dict(**WRAPPERS['plain'], accumulative_counts=2)
    found = run(tmp_path, {iteration: fault}, skip=1, optim_wrapper=wrapper)
    assert_same(found, *plainly(windows, steps=2, dropped=dropped))
    text = stopped(tmp_path / 'stopped', {iteration: fault}, optim_wrapper=wrapper)
    assert text.startswith(f'iteration {iteration}: ')
    assert 'the gradients accumulated for the same step are dropped' in text


def test_one_more_than_allowed_stops(tmp_path: Path):
    text = stopped(tmp_path, {2: NAN, 3: GRADIENT, 5: INF}, skip=2)
    assert text.startswith('iteration 5: loss_fit is inf')
    assert '; 2 such iterations were skipped before; ' in text


def test_a_resumed_run_goes_on_counting(tmp_path: Path):
    whole = dict(
        train_cfg=dict(by_epoch=True, max_epochs=2),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
    )
    first = stopped(tmp_path, {2: NAN}, skip=1, **whole)
    assert first.startswith(f'iteration {len(BATCHES) + 2}: ')
    again = stopped(tmp_path, {2: NAN}, skip=1, resume=True, load_from=str(tmp_path / 'epoch_1.pth'), **whole)
    assert again == first
    assert '; 1 such iterations were skipped before; ' in again


def test_the_average_stays_finite(tmp_path: Path):
    found = run(tmp_path, {3: NAN}, skip=1, custom_hooks=[dict(type='EMAHook', update_buffers=True)])
    average = next(hook for hook in found.hooks if isinstance(hook, EMAHook)).ema_model
    assert non_finite(average.state_dict()) is None
    assert_same(found, *plainly([[batch] for index, batch in enumerate(BATCHES) if index != 2]))


def test_losses_in_evaluation_are_not_ours(tmp_path: Path):
    """The validation loss of a model may be NaN: it is shown as such, and training goes on."""
    hook, built = FiniteHook(), finite_toy.runner(tmp_path, {})
    built.optim_wrapper = built.build_optim_wrapper(built.optim_wrapper)
    hook.before_train(built)
    batch = pseudo_collate([finite_toy.Images({0: DETACHED})[i] for i in (0, 1)])
    built.model.eval()(**batch)
    assert not hook.losses
    built.model.train()(**batch)
    assert math.isnan(hook.losses['loss_size'])
    hook.after_train(built)
    hook.losses = {}
    built.model(**batch)
    assert not hook.losses


@OPTIM_WRAPPERS.register_module()
class ScaledOnTheCPU(AmpOptimWrapper):
    """mmengine's wrapper for float16, which it builds on a GPU alone."""

    def __init__(self, scale: float, **arguments: object) -> None:
        OptimWrapper.__init__(self, **arguments)
        self._scale_update_param, self.cast_dtype = None, None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=scale)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with OptimWrapper.optim_context(self, model):
            yield


def scaled(scale: float, clip: bool) -> dict:
    return dict(**(CLIPPED if clip else WRAPPERS['plain']), type='ScaledOnTheCPU', scale=scale)


@pytest.mark.parametrize('clip', [False, True])
def test_steps_that_the_scaler_skips_are_not_errors(tmp_path: Path, clip: bool):
    found = run(tmp_path, {2: TOO_LARGE, 3: TOO_LARGE}, optim_wrapper=scaled(16.0, clip))
    assert found.optim_wrapper.loss_scaler.get_scale() == 4.0
    assert found.message_hub.get_info(SKIPPED) is None
    steps = {int(state['step']) for state in found.optim_wrapper.optimizer.state_dict()['state'].values()}
    assert steps == {len(BATCHES) - 2}


@pytest.mark.parametrize(('fault', 'clip'), [(NAN, True), (DETACHED, False), (SUM, True)])
def test_losses_are_checked_under_a_scaler(tmp_path: Path, fault: int, clip: bool):
    text = stopped(tmp_path, {4: fault}, optim_wrapper=scaled(16.0, clip))
    assert text.startswith(f'iteration 4: {REASONS[fault]}; ')


def test_an_overflow_without_scaling_stops(tmp_path: Path):
    text = stopped(tmp_path, dict.fromkeys(range(2, 7), GRADIENT), optim_wrapper=scaled(2.0, False))
    assert text.startswith('iteration 3: the gradient norm is inf; ')


def test_the_batch_of_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The cause stays on the line when the batch cannot be written."""

    def full(*arguments: object) -> None:
        raise UserError('nan_batch.pt cannot be written: the disk is full')

    monkeypatch.setattr(nan_batch, 'write', full)
    text = stopped(tmp_path, {2: NAN})
    assert text.startswith('iteration 2: loss_fit is nan; ')
    assert text.endswith('no step was made; nan_batch.pt cannot be written: the disk is full')


def test_the_largest_parameter():
    model = toy()
    with torch.no_grad():
        model.line.weight[0, 1] = -7.0
    assert largest(model) == ('line.weight', 7.0)
    with torch.no_grad():
        model.other[0] = torch.nan
    name, size = largest(model)
    assert name == 'other'
    assert math.isnan(size)


def test_tensors_that_are_not_finite():
    checkpoint = dict(
        state_dict=dict(a=torch.ones(3), half=torch.full((9,), 6e4, dtype=torch.float16)),
        optimizer=dict(state={0: dict(step=torch.tensor(3), avg=torch.full((2, 2), 3e38))}, param_groups=[]),
        small=[torch.tensor([448.0]).to(torch.float8_e4m3fn), torch.tensor([], dtype=torch.float32)],
        other=(
            torch.tensor([1j]),
            torch.sparse_coo_tensor([[0]], [1.0], (4,), check_invariants=True),
            torch.empty(2, device='meta'),
        ),
        iter=3,
    )
    tensors = tensors_in(checkpoint)
    assert {'state_dict.a', 'optimizer.state.0.avg', 'small.1', 'other.2'} < tensors.keys()
    assert non_finite(tensors) is None, 'sums that overflow are no fault'
    assert non_finite({}) is None
    faults = {
        'state_dict.half': torch.tensor([1.0, -math.inf, math.inf], dtype=torch.float16),
        'optimizer.state.0.avg': torch.tensor([math.nan]),
        'small.0': torch.tensor([math.nan]).to(torch.float8_e4m3fn),
        'other.0': torch.tensor([complex(0, math.inf)]),
        'other.1': torch.sparse_coo_tensor([[0]], [math.nan], (4,)),
        'state_dict.a': torch.tensor([0.0, math.inf], dtype=torch.float64),
        'bf16': torch.tensor([math.inf], dtype=torch.bfloat16),
    }
    for name, tensor in faults.items():
        assert non_finite({**tensors, name: tensor}) == name
    assert non_finite({**tensors, **faults}) == 'state_dict.a', 'the first one'


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('shapes')
    shapes.write(folder, train=3, val=1)
    return folder


def recipe(task: str, root: Path) -> tuple[Config, Callable, Callable]:
    """A config and the functions that build its model and its data set."""
    name = {'detection': 'mask_rcnn_swin_nano', 'segmentation': 'upernet_swin_nano'}[task]
    config = configs.load_config(str(ROOT / 'configs' / 'demo' / f'{name}.py'))
    if task == 'detection':
        coco.point_at(config, root / 'coco')
        coco.name_classes(config)
        config.train_dataloader.dataset.pipeline[2].scale = (96, 96)
        return config, mmdet.registry.MODELS.build, mmdet.registry.DATASETS.build
    config.train_dataloader.dataset.data_root = str(root / 'ade')
    config.train_dataloader.dataset.metainfo = dict(classes=('background', 'a', 'b', 'c', 'd', 'e'))
    config.model.decode_head.num_classes = config.model.auxiliary_head.num_classes = 6
    return config, mmseg.registry.MODELS.build, mmseg.registry.DATASETS.build


@pytest.mark.parametrize('task', ['detection', 'segmentation', 'polygons'])
def test_the_batches_of_both_hosts_are_repeated(tmp_path: Path, root: Path, task: str):
    config, build_model, build_dataset = recipe('detection' if task == 'polygons' else task, root)
    if task == 'polygons':
        config.train_dataloader.dataset.pipeline[1].poly2mask = False
    dataset = build_dataset(config.train_dataloader.dataset)
    batch = pseudo_collate([dataset[0], dataset[1]])
    model, states = build_model(config.model).train(), nan_batch.run_state.random_states()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    expected = {name: float(value) for name, value in nan_batch.loss_values(losses).items()}
    nan_batch.write(tmp_path / 'nan_batch.pt', model, batch, states, None, {})
    repeated = nan_batch.reproduce(tmp_path / 'nan_batch.pt', build_model(config.model))
    total = repeated.losses.pop('loss')
    assert repeated.losses == expected
    assert total == pytest.approx(sum(expected.values()))
    assert repeated.gradient_norm > 0
    files = nan_batch.image_files(batch)
    assert len(files) == 2
    assert all(Path(name).is_file() for name in files)


def test_what_a_batch_may_hold(tmp_path: Path):
    nothing = dict(name='x', count=np.int64(3), flag=None, pair=(1, 2.0), array=np.arange(4, dtype=np.uint8))
    batch = dict(inputs=[torch.ones(2)], data_samples=[BaseDataElement(metainfo=nothing, y=torch.ones(1))])
    torch.save(nan_batch.batch_to_plain(batch), tmp_path / 'batch.pt')
    back = nan_batch.plain_to_batch(torch.load(tmp_path / 'batch.pt', weights_only=True))
    sample = back['data_samples'][0]
    assert sample.pair == (1, 2.0)
    assert sample.array.dtype == np.uint8
    assert sample.count == 3
    with pytest.raises(ValueError, match='Popen is no part of a batch'):
        nan_batch.plain_to_batch({nan_batch.KIND: 'Popen', 'args': 'true'})


@pytest.mark.parametrize('content', [b'', b'garbage', None])
def test_a_file_that_cannot_be_repeated(tmp_path: Path, content: bytes | None):
    path = tmp_path / 'nan_batch.pt'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r'nan_batch\.pt cannot be repeated'):
        nan_batch.reproduce(path, toy())


@pytest.mark.slow
@pytest.mark.parametrize(('fault', 'steps'), [(NAN, 1), (GRADIENT, 1), (DETACHED, 2)])
def test_two_processes_stop_together(tmp_path: Path, fault: int, steps: int):
    """The second process alone has the fault; both name it and end."""
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
    command = [*launch, '-m', 'tests.engine.finite_ranks', str(tmp_path), str(fault), str(steps)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    texts = [(tmp_path / f'{rank}.txt').read_text() for rank in range(2)]
    assert texts[0] == texts[1]
    assert texts[0].startswith(f'iteration {3 - steps}: {REASONS[fault].partition(" (")[0]}')
    assert ('images/5.jpg, images/7.jpg; ' if steps == 1 else 'images/1.jpg, images/3.jpg; ') in texts[0]
    everywhere = fault == GRADIENT  # it is the same in both, once it has been averaged
    assert (tmp_path / 'nan_batch_rank1.pt').is_file()
    assert (tmp_path / 'nan_batch_rank0.pt').is_file() == everywhere
