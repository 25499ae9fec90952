"""Loading configs, overriding values, and what the user is told when something is wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config
from packaging.version import Version

from swin_dense import tasks
from swin_dense.engine import config as configs
from swin_dense.engine import prepare
from swin_dense.errors import UserError
from swin_dense.hosts import packages

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / 'configs' / 'demo' / 'mask_rcnn_swin_nano.py'


@pytest.fixture(scope='module')
def flat(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The detection recipe without its bases: it loads a hundred times as fast."""
    path = tmp_path_factory.mktemp('configs') / 'flat.py'
    configs.load_config(str(RECIPE)).dump(path)
    return str(path)


def message(call: Callable, *args: object) -> str:
    with pytest.raises(UserError) as caught:
        call(*args)
    return ' '.join(str(caught.value).split())


def value(node: object, key: str) -> object:
    for part in key.split('.'):
        node = node[int(part) if part.isdigit() else part]
    return node


@pytest.mark.parametrize('name', ['mask_rcnn_swin_t', 'upernet_swin_t', 'demo/upernet_swin_nano'])
def test_our_recipes(name: str):
    config = configs.load_config(str(ROOT / 'configs' / f'{name}.py'))
    assert tasks.of_config(config).name == ('segmentation' if 'upernet' in name else 'detection')


@pytest.mark.parametrize(
    ('base', 'task'),
    [
        ('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'detection'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'detection'),
        ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'detection'),
        ('mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py', 'segmentation'),
        ('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', 'segmentation'),
    ],
)
def test_a_users_config_on_top_of_a_stock_one(tmp_path: Path, base: str, task: str):
    path = tmp_path / 'mine.py'
    path.write_text(f'_base_ = {base!r}\ntrain_dataloader = dict(batch_size=3)\n')
    config = configs.load_config(str(path), ['train_dataloader.num_workers=0', 'model.backbone.with_cp=True'])
    assert tasks.of_config(config).name == task
    assert (config.train_dataloader.batch_size, config.train_dataloader.num_workers) == (3, 0)
    assert config.model.backbone.with_cp is True


def test_a_missing_file():
    text = message(configs.load_config, str(RECIPE.with_name('mask_rcnn_swin_nan.py')))
    assert text.startswith(f'config {RECIPE.with_name("mask_rcnn_swin_nan.py")} does not exist')
    assert text.endswith(f'; did you mean {RECIPE}?')


@pytest.mark.parametrize('path', ['no/such/folder/config.py', 'configs'])
def test_a_missing_file_with_nothing_like_it(path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    text = message(configs.load_config, path)
    assert f'config {path} does not exist (looked for {ROOT / path})' in text
    assert 'did you mean' not in text


BROKEN = {
    'syntax': ('model = dict(\n\n  type="MaskRCNN",\nb = ', 'line '),
    'program': ('model = 1 / 0', 'ZeroDivisionError: division by zero'),
    'base': ("_base_ = 'absent.py'", 'absent.py'),
    'host': ("_base_ = 'mmdet::no/such/config.py'", 'no/such/config.py'),
    'no model': ("default_scope = 'mmdet'", 'model is missing'),
    'no scope': ("model = dict(type='MaskRCNN')", 'default_scope is missing'),
    'other scope': (
        "model = dict(type='ResNet')\ndefault_scope = 'mmpretrain'",
        "default_scope='mmpretrain' is none of ['mmdet', 'mmseg']",
    ),
    'empty': ('', 'model is missing'),
}


@pytest.mark.parametrize('what', BROKEN)
def test_a_broken_file(tmp_path: Path, what: str):
    content, expected = BROKEN[what]
    path = tmp_path / 'config.py'
    path.write_text(content)
    text = message(configs.load_config, str(path))
    assert text.startswith(f'config {path}')
    assert expected in text


def test_the_line_of_a_syntax_error(tmp_path: Path):
    path = tmp_path / 'config.py'
    path.write_text("default_scope = 'mmdet'\nmodel = dict(type='MaskRCNN')\nmax_epochs = = 3\n")
    assert message(configs.load_config, str(path)).startswith(f'config {path}, line 3: ')


def test_a_file_that_is_no_text(tmp_path: Path):
    path = tmp_path / 'config.py'
    path.write_bytes(b'\x80\x02\xff\xfe')
    assert message(configs.load_config, str(path)).startswith(f'config {path}')


ACCEPTED = {
    'train_cfg.max_epochs=3': 3,
    'train_cfg.val_begin=2': 2,  # an argument of the loop
    'model.backbone.depths=(1,1,1,1)': (1, 1, 1, 1),
    'model.backbone.with_cp=True': True,  # an argument that the config leaves out
    'model.backbone.init_cfg=None': None,
    'model.roi_head.bbox_head.reg_class_agnostic=True': True,
    'model.roi_head.bbox_head.cls_predictor_cfg.type=Linear': 'Linear',
    'model.test_cfg.rcnn.score_thr=0.3': 0.3,
    'model.test_cfg.rcnn.nms.iou_threshold=0.6': 0.6,
    'model.data_preprocessor.pad_size_divisor=64': 64,
    'param_scheduler.0.end=10': 10,  # an item of a list
    'train_dataloader.dataset.pipeline.2.scale=(64,64)': (64, 64),
    'train_dataloader.dataset.pipeline.2.interpolation=nearest': 'nearest',  # goes to Resize
    'train_dataloader.dataset.indices=5': 5,
    'train_dataloader.pin_memory=True': True,
    'default_hooks.checkpoint.save_best=auto': 'auto',
    'default_hooks.early.type=EarlyStoppingHook': 'EarlyStoppingHook',
    'optim_wrapper.accumulative_counts=2': 2,
    'optim_wrapper.optimizer.lr=3e-4': 3e-4,
    'optim_wrapper.optimizer.betas=(0.8,0.9)': (0.8, 0.9),
    'optim_wrapper.paramwise_cfg.bias_decay_mult=0.0': 0.0,
    'test_evaluator.classwise=True': True,
    'auto_scale_lr.enable=False': False,
    'env_cfg.dist_cfg.backend=gloo': 'gloo',
    'randomness.seed=1': 1,
    'load_from=some.pth': 'some.pth',
    'work_dir=a=b': 'a=b',
    'find_unused_parameters=True': True,
    'custom_hooks=[]': [],
}


@pytest.mark.parametrize('option', ACCEPTED)
def test_an_option(flat: str, option: str):
    config = configs.load_config(flat, [option])
    assert value(config, option.partition('=')[0]) == ACCEPTED[option]


def test_options_leave_the_rest_alone(flat: str):
    before, after = (
        configs.load_config(flat),
        configs.load_config(flat, ['model.backbone.embed_dims=8', 'train_cfg.max_epochs=3']),
    )
    assert after.model.backbone.embed_dims == 8
    after.model.backbone.embed_dims = before.model.backbone.embed_dims
    after.train_cfg.max_epochs = before.train_cfg.max_epochs
    assert after.to_dict() == before.to_dict()


REFUSED = {
    'model.backbone.embed_dim=64': "has no 'embed_dim'; did you mean model.backbone.embed_dims?",
    'model.backbon.depths=(1,1)': "model has no 'backbon'; did you mean model.backbone?",
    'model.roi_head.mask_head.num_class=3': "'num_class'; did you mean model.roi_head.mask_head.num_classes?",
    'model.test_cfg.rcnn.max_per_imgs=3': "'max_per_imgs'; did you mean model.test_cfg.rcnn.max_per_img?",
    'trian_cfg.max_epochs=3': "'trian_cfg' at the top of a config; did you mean train_cfg?",
    'train_cfg.max_epoch=3': "train_cfg has no 'max_epoch'; did you mean train_cfg.max_epochs?",
    'default_hooks.checkpoint.intervall=3': 'did you mean default_hooks.checkpoint.interval?',
    'default_hooks.chekpoint.interval=3': 'did you mean default_hooks.checkpoint?',
    'optim_wrapper.optimiser.lr=1': "optim_wrapper has no 'optimiser'; did you mean optim_wrapper.optimizer?",
    'train_dataloader.batchsize=3': 'did you mean train_dataloader.batch_size?',
    'train_dataloader.dataset.pipelines=[]': 'did you mean train_dataloader.dataset.pipeline?',
    'val_evaluator.metrics=bbox': 'did you mean val_evaluator.metric?',
    'param_scheduler.7.end=10': "param_scheduler has no '7'",
    'param_scheduler.end=10': "param_scheduler has no 'end'",
    'train_cfg.max_epochs.x=10': "train_cfg.max_epochs has no 'x'",
    'max_epochs=3': "nothing reads 'max_epochs' at the top of a config",
    'zzz=3': "nothing reads 'zzz' at the top of a config",
    'load_from': 'write KEY=VALUE',
    'train_cfg.max_epochs': 'write KEY=VALUE',
    'model.backbone.depths=(1,1': 'the value cannot be read',
}


@pytest.mark.parametrize('option', REFUSED)
def test_an_option_that_is_refused(flat: str, option: str):
    text = message(configs.load_config, flat, [option])
    assert text.startswith('--cfg-options ')
    assert option.partition('=')[0] in text
    assert REFUSED[option] in text


def test_an_option_with_a_stock_type(tmp_path: Path):
    """Names are looked up in the config's host, and in what it builds on."""
    path = tmp_path / 'config.py'
    path.write_text("_base_ = 'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'")
    options = ['model.backbone.with_cp=True', 'model.test_cfg.mode=slide', 'model.test_cfg.stride=(8,8)']
    config = configs.load_config(str(path), [*options, 'train_dataloader.dataset.reduce_zero_label=False'])
    assert config.model.backbone.with_cp is True
    assert config.model.test_cfg.stride == (8, 8)
    text = message(configs.load_config, str(path), ['model.decode_head.dropout=0.1'])
    assert 'did you mean model.decode_head.dropout_ratio?' in text


def test_options_print_nothing(flat: str, capfd: pytest.CaptureFixture):
    configs.load_config(flat, ['optim_wrapper.optimizer.betas=(0.8,0.9)', 'test_evaluator.classwise=True'])
    assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
    ('precision', 'device', 'kind'),
    [
        (None, 'cpu', 'OptimWrapper'),
        ('bf16', 'cpu', 'swin_dense.BFloat16OptimWrapper'),
        ('bf16', 'cuda', 'swin_dense.BFloat16OptimWrapper'),
        ('fp16', 'cuda', 'AmpOptimWrapper'),
    ],
)
def test_mixed_precision(flat: str, precision: str | None, device: str, kind: str):
    config = configs.load_config(flat)
    before = config.optim_wrapper.to_dict()
    prepare.set_precision(config, precision, device)
    after = config.optim_wrapper.to_dict()
    assert after.pop('type') == kind
    assert after.pop('dtype', None) == ('float16' if precision == 'fp16' else None)
    before.pop('type')
    assert after == before


def test_fp16_on_the_cpu(flat: str):
    assert message(prepare.set_precision, configs.load_config(flat), 'fp16', 'cpu').startswith(
        '--amp fp16 needs a GPU'
    )


def test_loaders_without_workers(flat: str):
    """Torch refuses persistent workers where there are none."""
    config = configs.load_config(
        flat, ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=True']
    )
    assert config.val_dataloader.persistent_workers
    prepare.single_process_loaders(config)
    assert not config.train_dataloader.persistent_workers
    assert config.val_dataloader.persistent_workers


@pytest.mark.parametrize('stated', [False, True])
@pytest.mark.parametrize('scale', [False, True])
def test_the_rate_is_scaled_wherever_the_config_states_its_batch(stated: bool, scale: bool):
    recipe = Config(dict(auto_scale_lr=dict(enable=stated, base_batch_size=16)))
    prepare.set_rate(recipe, scale)
    assert recipe.auto_scale_lr == dict(enable=scale, base_batch_size=16)
    prepare.set_rate(recipe, not scale, ['auto_scale_lr.enable=something'])
    assert recipe.auto_scale_lr.enable is scale, 'an option of its own has the last word'


@pytest.mark.parametrize('rule', [dict(), dict(auto_scale_lr=None), dict(auto_scale_lr=dict(enable=False))])
def test_no_batch_to_scale_from(rule: dict):
    recipe = Config(rule)
    prepare.set_rate(recipe, True)
    assert recipe.to_dict() == rule


@pytest.mark.parametrize(
    'visualizer', [None, dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])]
)
def test_tensorboard_beside_the_local_log(visualizer: dict | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name)
    recipe = Config(dict(visualizer=visualizer))
    for _ in range(2):
        prepare.add_tensorboard(recipe)
    assert [backend['type'] for backend in recipe.visualizer.vis_backends] == [
        'LocalVisBackend',
        'TensorboardVisBackend',
    ]


def test_tensorboard_that_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install tensorboard'):
        prepare.add_tensorboard(Config(dict()))


def test_a_seed_leaves_the_rest_of_randomness():
    recipe = Config(dict(randomness=dict(deterministic=True, seed=1)))
    prepare.set_seed(recipe, None)
    assert recipe.randomness == dict(deterministic=True, seed=1)
    prepare.set_seed(recipe, 0)
    assert recipe.randomness == dict(deterministic=True, seed=0)


def test_a_language_model_with_transformers_that_mmdet_does_not_take(monkeypatch: pytest.MonkeyPatch):
    path = 'mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py'
    monkeypatch.setattr(packages, 'installed_version', lambda name: Version('5.1'))
    with pytest.raises(UserError, match=r'model\.language_model: transformers 5\.1 is installed'):
        configs.load_config(path)
    monkeypatch.setattr(packages, 'installed_version', lambda name: Version('4.50'))
    assert configs.load_config(path).model.type == 'GroundingDINO'
