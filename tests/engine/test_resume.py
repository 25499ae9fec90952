"""Which checkpoint a run goes on from, and that it goes on as if it had not been interrupted."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from swin_dense.engine import resume, run_state, start
from swin_dense.engine.loops import EpochLoop, IterLoop
from swin_dense.engine.runner import Runner
from swin_dense.engine.signals import StopRequest
from swin_dense.errors import StoppedError, UnsafeFileError, UserError
from tests.checkpoints.test_untrusted import hostile
from tests.engine.test_runner import message, runner

ITERATIONS = 12
EMA = dict(type='EMAHook')
STEPS = dict(type='SGD', lr=0.05, momentum=0.9)


class Stop(StopRequest):
    """A stop after a number of iterations."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def agreed(self) -> int | None:
        self.left -= 1
        return 15 if self.left <= 0 else None


def built(work_dir: Path, by_epoch: bool, **changes: object) -> Runner:
    loop = dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=ITERATIONS)
    changes.setdefault('train_cfg', loop)
    return runner(work_dir, custom_hooks=[EMA], **changes)


def flat(node: object, name: str = '') -> dict[str, object]:
    """All tensors and plain values in a checkpoint's part, by their path."""
    if isinstance(node, (dict, list, tuple)):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        return {path: value for key, inner in items for path, value in flat(inner, f'{name}.{key}').items()}
    return {name: node}


def assert_same(one: Path, other: Path) -> None:
    first, second = (torch.load(path, weights_only=False) for path in (one, other))
    for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        a, b = flat(first[part]), flat(second[part])
        assert a.keys() == b.keys()
        for name, value in a.items():
            same = torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name]
            assert same, f'{part}{name}'


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('steps', [1, 5])
def test_a_run_stopped_anywhere_ends_as_if_it_had_not_been(tmp_path: Path, by_epoch: bool, steps: int):
    wrapper = dict(optimizer=STEPS, accumulative_counts=steps)
    last = 'epoch_3.pth' if by_epoch else f'iter_{ITERATIONS}.pth'
    hooks = dict(
        checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=3 if by_epoch else ITERATIONS)
    )
    changes = dict(optim_wrapper=wrapper, default_hooks=hooks)
    built(tmp_path / 'whole', by_epoch, **changes).train()
    for after in range(1, ITERATIONS):
        folder = tmp_path / f'{after}'
        first = built(folder, by_epoch, **changes)
        first.stop = Stop(after)
        with pytest.raises(StoppedError) as ended:
            first.train()
        assert ended.value.status == 143
        chosen = resume.newest(folder)
        assert (chosen.saved.path.name, chosen.notes) == (f'stopped_iter_{after}.pth', [])
        torch.manual_seed(99)
        second = built(folder, by_epoch, resume=True, load_from=str(chosen.saved.path), **changes)
        second.train()
        assert len(second.model.seen) == ITERATIONS - after, 'nothing is trained twice'
        assert_same(tmp_path / 'whole' / last, folder / last)
        assert not chosen.saved.path.exists(), 'the checkpoint of the stop goes when there is a regular one'


def test_the_loops_are_ours(tmp_path: Path):
    assert type(built(tmp_path / 'a', True).build_train_loop(dict(by_epoch=True, max_epochs=1))) is EpochLoop
    assert type(built(tmp_path / 'b', False).build_train_loop(dict(by_epoch=False, max_iters=1))) is IterLoop
    named = dict(type='IterBasedTrainLoop', max_iters=1)
    assert type(built(tmp_path / 'c', False).build_train_loop(named)) is IterLoop


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs, all of whose checkpoints are kept."""
    folder = tmp_path_factory.mktemp('run') / 'work'
    built(folder, True).train()
    return folder


@pytest.fixture
def work_dir(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / 'copy'))


POINTERS = {
    'missing': None,
    'empty': b'',
    'dangling': b'/somewhere/epoch_7.pth',
    'garbage': b'\xff\xfe\x00',
    'elsewhere': b'../../other/epoch_9.pth',
    'an older one': b'epoch_1.pth',
}


@pytest.mark.parametrize('pointer', POINTERS)
def test_a_pointer_that_is_wrong(work_dir: Path, pointer: str):
    file = work_dir / 'last_checkpoint'
    file.unlink() if POINTERS[pointer] is None else file.write_bytes(POINTERS[pointer])
    chosen = resume.newest(work_dir)
    assert chosen.saved.path == work_dir / 'epoch_3.pth'
    assert len(chosen.notes) == 1
    assert str(file) in chosen.notes[0]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = bytes(byte ^ 255 for byte in content[middle : middle + 2])
    path.write_bytes(
        {
            'empty': b'',
            'one byte': content[:1],
            'half': content[:middle],
            'no end': content[: len(content) * 99 // 100],
            'two bytes': content[:middle] + flipped + content[middle + 2 :],
        }[how]
    )


@pytest.mark.parametrize('how', ['empty', 'one byte', 'half', 'no end', 'two bytes'])
def test_a_damaged_checkpoint_is_passed_over(work_dir: Path, how: str):
    damage(work_dir / 'epoch_3.pth', how)
    chosen = resume.newest(work_dir)
    assert chosen.saved.path == work_dir / 'epoch_2.pth'
    assert any('epoch_3.pth' in note for note in chosen.notes)
    text = message(resume.of_file, str(work_dir / 'epoch_3.pth'))
    assert 'epoch_3.pth' in text


def test_no_checkpoint_is_whole(work_dir: Path):
    for path in work_dir.glob('*.pth'):
        damage(path, 'half')
    assert message(resume.newest, work_dir).startswith(f'--resume: no run to continue in {work_dir}: ')


def test_an_unsafe_checkpoint_is_named(work_dir: Path):
    """Passed over with a line, and the reason where there is nothing else."""
    whole = resume.newest(work_dir).saved.path
    evil, trace = hostile(work_dir)
    chosen = resume.newest(work_dir)
    assert chosen.saved.path == whole
    assert f'passed over: checkpoint {evil} is refused' in chosen.notes[0]
    for path in work_dir.glob('epoch_*.pth'):
        path.unlink()
    with pytest.raises(UnsafeFileError, match='is refused: it holds'):
        resume.newest(work_dir)
    assert not trace.exists()


def test_the_run_that_was_started_last_counts(work_dir: Path, tmp_path: Path):
    """A new run in the folder of an old one, that has not got as far yet."""
    path = work_dir / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    content[run_state.KEY]['started'] += 1000
    torch.save(content, path)
    assert resume.newest(work_dir).saved.path == path


@pytest.mark.parametrize(
    'value', [pytest.param(10**400, id='400 digits'), float('nan'), float('inf'), 'now', None]
)
def test_a_start_that_is_no_time_counts_as_none(work_dir: Path, value: object):
    path = work_dir / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    content[run_state.KEY]['started'] = value
    torch.save(content, path)
    assert resume.look(path).started == 0.0
    assert resume.newest(work_dir).saved.path == work_dir / 'epoch_3.pth'


@pytest.mark.parametrize('key', ['iter', 'epoch', 'seed'])
def test_numbers_of_hundreds_of_digits(work_dir: Path, key: str):
    path = work_dir / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    content['meta'][key] = 10**400
    torch.save(content, path)
    saved = resume.look(path)
    assert saved.seed is None
    assert (saved.problem is None) == (key == 'seed')


def config(work_dir: Path) -> Config:
    backbone = dict(init_cfg=dict(checkpoint='https://example.com/swin.pth'))
    return Config(dict(work_dir=str(work_dir), resume=False, load_from=None, model=dict(backbone=backbone)))


def begin_with(config: Config, wanted: start.Start) -> None:
    start.apply(config, start.choose(Path(config.work_dir), wanted))


def test_start(work_dir: Path, tmp_path: Path):
    fresh = config(tmp_path / 'new')
    for begin in (start.Start(), start.Start(resume=start.AUTO)):
        begin_with(fresh, begin)
        assert (fresh.resume, fresh.load_from) == (False, None)
        assert fresh.model.backbone.init_cfg is not None
    text = message(begin_with, fresh, start.Start(resume=start.NEWEST))
    assert text.startswith(f'--resume: no run to continue in {tmp_path / "new"}')
    for wanted in (start.NEWEST, start.AUTO, str(work_dir), str(work_dir / 'epoch_3.pth')):
        begun = config(work_dir)
        begin_with(begun, start.Start(resume=wanted))
        assert (begun.resume, begun.load_from) == (True, str(work_dir / 'epoch_3.pth'))
        assert begun.model.backbone.init_cfg is None, 'the run has its weights'
        assert begun.randomness.seed == 3, 'the run has its seed'
    with pytest.raises(UserError, match='give one of them'):
        begin_with(config(work_dir), start.Start('mine.pth', start.NEWEST))


@pytest.mark.parametrize('wanted', [start.NEWEST, start.AUTO])
def test_a_checkpoint_that_comes_meanwhile(work_dir: Path, wanted: str):
    """Another trainer of the same folder may end after this one has chosen, and before it has the lock."""
    beginning = start.choose(work_dir, start.Start(resume=wanted))
    beginning.confirm()
    shutil.copyfile(work_dir / 'epoch_3.pth', work_dir / 'epoch_4.pth')
    assert 'another run has changed the checkpoints' in message(beginning.confirm)
    start.choose(work_dir, start.Start(resume=wanted)).confirm()


def test_a_checkpoint_that_the_user_names_stays_chosen(work_dir: Path):
    beginning = start.choose(work_dir, start.Start(resume=str(work_dir / 'epoch_3.pth')))
    shutil.copyfile(work_dir / 'epoch_3.pth', work_dir / 'epoch_4.pth')
    beginning.confirm()


CHANGES = {
    'seed': dict(randomness=dict(seed=4)),
    'schedule': dict(train_cfg=dict(by_epoch=True, max_epochs=4)),
}


@pytest.mark.parametrize('field', CHANGES)
def test_other_settings_are_refused(work_dir: Path, field: str, monkeypatch: pytest.MonkeyPatch):
    arguments = dict(resume=True, load_from=str(work_dir / 'epoch_2.pth'), **CHANGES[field])
    text = message(built(work_dir, True, **arguments).train)
    assert f'epoch_2.pth: {field} was ' in text
    assert '--resume-anyway' in text
    going_on = built(work_dir, True, **arguments)
    going_on.resume_anyway = True
    said: list[str] = []
    monkeypatch.setattr('swin_dense.engine.runner.say', said.append)
    going_on.train()
    assert any(line.startswith(f'not exact any longer: {field} was ') for line in said)


def test_a_checkpoint_never_leads_out_of_the_folder(work_dir: Path, tmp_path: Path):
    """``best_ckpt`` of a copied run names the original's file; another's names a folder."""
    for victim in (tmp_path / 'best.pth', tmp_path / 'folder'):
        victim.mkdir() if victim.name == 'folder' else victim.write_text('mine')
        content = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
        content['message_hub']['runtime_info'].update(
            best_ckpt=str(victim), best_score=0.0, keep_ckpt_ids=['../../best', 1, 2]
        )
        content['message_hub']['resumed_keys'].update(best_ckpt=True, best_score=True, keep_ckpt_ids=True)
        torch.save(content, work_dir / 'epoch_2.pth')
        hook = dict(type='CheckpointHook', max_keep_ckpts=1, save_best='loss', rule='greater')
        going_on = built(
            work_dir,
            True,
            resume=True,
            load_from=str(work_dir / 'epoch_2.pth'),
            default_hooks=dict(checkpoint=hook),
        )
        going_on.train()
        ours = next(hook for hook in going_on.hooks if type(hook).__name__ == 'CheckpointHook')
        ours.after_val_epoch(going_on, dict(loss=1.0))
        assert Path(ours.best_ckpt_path).parent == work_dir
        assert victim.exists()
        for path in work_dir.glob('best_*'):
            path.unlink()
        shutil.copy(work_dir / 'epoch_3.pth', work_dir / 'epoch_2.pth')
