"""The runner: batch rule, checks of the model, checkpoints that are safe, runs that continue."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import Dataset

from swin_dense.engine import config as configs
from swin_dense.engine.runner import Runner
from swin_dense.errors import UnsafeFileError, UserError

DEMO = Path(__file__).parents[2] / 'configs' / 'demo'
IMAGES = 8
NUMBER = itertools.count()


class Numbers(Dataset):
    """Eight points of a line, each with its number."""

    metainfo = {'classes': ('one',)}

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        x = torch.tensor([float(index), 1.0])
        return {'inputs': x, 'data_samples': 2 * x[:1] + 1}


class Toy(BaseModel):
    """A line; ``seen`` lists the points of each batch."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.line = nn.Linear(features, 1)
        self.seen: list[list[int]] = []

    def forward(self, inputs: Tensor, data_samples: Tensor, mode: str = 'loss') -> dict[str, Tensor]:
        self.seen.append(inputs[:, 0].int().tolist())
        return {'loss': (self.line(inputs) - data_samples).square().mean()}


def runner(work_dir: Path, model: nn.Module | None = None, **changes: object) -> Runner:
    torch.manual_seed(1)
    init_default_scope('mmdet')
    cfg = dict(
        model=model or Toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Numbers(),
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6),
        randomness=dict(seed=3),
        default_scope='mmdet',
    )
    cfg.update(changes)
    return Runner(**cfg, cfg=Config(dict(work_dir=str(work_dir))), experiment_name=f'run {next(NUMBER)}')


def message(call: Callable, *args: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    return ' '.join(str(caught.value).split())


def learning_rate(work_dir: Path, **changes: object) -> float:
    changes.setdefault('optim_wrapper', dict(optimizer=dict(type='SGD', lr=0.1)))
    built = runner(work_dir, param_scheduler=None, **changes)
    built.train()
    return built.optim_wrapper.get_lr()['lr'][0]


@pytest.mark.parametrize('steps', [1, 2, 4])
@pytest.mark.parametrize('recipe', [2, 16])
def test_the_rate_follows_the_effective_batch(tmp_path: Path, steps: int, recipe: int):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=steps)
    rule = dict(enable=True, base_batch_size=recipe)
    rate = learning_rate(tmp_path, optim_wrapper=wrapper, auto_scale_lr=rule)
    assert rate == pytest.approx(0.1 * 2 * steps / recipe)
    assert rule == dict(enable=True, base_batch_size=recipe), 'the rule itself stays'


@pytest.mark.parametrize('rule', [None, dict(enable=False, base_batch_size=16), dict(enable=False)])
@pytest.mark.parametrize('steps', [1, 4])
def test_the_rate_stays_where_the_rule_is_off(tmp_path: Path, rule: dict | None, steps: int):
    wrapper = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=steps)
    assert learning_rate(tmp_path, optim_wrapper=wrapper, auto_scale_lr=rule) == pytest.approx(0.1)


def built(name: str, *options: str) -> Runner:
    config = configs.load_config(str(DEMO / f'{name}.py'), options)
    config.work_dir = 'work_dirs/never_made'
    return Runner.build_model(_Unbuilt(config), config.model)


class _Unbuilt(Runner):
    """What building a model needs of a runner, with no folder and no log."""

    def __init__(self, config: Config) -> None:
        self.cfg = config


MISFITS = {
    ('mask_rcnn_swin_nano', 'model.neck.in_channels=[8,16,32,64]'): (
        'model.neck.in_channels=[8, 16, 32, 64], but model.backbone (SwinTransformer) gives '
        '[32, 64, 128, 256] channels'
    ),
    ('mask_rcnn_swin_nano', 'model.backbone.embed_dims=16'): (
        'model.neck.in_channels=[32, 64, 128, 256], but model.backbone (SwinTransformer) gives '
        '[16, 32, 64, 128] channels'
    ),
    ('upernet_swin_nano', 'model.backbone.embed_dims=16'): 'model.decode_head.in_channels=[32, 64, 128, 256]',
    ('upernet_swin_nano', 'model.auxiliary_head.in_channels=32'): 'model.auxiliary_head.in_channels=[32]',
    ('mask_rcnn_swin_nano', 'model.neck.type=NoSuchNeck'): 'NoSuchNeck',
    ('mask_rcnn_swin_nano', 'model.backbone.num_heads=(2,4)'): 'model: ',
}


@pytest.mark.parametrize(('name', 'option'), MISFITS)
def test_parts_that_do_not_fit(name: str, option: str):
    text = message(built, name, option)
    assert MISFITS[name, option] in text


def test_parts_that_fit():
    model = built(
        'upernet_swin_nano',
        'model.backbone.embed_dims=16',
        'model.decode_head.in_channels=[16,32,64,128]',
        'model.auxiliary_head.in_channels=64',
    )
    assert model.backbone.out_channels == [16, 32, 64, 128]


def weights() -> dict[str, Tensor]:
    return {'line.weight': torch.tensor([[3.0, 4.0]]), 'line.bias': torch.tensor([5.0])}


WRAPPED: dict[str, Callable] = {
    'bare': lambda found: found,
    'state_dict': lambda found: dict(state_dict=found, meta={}),
    'model': lambda found: dict(model=found, epoch=3),
    'module.': lambda found: {f'module.{name}': value for name, value in found.items()},
    'model, module.': lambda found: dict(model={f'module.{name}': value for name, value in found.items()}),
    'meta None': lambda found: dict(state_dict=found, meta=None),
}


@pytest.mark.parametrize('wrapped', [*WRAPPED, 'safetensors'])
def test_weights_are_loaded_however_they_are_wrapped(tmp_path: Path, wrapped: str):
    path = tmp_path / ('w.safetensors' if wrapped == 'safetensors' else 'w.pth')
    if wrapped == 'safetensors':
        save_file(weights(), path)
    else:
        torch.save(WRAPPED[wrapped](weights()), path)
    loaded = runner(tmp_path / 'run')
    loaded.load_checkpoint(str(path))
    for name, value in weights().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def misfits(tmp_path: Path) -> dict[str, tuple[object, str]]:
    return {
        'none': ({'conv.weight': torch.zeros(3)}, 'none of its 1 tensors belongs to the model, which has 2'),
        'empty': ({}, 'none of its 0 tensors belongs to the model'),
        'shape': (
            {'line.weight': torch.zeros(1, 3), 'line.bias': torch.zeros(1)},
            'line.weight is (1, 3), but the model needs (1, 2)',
        ),
        'list': ([torch.zeros(3)], 'not a dict of tensors'),
    }


@pytest.mark.parametrize('what', ['none', 'empty', 'shape', 'list'])
def test_weights_that_do_not_fit(tmp_path: Path, what: str):
    content, expected = misfits(tmp_path)[what]
    path = tmp_path / 'w.pth'
    torch.save(content, path)
    loaded = runner(tmp_path / 'run')
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    text = message(loaded.load_checkpoint, str(path))
    assert text.startswith(f'checkpoint {path}')
    assert expected in text
    assert all(torch.equal(loaded.model.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize('share', [0, 0.3, 0.95])
def test_a_truncated_file(tmp_path: Path, share: float):
    path = tmp_path / 'w.pth'
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert 'cannot be read safely' in message(runner(tmp_path / 'run').load_checkpoint, str(path))


def test_a_file_that_is_absent(tmp_path: Path):
    text = message(runner(tmp_path / 'run').load_checkpoint, str(tmp_path / 'w.pth'))
    assert text.startswith(f'checkpoint {tmp_path / "w.pth"} does not exist')


def trained(work_dir: Path, epochs: int, resume: Path | None = None) -> Runner:
    run = runner(
        work_dir,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        resume=resume is not None,
        load_from=None if resume is None else str(resume),
    )
    run.resume_anyway = True  # the schedules differ
    run.train()
    return run


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path):
    whole = trained(tmp_path / 'whole', 3)
    first = trained(tmp_path / 'half', 1)
    second = trained(tmp_path / 'half', 3, tmp_path / 'half' / 'epoch_1.pth')
    assert first.iter == IMAGES // 2
    assert (second.epoch, second.iter) == (3, 3 * IMAGES // 2)
    assert first.model.seen + second.model.seen == whole.model.seen
    assert first.model.seen != sorted(first.model.seen), 'the order is shuffled'
    assert second.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    for name, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], value), name


def test_the_config_inside_a_checkpoint_is_not_run(tmp_path: Path):
    """mmengine's resume runs ``meta['config']`` as Python."""
    trained(tmp_path / 'run', 1)
    path, canary = tmp_path / 'run' / 'epoch_1.pth', tmp_path / 'canary'
    text = f'open({str(canary)!r}, "w").close()'
    Config.fromstring(text, '.py')
    assert canary.exists(), 'the text would do its work'
    canary.unlink()
    content = torch.load(path, weights_only=False)
    content['meta'].update(config=text, cfg=text)
    torch.save(content, path)
    with pytest.raises(UnsafeFileError, match=r'its meta.config is Python text'):
        trained(tmp_path / 'run', 2, path)
    assert not canary.exists()
    runner(tmp_path / 'test').load_checkpoint(str(path))  # its weights are as good as any
    assert not canary.exists()


@pytest.mark.parametrize(
    'content', [dict(state_dict=weights()), weights(), dict(state_dict=weights(), meta={})]
)
def test_weights_alone_are_no_run_to_resume(tmp_path: Path, content: dict):
    path = tmp_path / 'w.pth'
    torch.save(content, path)
    text = message(trained, tmp_path / 'run', 2, path)
    assert text.startswith(f'checkpoint {path} holds no run that this config can resume: KeyError')


def test_the_log_goes_to_the_file_alone(tmp_path: Path, capfd: pytest.CaptureFixture):
    run = trained(tmp_path / 'run', 1)
    run.logger.info('a line for the log')
    assert 'a line for the log' in Path(run.logger.log_file).read_text()
    out, err = capfd.readouterr()
    assert 'a line for the log' not in out + err
