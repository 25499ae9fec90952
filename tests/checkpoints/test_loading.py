"""What a file gives to a detector or segmentor, what is said of it, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import save_checkpoint
from torch import Tensor, nn

from swin_dense.checkpoints.load import load_weights
from swin_dense.checkpoints.report import Report
from swin_dense.engine import start
from swin_dense.errors import UserError
from tests.checkpoints import families, microsoft
from tests.checkpoints.ways import DEMO
from tests.engine.test_runner import Toy, runner, weights
from tests.references.swin_weights import randomise

OURS = dict(type='swin_dense.SwinTransformer', **microsoft.SMALL)
DETECTOR, SEGMENTOR = DEMO / 'mask_rcnn_swin_nano.py', DEMO / 'upernet_swin_nano.py'
NORMS = [f'backbone.norm{i}.{part}' for i in range(4) for part in ('weight', 'bias')]


def built(config: Path, **changes: object) -> nn.Module:
    """The demo's model, with random weights."""
    loaded = Config.fromfile(config)
    loaded.merge_from_dict(changes)
    from mmengine.registry import MODELS

    with DefaultScope.overwrite_default_scope(loaded.default_scope):
        model = MODELS.build(loaded.model)
    randomise(model)
    return model


def filled(model: nn.Module, tensors: dict[str, Tensor], **how: bool) -> Report:
    return load_weights(model, tensors, 'file.pth', **{'adapt': True, 'partial': False, **how})


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
@torch.no_grad()
def test_a_whole_model_of_the_host_fills_ours(package: str):
    """Its necks and heads under their names, its backbone's under ours: the same maps."""
    theirs = families.mm_whole(package)
    randomise(theirs)
    ours = families.whole(package, OURS)
    report = filled(ours, theirs.state_dict(), adapt=False)
    assert (report.missing, report.unexpected, report.adapted, report.dropped) == ([], [], {}, {})
    assert report.filled == 1
    assert report.source == 'OpenMMLab (mmdet, mmseg, mmpretrain), Swin v1'
    ours.eval(), theirs.eval()
    x = families.image()
    for mine, reference in zip(ours.extract_feat(x), theirs.extract_feat(x), strict=True):
        assert (mine - reference).abs().max() <= 1e-5 * reference.abs().max()
    for key, value in theirs.state_dict().items():
        if not key.startswith('backbone.'):
            assert torch.equal(ours.state_dict()[key], value), key


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_a_classifier_fills_a_backbone(package: str):
    model = families.whole(package, OURS)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    classifier = microsoft.weights(microsoft.classifier_v1())
    report = filled(model, classifier | microsoft.buffers(1))
    body = [key for key in classifier if not key.startswith(('norm.', 'head.'))]
    assert set(report.matched) == {f'backbone.{key}' for key in body}
    assert report.missing == [key for key in before if key not in report.matched]
    assert set(report.missing) >= set(NORMS)
    assert report.unexpected == [f'backbone.{key}' for key in classifier if key not in body]
    for key, value in model.state_dict().items():
        expected = classifier.get(key.removeprefix('backbone.'), before[key])
        assert torch.equal(value, expected if key in report.matched else before[key]), key
    parameters = {key: x.numel() for key, x in model.named_parameters()}
    share = sum(parameters[key] for key in report.matched) / sum(parameters.values())
    assert report.filled == pytest.approx(share)


HEADS = {
    DETECTOR: [
        'roi_head.bbox_head.fc_cls.weight',
        'roi_head.bbox_head.fc_cls.bias',
        'roi_head.bbox_head.fc_reg.weight',
        'roi_head.bbox_head.fc_reg.bias',
        'roi_head.mask_head.conv_logits.weight',
        'roi_head.mask_head.conv_logits.bias',
    ],
    SEGMENTOR: [
        f'{head}.conv_seg.{x}' for head in ('decode_head', 'auxiliary_head') for x in ('weight', 'bias')
    ],
}
CLASSES = {
    DETECTOR: {
        'model.roi_head.bbox_head.num_classes': 80,
        'model.roi_head.mask_head.num_classes': 80,
    },
    SEGMENTOR: {'model.decode_head.num_classes': 150, 'model.auxiliary_head.num_classes': 150},
}


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def test_other_classes(config: Path):
    """Their heads are left as they were, with a line for each tensor; everything else is loaded."""
    other, model = built(config, **CLASSES[config]), built(config)
    for parameter in other.parameters():
        parameter.data.add_(1)
    found, before = other.state_dict(), {key: x.clone() for key, x in model.state_dict().items()}
    report = filled(model, found)
    assert list(report.dropped) == HEADS[config]
    assert (report.missing, report.unexpected, report.adapted) == ([], [], {})
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in report.dropped else found[key]), key
    key = HEADS[config][0]
    shapes = f'{tuple(found[key].shape)} in the file, {tuple(before[key].shape)} in the model'
    assert f'  dropped {key}: {shapes}' in report.lines()


@pytest.mark.parametrize('config', [DETECTOR, SEGMENTOR], ids=['detector', 'segmentor'])
def test_other_classes_are_refused_in_a_test(config: Path):
    other, model = built(config, **CLASSES[config]), built(config)
    before = {key: x.clone() for key, x in model.state_dict().items()}
    with pytest.raises(UserError, match=rf'{HEADS[config][0]} is \(.*\), but the model needs \(.*\)$'):
        filled(model, other.state_dict(), adapt=False)
    assert all(torch.equal(x, before[key]) for key, x in model.state_dict().items())


def test_another_window_is_refused_in_a_test():
    classifier = microsoft.weights(microsoft.classifier_v1(window=3))
    with pytest.raises(UserError) as caught:
        filled(families.whole('mmdet', OURS), classifier, adapt=False)
    assert str(caught.value) == (
        'checkpoint file.pth (Microsoft, Swin v1): backbone.layers.0.blocks.0.attn.'
        'relative_position_bias_table is (25, 1), but the model needs (9, 1)'
    )


def test_a_backbone_that_is_no_swin_of_ours():
    """Its names must be the model's; heads of other classes are dropped all the same."""
    other, model = families.mm_whole('mmseg'), families.mm_whole('mmseg')
    found = other.state_dict()
    found['decode_head.conv_seg.bias'] = torch.zeros(3)
    report = filled(model, found)
    assert report.source == 'names of the model'
    assert list(report.dropped) == ['decode_head.conv_seg.bias']
    assert torch.equal(model.state_dict()['backbone.norm2.bias'], found['backbone.norm2.bias'])
    with pytest.raises(UserError, match=r'none of its \d+ tensors belongs to the model'):
        filled(model, microsoft.weights(microsoft.classifier_v1()))


def test_missing_weights_unless_they_are_allowed():
    found = microsoft.weights(microsoft.backbone_v1())
    lost = [key for key in found if key.startswith('backbone.layers.2.blocks.1.')]
    for key in lost:
        del found[key]
    model = families.whole('mmdet', OURS)
    with pytest.raises(UserError, match=rf'lacks {len(lost)} of the \d+ weights, {lost[0][:26]}.* first'):
        filled(model, found)
    report = filled(model, found, partial=True)
    assert set(lost) <= set(report.missing)
    assert set(report.matched) == set(found)


@pytest.mark.parametrize('lost', ['roi_head.mask_head.conv_logits.bias', 'backbone.norm1.weight'])
def test_a_test_needs_every_weight(lost: str):
    """A head that was never trained finds nothing; a run is resumed whole."""
    model = families.whole('mmdet', OURS)
    found = {key: value for key, value in model.state_dict().items() if key != lost}
    with pytest.raises(UserError, match=rf'lacks 1 of the {len(found) + 1} weights, {lost} first$'):
        filled(model, found, adapt=False)
    assert filled(model, found).missing == [lost]


def test_a_count_of_batches_may_be_missing():
    """Files from before torch 0.4.1 lack it."""
    model = nn.Sequential(nn.BatchNorm2d(3))
    found = {key: value for key, value in model.state_dict().items() if 'num_batches' not in key}
    assert filled(model, found, adapt=False).missing == ['0.num_batches_tracked']


def test_lines_for_people():
    report = Report(
        'swin.pth',
        'timm, Swin v1',
        matched=['a', 'b'],
        adapted={'c': 'window 7 -> 12', 'd': 'window 7 -> 12', 'e': 'input channels 3 -> 4'},
        missing=[f'm{i}' for i in range(6)],
        unexpected=['u'],
        dropped={'head.weight': '(80, 8) in the file, (5, 8) in the model'},
        filled=0.98765,
    )
    assert report.lines() == [
        'weights: swin.pth (timm, Swin v1): 2 of 12 tensors matched, 98.8% of the parameters filled',
        '  adapted 3: window 7 -> 12, input channels 3 -> 4',
        '  dropped head.weight: (80, 8) in the file, (5, 8) in the model',
        '  missing 6: m0, m1, m2, m3, ...',
        '  not used 1: u',
    ]
    assert Report(**json.loads(json.dumps(report.as_dict()))) == report


QUICK = [
    'train_cfg.max_epochs=0',
    'param_scheduler=None',
    'val_cfg=None',
    'val_dataloader=None',
    'val_evaluator=None',
    'train_dataloader.num_workers=0',
    'visualizer=None',
]


def train(tool: Callable, data: Path, folder: Path, path: Path) -> object:
    """Start a run of no epochs from a checkpoint."""
    arguments = [
        '--data',
        data / 'coco',
        '--work-dir',
        folder / 'run',
        '--device',
        'cpu',
        '--checkpoint',
        path,
    ]
    return tool('train', DETECTOR, *arguments, '--cfg-options', *QUICK)


def test_training_from_a_classifier(data: Path, tmp_path: Path, tool: Callable):
    """timm's, of another window and architecture-wise that of the demo."""
    nano = Config.fromfile(DETECTOR).model.backbone
    theirs = pytest.importorskip('timm').models.SwinTransformer(
        img_size=96, embed_dim=nano.embed_dims, depths=nano.depths, num_heads=nano.num_heads, window_size=3
    )
    torch.save(theirs.state_dict(), tmp_path / 'swin.pth')
    ended = train(tool, data, tmp_path, tmp_path / 'swin.pth')
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('weights: '))
    assert lines[start].startswith(f'weights: {tmp_path / "swin.pth"} (timm, Swin v1): ')
    assert f'window 3 -> {nano.window_size}' in lines[start + 1]
    assert lines[start + 2].startswith('  missing ')
    assert lines[start + 3].startswith('  not used 4: backbone.norm.')
    assert lines[start] in max((tmp_path / 'run').glob('*/*.log')).read_text()


def test_training_and_testing_with_other_classes(data: Path, tmp_path: Path, tool: Callable):
    path = tmp_path / 'coco.pth'
    save_checkpoint(dict(state_dict=built(DETECTOR, **CLASSES[DETECTOR]).state_dict()), str(path))
    ended = train(tool, data, tmp_path, path)
    assert ended.status == 0, ended.err
    assert all(f'  dropped {key}: (' in ended.out for key in HEADS[DETECTOR])
    assert 'missing' not in ended.out
    arguments = ['--data', data / 'coco', '--work-dir', tmp_path / 'test', '--device', 'cpu']
    line = tool('test', DETECTOR, path, *arguments, '--cfg-options', 'test_dataloader.num_workers=0').error()
    assert 'roi_head.bbox_head.fc_cls.weight is (81, 256), but the model needs (6, 256)' in line


@pytest.mark.parametrize('wrapper', ['state_dict', 'model'])
def test_an_averaged_model_starts_from_the_file_too(wrapper: str, tmp_path: Path):
    torch.save({wrapper: weights()}, tmp_path / 'w.pth')
    run = runner(
        tmp_path / 'run', Toy(), custom_hooks=[dict(type='EMAHook')], load_from=str(tmp_path / 'w.pth')
    )
    hook = next(hook for hook in run.hooks if type(hook).__name__ == 'EMAHook')
    run.call_hook('before_run')
    run.load_or_resume()
    for model in (run.model, hook.ema_model.module):
        assert all(torch.equal(model.state_dict()[key], value) for key, value in weights().items())


def test_pretrained_weights_are_not_loaded_to_be_replaced():
    named = start.Start(checkpoint='mine.pth')
    model = dict(pretrained='a', backbone=dict(init_cfg=dict(checkpoint='b')))
    config = Config(dict(work_dir='never_made', model=model))
    start.apply(config, start.choose(Path(config.work_dir), named))
    assert (config.model.pretrained, config.model.backbone.init_cfg) == (None, None)
    assert config.load_from == 'mine.pth'
    config = Config(dict(work_dir='never_made', model=dict(type='SoftTeacher', detector=dict())))
    start.apply(config, start.choose(Path(config.work_dir), named))
    assert config.model == dict(type='SoftTeacher', detector=dict())
