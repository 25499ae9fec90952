"""Configs and folders that a person received: YAML, JSON, a run's work directory, pickled annotations."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from mmengine.config import Config

from swin_dense import tasks
from swin_dense.engine import config as configs
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.predict import model
from swin_dense.report import page
from tests.trust.canaries import Canaries
from tests.trust.conftest import config_of

ROOT = Path(__file__).parents[2]


def plain(node: Any) -> Any:  # noqa: ANN401
    """As JSON has it: lists for tuples."""
    return json.loads(json.dumps(node))


@pytest.mark.parametrize('suffix', ['.json', '.yaml', '.yml'])
@pytest.mark.parametrize('task', ['segmentation', 'detection'])
def test_a_data_config_is_read_as_it_is(task: str, suffix: str, tmp_path: Path):
    values, path = plain(config_of(task).to_dict()), tmp_path / f'x{suffix}'
    path.write_text(json.dumps(values) if suffix == '.json' else yaml.safe_dump(values))
    config = configs.load_config(str(path), ['model.backbone.embed_dims=16'])
    values['model']['backbone']['embed_dims'] = 16
    assert plain(config.to_dict()) == values
    assert tasks.of_config(config).name == task


TAGS = {
    'apply': '!!python/object/apply:os.system ["touch {trace}"]',
    'new': '!!python/object/new:subprocess.Popen [["touch", "{trace}"]]',
    'module': '!!python/module:stranger ""',
    'name': '!!python/name:stranger.x ""',
    'tuple': '!!python/tuple [1, 2]',
    'own': '!stranger x',
}


@pytest.mark.parametrize('name', TAGS)
def test_tags_of_python_in_yaml(name: str, canaries: Canaries, tool: Callable):
    path = Path(canaries.path('config.yaml'))
    path.write_text(f'default_scope: mmdet\nmodel: {TAGS[name].format(trace=canaries.trace)}\n')
    for command in (['train', path], ['test', path, 'x.pth'], ['predict', path, ROOT / 'README.md']):
        assert f'config {path} is refused, line 2: ' in tool(*command).error(status=3)
    assert not canaries.sang()


DATA: dict[str, tuple[str, object]] = {
    'Popen': ('model', dict(type='subprocess.Popen', args=['touch', 'TRACE'])),
    'inside': ('model.backbone', dict(type='subprocess.Popen', args=['touch', 'TRACE'])),
    'hook': ('custom_hooks', [dict(type='stranger.Hook')]),
    'loop': ('train_cfg', dict(type='stranger.Loop')),
    'optimizer': ('optim_wrapper', dict(optimizer=dict(type='stranger.SGD'))),
    'data set': ('train_dataloader.dataset', dict(type='stranger.Data')),
    'transform': ('train_dataloader.dataset.pipeline', [dict(type='os.system', command='touch TRACE')]),
    'collate': ('train_dataloader.collate_fn', dict(type='stranger.collate')),
    'metric': ('test_evaluator', [dict(type='stranger.Metric')]),
    'visualizer': ('visualizer', dict(type='Visualizer', vis_backends=[dict(type='WandbVisBackend')])),
    'scope': ('custom_hooks', [dict(type='EMAHook', _scope_='stranger')]),
    'proposals': ('train_dataloader.dataset.proposal_file', 'x.pkl'),
    'annotations': ('train_dataloader.dataset.ann_file', 'x.pickle'),
    'class weight': ('model.decode_head.loss_decode.class_weight', 'x.json'),
    'address': ('model.backbone.init_cfg', dict(type='Pretrained', checkpoint='http://stranger/x.pth')),
    'pretrained': ('model.pretrained', 'http://stranger/x.pth'),
    'backend': ('train_dataloader.dataset.backend_args', dict(backend='http')),
    'address of data': ('train_dataloader.dataset.ann_file', 'http://stranger/x.json'),
    'imports': ('custom_imports', dict(imports=['stranger'])),
    'base': ('_base_', 'x.py'),
}


@pytest.mark.parametrize('name', DATA)
def test_a_json_config_that_would_run_code(name: str, canaries: Canaries, tool: Callable):
    place, value = DATA[name]
    values = config_of('segmentation')
    values.train_dataloader = dict(dataset=dict(type='BaseSegDataset', pipeline=[]))
    values = values.to_dict()
    *around, last = place.split('.')
    node = values
    for part in around:
        node = node.setdefault(part, {})
    node[last] = value
    path = Path(canaries.path('config.json'))
    path.write_text(json.dumps(values).replace('TRACE', str(canaries.trace)))
    line = tool('train', path).error(status=3)
    assert f'config {path} is refused' in line
    assert place.rpartition('.')[2] in line
    assert not canaries.sang()


@pytest.mark.parametrize(
    'content', ['', '[]', '{', '{"model": 5, "default_scope": "mmdet"}', '{"1": {}}', '"x"', '[' * 1000]
)
@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_a_damaged_data_config(content: str, suffix: str, tmp_path: Path):
    (tmp_path / f'x{suffix}').write_text(content)
    with pytest.raises(UserError, match=r'^config ') as caught:
        configs.load_config(str(tmp_path / f'x{suffix}'))
    assert caught.value.status == 2


@pytest.mark.parametrize('field', ['ann_file', 'proposal_file'])
def test_pickled_annotations_in_any_config(field: str, tmp_path: Path):
    """The hosts unpickle them; the config is a program, but what it names came from elsewhere."""
    config = config_of('detection')
    config.train_dataloader = dict(dataset=dict(type='CocoDataset'))
    text = f'model = {config.model.to_dict()!r}\ndefault_scope = "mmdet"\n'
    text += f'train_dataloader = {config.train_dataloader.to_dict()!r}'
    (tmp_path / 'x.py').write_text(text)
    option = f'train_dataloader.dataset.{field}=x.PKL'
    with pytest.raises(UnsafeFileError, match=rf'train_dataloader\.dataset\.{field}='):
        configs.load_config(str(tmp_path / 'x.py'), [option])
    configs.load_config(str(tmp_path / 'x.py'), [option.replace('PKL', 'json')])


@pytest.mark.parametrize('suffix', ['.py', '.yaml'])
def test_a_config_that_names_itself_over_and_over(suffix: str, tmp_path: Path):
    pairs = list(itertools.pairwise(f'x{i}' for i in range(12)))
    if suffix == '.yaml':
        lines = [f'{b}: &{b} [{", ".join([f"*{a}"] * 10)}]' for a, b in pairs]
        path = tmp_path / 'x.yaml'
        path.write_text('\n'.join(['x0: &x0 [1]', *lines]))
    else:
        lines = [f'{b} = [{", ".join([a] * 10)}]' for a, b in pairs]
        path = folder_of(config_of('detection'), tmp_path / 'run', '\n'.join(['\nx0 = [1]', *lines]))
    with pytest.raises(UserError, match='more than 1000000 values'):
        configs.load_config(str(path))


def folder_of(config: Config, folder: Path, extra: str = '') -> Path:
    """As a run leaves it."""
    folder.mkdir()
    config.dump(folder / 'config.py')
    (folder / 'config.py').write_text((folder / 'config.py').read_text() + extra)
    (folder / 'metrics.json').write_text('{}')
    return folder


CODE = ("\nimport os\nos.system('touch TRACE')", '\nx = open("TRACE", "w")', "\n_base_ = 'x.py'\nx = 1 + 1")


@pytest.mark.parametrize('extra', CODE)
def test_a_results_folder_is_not_run(extra: str, canaries: Canaries, tool: Callable, tmp_path: Path):
    folder = folder_of(config_of('detection'), tmp_path / 'run', extra.replace('TRACE', str(canaries.trace)))
    for command in (['report', folder], ['test', folder, 'x.pth'], ['train', folder]):
        assert f'config {folder}/config.py is refused: line ' in tool(*command).error(status=3)
    assert not canaries.sang()


BUILT: dict[str, tuple[str, object]] = {
    'data set': ('test_dataloader.dataset.type', 'stranger.Data'),
    'pickled annotations': ('test_dataloader.dataset.ann_file', 'x.pkl'),
    'evaluator': ('test_evaluator', dict(type='stranger.Metric')),
    'scope': ('test_dataloader.dataset._scope_', 'stranger'),
}


@pytest.mark.parametrize('name', BUILT)
def test_a_report_builds_nothing_that_is_not_known(name: str, canaries: Canaries, tmp_path: Path):
    config = config_of('segmentation')
    config.test_evaluator = dict(type='IoUMetric')
    config.merge_from_dict({BUILT[name][0]: BUILT[name][1]})
    folder = folder_of(config, tmp_path / 'run')
    with pytest.raises(UnsafeFileError, match=rf'config {folder}/config\.py is refused: '):
        page.of_run(folder)
    assert not canaries.sang()


@pytest.mark.parametrize('task', ['segmentation', 'detection'])
def test_a_dumped_config_works_as_a_config(task: str, tmp_path: Path):
    config = config_of(task)
    config.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='x.pth')
    config.work_dir = 'elsewhere'
    folder = folder_of(config, tmp_path / 'run')
    program, data = configs.load_config(str(folder / 'config.py')), configs.load_config(str(folder))
    assert data.work_dir == str(folder), 'a run may have been copied'
    assert data.model.backbone.init_cfg is None, 'a run that is over needs none'
    assert program.model.backbone.init_cfg.checkpoint == 'x.pth'
    program.model.backbone.init_cfg = None
    assert data.model.backbone == program.model.backbone
    assert data.test_dataloader == program.test_dataloader


POINTERS = {
    'missing': None,
    'empty': b'',
    'dangling': b'/somewhere/iter_9.pth',
    'garbage': bytes(range(1, 255)),
    'not UTF-8': b'\xff\xfe\x00',
    'another folder': b'../../x.pth',
    'a folder': b'..',
    'long': b'x' * 5000,
}


@pytest.mark.parametrize('name', POINTERS)
def test_a_pointer_that_names_nothing_here(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = tmp_path / 'a' / 'b'
    folder.mkdir(parents=True)
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    with pytest.raises(UserError, match='no checkpoint in'):
        model.newest(folder)
    if POINTERS[name] is not None:
        (folder / 'last_checkpoint').write_bytes(POINTERS[name])
    torch.save(dict(state_dict={}), folder / 'iter_1.pth')
    (folder / 'iter_2.pth').write_bytes(b'PK')
    assert model.newest(folder) == str(folder / 'iter_1.pth')


def test_a_pointer_names_a_file_of_its_own_folder(tmp_path: Path):
    """Wherever the run was when it wrote that."""
    torch.save(dict(state_dict={}), tmp_path / 'iter_1.pth')
    torch.save(dict(state_dict={}), tmp_path / 'iter_2.pth')
    (tmp_path / 'last_checkpoint').write_text('/original/run/iter_1.pth')
    assert model.newest(tmp_path) == str(tmp_path / 'iter_1.pth')
