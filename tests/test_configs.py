"""Every file in configs: it parses, builds, says how to run it, and names weights that exist."""

import re
from pathlib import Path

import pytest
from mmengine import Config

from swin_dense.models import SwinTransformer
from tests.recipes import CONFIGS, built, ours, strings

FILES = [path.relative_to(CONFIGS).with_suffix('').as_posix() for path in sorted(CONFIGS.rglob('*.py'))]
RUNNABLE = [file for file in FILES if not file.startswith('_base_/')]
BACKBONES = [file for file in FILES if re.fullmatch(r'_base_/swin(v2)?_(tiny|small|base|large)', file)]
# one of each kind; to dump a config takes seconds
DUMPED = {'cascade_mask_rcnn_swin_b', 'mask_rcnn_swinv2_t', 'upernet_swin_t', 'upernet_swin_b_w12_in22k'}
HOSTS_SERVER = '.'.join(['download', 'openmmlab', 'com'])
STORAGE = 'https://github.com/SwinTransformer/storage/releases/download/'
# release: the files that MODELHUB.md of microsoft/Swin-Transformer links for these backbones, but for the
# fine-tuned (22kto1k) ones of v1
RELEASED = {
    'v1.0.0': {
        'swin_tiny_patch4_window7_224.pth',
        'swin_small_patch4_window7_224.pth',
        'swin_base_patch4_window7_224.pth',
        'swin_base_patch4_window7_224_22k.pth',
        'swin_base_patch4_window12_384.pth',
        'swin_base_patch4_window12_384_22k.pth',
        'swin_large_patch4_window7_224_22k.pth',
        'swin_large_patch4_window12_384_22k.pth',
    },
    'v1.0.8': {'swin_tiny_patch4_window7_224_22k.pth', 'swin_small_patch4_window7_224_22k.pth'},
    'v2.0.0': {
        'swinv2_tiny_patch4_window8_256.pth',
        'swinv2_tiny_patch4_window16_256.pth',
        'swinv2_small_patch4_window8_256.pth',
        'swinv2_small_patch4_window16_256.pth',
        'swinv2_base_patch4_window8_256.pth',
        'swinv2_base_patch4_window16_256.pth',
        'swinv2_base_patch4_window12_192_22k.pth',
        'swinv2_base_patch4_window12to16_192to256_22kto1k_ft.pth',
        'swinv2_base_patch4_window12to24_192to384_22kto1k_ft.pth',
        'swinv2_large_patch4_window12_192_22k.pth',
        'swinv2_large_patch4_window12to16_192to256_22kto1k_ft.pth',
        'swinv2_large_patch4_window12to24_192to384_22kto1k_ft.pth',
    },
}

every_file = pytest.mark.parametrize('file', FILES)
every_runnable = pytest.mark.parametrize('recipe', RUNNABLE)
every_dump = pytest.mark.parametrize(
    'recipe', [name if name in DUMPED else pytest.param(name, marks=pytest.mark.slow) for name in RUNNABLE]
)
every_backbone = pytest.mark.parametrize('file', BACKBONES)


def weights(file: str) -> list[str]:
    """The addresses of weights in a config."""
    found = strings(ours(file).to_dict())
    return [text for text in found if text.startswith('http') and text.endswith('.pth')]


@every_runnable
def test_it_builds(recipe: str):
    model = built(ours(recipe))
    assert isinstance(model.backbone, SwinTransformer)
    assert {p.device.type for p in model.parameters()} == {'meta'}


@every_dump
def test_a_dump_is_read_back_unchanged(recipe: str, tmp_path: Path):
    ours(recipe).dump(tmp_path / 'dumped.py')
    assert Config.fromfile(tmp_path / 'dumped.py').to_dict() == ours(recipe).to_dict()


@every_runnable
def test_it_opens_with_its_command_run_time_and_score(recipe: str):
    lines = (CONFIGS / f'{recipe}.py').read_text(encoding='utf-8').splitlines()
    opening = [line for line in lines[:10] if line.startswith('#')]
    assert any(f'configs/{recipe}.py' in line and 'tools/' in line for line in opening)
    for what in ('# run time: ', '# expected: '):
        assert any(line.startswith(what) for line in opening), what


@every_file
def test_no_config_names_the_hosts_download_server(file: str):
    assert HOSTS_SERVER not in (CONFIGS / f'{file}.py').read_text(encoding='utf-8')
    assert [text for text in strings(ours(file).to_dict()) if HOSTS_SERVER in text] == []


@every_backbone
def test_weights_are_in_microsofts_release(file: str):
    size = re.search(r'swin(v2)?_\w+', file).group()
    assert weights(file)
    for address in weights(file):
        release, _, name = address.removeprefix(STORAGE).partition('/')
        assert name in RELEASED[release], address
        assert name.startswith(f'{size}_'), address


def test_every_weight_of_the_release_is_named():
    named = {address for file in BACKBONES for address in weights(file)}
    assert named == {f'{STORAGE}{release}/{name}' for release, names in RELEASED.items() for name in names}


@every_backbone
def test_other_weights_fit_the_backbone(file: str):
    """They go on top of it, as the comment says, and name the window in their own names."""
    base = ours(file)
    for choice in base.weights.values():
        backbone = dict(base.backbone, **choice)
        assert set(backbone['init_cfg']) == {'type', 'checkpoint'}
        name = backbone['init_cfg']['checkpoint'].rsplit('/', 1)[1]
        assert re.search(rf'window(\d+to)?{backbone["window_size"]}_', name)
    assert base.channels == [base.backbone.embed_dims * 2**i for i in range(4)]
