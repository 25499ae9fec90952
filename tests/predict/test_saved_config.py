"""The config in a checkpoint is data: read, or refused, and never run (row 4 of the fault matrix)."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from swin_dense import trust
from swin_dense.errors import UnsafeFileError, UserError
from tests.predict.conftest import CONFIGS, ROOT, TASKS, Made, config_of, text_of

RECIPES = ('cascade_mask_rcnn_swin_b.py', 'upernet_swinv2_b.py')


@pytest.mark.parametrize('path', RECIPES)
def test_what_mmengine_writes_is_read_as_mmengine_reads_it(path: str):
    config = Config.fromfile(ROOT / 'configs' / path)
    assert trust.parse(text_of(config), 'checkpoint x.pth') == config.to_dict()


def test_formatted_text_too(made: Made):
    config = config_of('segmentation', made.data)
    assert trust.parse(config.pretty_text, 'checkpoint x.pth') == config.to_dict()


def test_every_literal():
    text = "a = dict(b=[1, -2.5, None], c=(True,), d={'x.y': 'z', 3: inf})\ne = -inf"
    assert trust.parse(text, 'checkpoint x.pth', 'meta.cfg') == {
        'a': {'b': [1, -2.5, None], 'c': (True,), 'd': {'x.y': 'z', 3: float('inf')}},
        'e': float('-inf'),
    }


CODE = {
    'call': 'a = print(1)',
    'call of an attribute': 'a = [].append(1)',
    'import': 'import os',
    'import inside': "a = __import__('os').system('touch TRACE')",
    'statement': "open('TRACE', 'w').close()",
    'comprehension': 'a = [x for x in (1,)]',
    'lambda': 'a = lambda: 1',
    'format string': "a = f'{1}'",
    'operator': 'a = 2 ** 99999999',
    'subscript': 'a = (1, 2)[0]',
    'a name': 'a = os',
    'positional': 'a = dict([])',
    'star': 'a = dict(**{})',
    'star in a dict': 'a = {**{}}',
    'star in a list': 'a = [*()]',
    'a list as a key': 'a = {(1,): 2}',
    'attribute': 'a.b = 1',
    'two targets': 'a = b = 1',
    'loop': 'while True: pass',
    'annotation': 'a: int = 1',
    'walrus': 'a = (b := 1)',
    'bytes': "a = b'x'",
    'minus a string': "a = -'x'",
    'other function': "a = list(x='y')",
}


@pytest.mark.parametrize('name', CODE)
def test_code_is_refused(name: str):
    with pytest.raises(
        UnsafeFileError, match=r'checkpoint x\.pth is refused: line \d+ of its meta\.cfg holds'
    ):
        trust.parse(f'fine = 1\n{CODE[name]}', 'checkpoint x.pth', 'meta.cfg')


@pytest.mark.parametrize(
    'text', ['a = (', 'a = 1\x00', 'a = ' + '[' * 5000 + ']' * 5000, 'a = 1' + '0' * 5000]
)
def test_no_config_at_all(text: str):
    with pytest.raises(UserError, match=r'meta\.cfg.* cannot be read as a config') as caught:
        trust.parse(text, 'checkpoint x.pth', 'meta.cfg')
    assert caught.value.status == 2


def changed(made: Made, task: str, path: Path, change: Callable[[dict], None]) -> Path:
    """A copy of a checkpoint with its content changed."""
    content = torch.load(made.checkpoints[task], weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def with_config(made: Made, task: str, path: Path, change: Callable[[Config], None]) -> Path:
    config = config_of(task, made.data)
    change(config)
    return changed(made, task, path, lambda content: content['meta'].update(cfg=text_of(config)))


def in_nms(config: Config, trace: Path) -> None:
    """Where mmcv evaluates a string."""
    config.model.test_cfg.rpn.nms.type = f"__import__('os').system('touch {trace}')"


TYPES: dict[str, Callable[[Config, Path], None]] = {
    'backbone': lambda c, t: c.model.backbone.update(type='subprocess.Popen', args=['touch', str(t)]),
    'inside a host': lambda c, t: c.model.neck.update(type='mmdet.subprocess.Popen', args=['touch', str(t)]),
    'pipeline': lambda c, t: c.test_dataloader.dataset.pipeline.insert(
        0, dict(type='subprocess.check_call', popenargs=['touch', str(t)])
    ),
    'nms': in_nms,
    'evaluating': lambda c, t: c.model.update(
        x=dict(type='CameraMotionCompensation', warp_mode=f"open('{t}', 'w')")
    ),
    'scope': lambda c, t: c.model.neck.update(_scope_='subprocess', type='Popen'),
    'model': lambda c, t: c.update(model=dict(type='os.system', command=f'touch {t}')),
    'other host': lambda c, t: c.model.neck.update(type='mmseg.Popen'),
    'no name': lambda c, t: c.model.neck.update(type=5),
}


@pytest.mark.parametrize('name', TYPES)
def test_unregistered_types_are_not_built(
    name: str, made: Made, tmp_path: Path, tool: Callable, monkeypatch: pytest.MonkeyPatch
):
    trace = tmp_path / 'trace'
    path = with_config(made, 'detection', tmp_path / 'x.pth', lambda config: TYPES[name](config, trace))
    started = []
    monkeypatch.setattr(subprocess, 'Popen', lambda *arguments, **named: started.append(arguments))
    line = tool('predict', path, made.data / 'coco', '--out', tmp_path / 'out').error(status=3)
    assert f'checkpoint {path} is refused: ' in line
    assert not trace.exists()
    assert not started


def test_the_evaluated_nms_would_run(made: Made, tmp_path: Path):
    """Or the test above shows nothing."""
    from mmcv.ops import batched_nms

    trace, config = tmp_path / 'trace', config_of('detection', made.data)
    in_nms(config, trace)
    boxes, scores = torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1)
    with pytest.raises(TypeError):
        batched_nms(boxes, scores, torch.zeros(1), dict(config.model.test_cfg.rpn.nms))
    assert trace.exists()


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('place', ['meta.cfg', 'runtime_info.cfg'])
def test_a_payload_in_a_config(place: str, task: str, made: Made, tmp_path: Path, tool: Callable):
    trace = tmp_path / 'trace'
    payload = f'import os\nos.system("touch {trace}")'

    def hide(content: dict) -> None:
        if place == 'meta.cfg':
            content['meta']['cfg'] = payload
        else:
            content['message_hub'] = dict(runtime_info=dict(cfg=payload), resumed_keys=dict(cfg=True))
            del content['meta']['cfg']

    path = changed(made, task, tmp_path / 'x.pth', hide)
    ended = tool('predict', path, made.images(task)[0], '--out', tmp_path / 'out')
    if place == 'meta.cfg':
        assert "holds 'import os': code, not data" in ended.error(status=3)
    else:  # mmengine would take this one; nobody here reads it
        assert 'holds no config' in ended.error()
    assert not trace.exists()


def test_nothing_is_fetched(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights that a config names are those of before the training."""
    from swin_dense.predict import Predictor

    def name_weights(config: Config) -> None:
        config.model.backbone.init_cfg = dict(type='swin_dense.Pretrained', checkpoint='http://0.0.0.0/a.pth')
        config.model.pretrained = 'http://0.0.0.0/b.pth'

    path = with_config(made, 'segmentation', tmp_path / 'x.pth', name_weights)
    monkeypatch.setattr('torch.hub.download_url_to_file', lambda *arguments, **named: pytest.fail('fetched'))
    assert Predictor(path, device='cpu').classes[0] == 'background'


@pytest.mark.parametrize('task', TASKS)
def test_other_texts_are_no_config(task: str, made: Made, tmp_path: Path, tool: Callable):
    for text in ('', 'model = 5', "default_scope = 'mmdet'", "default_scope = 'x'\nmodel = dict()"):
        path = changed(made, task, tmp_path / 'x.pth', lambda content, t=text: content['meta'].update(cfg=t))
        line = tool('predict', path, CONFIGS[task].parent, '--out', tmp_path / 'out').error()
        assert line
