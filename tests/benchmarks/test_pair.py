"""The models of a pair have the same weights, and their process says what it measured."""

import json
import sys

import pytest
import torch
from torch import nn

from benchmarks import pair
from benchmarks.settings import PEERS, Job, Setting
from swin_dense.report import model_info

# sizes at which a library means the same as ours: timm where windows fit, torchvision and Hugging Face's v2
# where maps are larger than them
SAME = {
    ('mmdet', 1): (70, 90),
    ('mmseg', 1): (70, 90),
    ('transformers', 1): (70, 90),
    ('timm', 1): (224, 224),
    ('torchvision', 1): (232, 256),
    ('timm', 2): (256, 256),
    ('torchvision', 2): (260, 288),
    ('transformers', 2): (320, 320),
    ('mmpretrain', 2): (70, 90),
}


def job(who: str, size: tuple[int, int] = (64, 64), **changes: object) -> Job:
    setting = dict(model='backbone', phase='inference', height=size[0], width=size[1], variant='nano')
    kind = changes.pop('kind', 'time')
    return Job(kind, Setting(**{**setting, **changes}), who, rounds=2)


def test_every_peer_is_compared():
    assert set(SAME) == {
        (peer, version) for (model, version), peers in PEERS.items() if model == 'backbone' for peer in peers
    }


@pytest.mark.parametrize(('who', 'version'), SAME)
def test_peers_compute_what_ours_computes(who: str, version: int):
    pytest.importorskip(who)
    case = job(who, SAME[who, version], version=version, batch=2)
    models = pair.models_of(case.setting, who, 'cpu')
    assert pair.disagreement(models, case, pair.inputs_of(case.setting, 'cpu')) <= 1e-5


@pytest.mark.parametrize(('who', 'version'), SAME)
def test_peers_take_odd_sizes_and_train(who: str, version: int):
    pytest.importorskip(who)
    case = job(who, (75, 133), version=version, phase='training')
    models = pair.models_of(case.setting, who, 'cpu')
    for call in pair.candidates(case, models, pair.inputs_of(case.setting, 'cpu')).values():
        call()
    for model in models.values():
        assert model.training
        unused = [name for name, p in model.named_parameters() if p.grad is None]
        # the end of a classifier
        assert all('layernorm.' in name for name in unused), unused


@pytest.mark.parametrize('phase', ['inference', 'training'])
def test_times_of_a_pair(phase: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    case = job('mmdet', phase=phase)
    monkeypatch.setattr(pair.measure, 'PRODUCTS', {'cpu': 64})
    monkeypatch.setattr(sys, 'argv', ['pair', json.dumps(case.as_dict())])
    pair.main()
    result = json.loads(capsys.readouterr().out)
    assert set(result['times']) == {'ours eager', 'mmdet eager'}
    for name, times in result['times'].items():
        assert 0 < times['low'] <= times['median'] <= times['high']
        assert len(result['samples'][name]) == case.rounds
    assert result['difference'] <= 1e-5
    assert result['left_out'] == {}
    assert all(rate > 0 for rate in result['product_rates'])
    assert 0 <= result['others'] <= 1


def test_memory_of_training():
    mine, theirs = (
        pair.measure_memory(job(who, (96, 96), kind='memory', phase='training')) for who in ('ours', 'mmdet')
    )
    assert mine['saved'] > 0
    assert theirs['saved'] > 0
    # at least the input of every linear layer of the first stage
    assert theirs['saved'] > 2 * 4 * (96 // 4) ** 2 * 32 * 4
    assert mine['peak'] is None or mine['peak'] >= 0


def test_memory_of_inference_saves_nothing():
    assert pair.measure_memory(job('ours', kind='memory'))['saved'] is None


def test_what_cannot_be_compiled_is_left_out():
    def fails() -> None:
        raise RuntimeError('no kernel\nand a long story')

    calls = {'ours eager': lambda: None, 'mmdet compiled': fails}
    assert pair.warm_up(calls, 'cpu') == {'mmdet compiled': 'RuntimeError: no kernel'}
    assert list(calls) == ['ours eager']
    with pytest.raises(RuntimeError, match='no kernel'):
        pair.warm_up({'mmdet eager': fails}, 'cpu')


def test_flops_are_those_of_model_info():
    inference = Setting('backbone', 'inference', 64, 96, batch=2, variant='nano')
    backbone = pair.backbones.untrained(inference).to('meta').eval()
    _, counted = model_info.run(backbone, torch.empty(1, 3, 64, 96, device='meta'))
    assert pair.flops(inference) == 2 * 2 * counted['Global']
    training = Setting('backbone', 'training', 64, 96, batch=2, variant='nano')
    assert pair.flops(training) == 3 * pair.flops(inference)
    assert pair.flops(Setting('upernet', 'inference', 64, 96)) is None


def test_compiled_parts_are_those_of_a_copy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, 'compile', lambda function, mode, dynamic: ('compiled', mode))
    model = nn.Module()
    model.backbone, model.roi_head = nn.Identity(), nn.Identity()
    compiled = pair.in_mode(model, 'graphs', Setting('mask_rcnn', 'inference', 64, 64))
    assert compiled.backbone.forward == ('compiled', 'reduce-overhead')
    assert callable(compiled.roi_head.forward)
    assert callable(model.backbone.forward)
    assert pair.in_mode(model, 'eager', Setting('mask_rcnn', 'inference', 64, 64)) is model


@pytest.mark.filterwarnings('ignore')  # the hosts' own
@pytest.mark.parametrize(
    ('model', 'who'), [('upernet', 'mmseg'), pytest.param('mask_rcnn', 'mmdet', marks=pytest.mark.slow)]
)
def test_whole_models(model: str, who: str):
    case = job(who, (64, 96), model=model)
    models = pair.models_of(case.setting, who, 'cpu')
    inputs = pair.inputs_of(case.setting, 'cpu')
    assert pair.disagreement(models, case, inputs) <= 1e-5
    for call in pair.candidates(case, models, inputs).values():
        call()
    found = pair.whole.detected(inputs.arguments[1])
    assert found == (100 if model == 'mask_rcnn' else None)  # as many as test_cfg allows
    # two images: batch norm cannot train on what UPerNet pools one to
    training = job(who, (64, 96), model=model, phase='training', batch=2)
    inputs, losses = pair.inputs_of(training.setting, 'cpu'), []
    for module in models.values():
        module.train()
        losses.append(pair.forward(module, training, inputs).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@torch.inference_mode()
def test_compiled():
    case = job('mmdet')
    models = pair.models_of(case.setting, 'mmdet', 'cpu')
    inputs = pair.inputs_of(case.setting, 'cpu')
    expected = models['ours'](*inputs.arguments)
    for model in models.values():
        compiled = pair.in_mode(model, 'compiled', case.setting)
        for x, y in zip(compiled(*inputs.arguments), expected, strict=True):
            assert (x - y).abs().max() <= 1e-5 * y.abs().max()
