import os
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModule
from safetensors.torch import save_file
from torch import Tensor, nn

from swin_dense.checkpoints import files
from swin_dense.checkpoints.pretrained import Pretrained
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.models import SwinTransformer
from swin_dense.registry import MODELS
from tests.references.swin_weights import randomise

SMALL = dict(embed_dims=8, depths=(2, 2), num_heads=(1, 2), window_size=4, out_indices=(0, 1))


@pytest.fixture
def weights() -> dict[str, Tensor]:
    model = SwinTransformer(**SMALL)
    randomise(model, seed=7)
    return model.state_dict()


def build(checkpoint: Path | str, **kwargs: object) -> SwinTransformer:
    """A backbone from a config, initialised as mmengine's runner does it."""
    init_cfg = dict(type='swin_dense.Pretrained', checkpoint=str(checkpoint))
    model = MODELS.build(dict(type='swin_dense.SwinTransformer', **{**SMALL, **kwargs}, init_cfg=init_cfg))
    model.init_weights()
    return model


def assert_equal(model: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def microsoft(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A classifier's file: no output norms, and what ours does not have or derives."""
    backbone = {key: value for key, value in weights.items() if not key.startswith(('norm0', 'norm1'))}
    return backbone | {
        'norm.weight': torch.ones(16),
        'norm.bias': torch.zeros(16),
        'head.weight': torch.randn(1000, 16),
        'head.bias': torch.randn(1000),
        'layers.0.blocks.1.attn_mask': torch.zeros(4, 16, 16),
        'layers.0.blocks.0.attn.relative_position_index': torch.zeros(16, 16, dtype=torch.long),
    }


def prefixed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights.items()}


WRAPPED = {
    'bare': lambda weights: weights,
    'model': lambda weights: dict(model=weights, epoch=300, optimizer={'state': {}}),
    'state_dict': lambda weights: dict(state_dict=weights, meta={'epoch': 12}),
    'module.': lambda weights: prefixed(weights, 'module.'),
    'state_dict, module.': lambda weights: dict(state_dict=prefixed(weights, 'module.')),
    'a detector': lambda weights: dict(
        state_dict=prefixed(weights, 'backbone.')
        | {'neck.weight': torch.ones(3), 'norm0.weight': torch.ones(8)}
    ),
    'a distributed detector': lambda weights: dict(state_dict=prefixed(weights, 'module.backbone.')),
}


@pytest.mark.parametrize('wrapped', WRAPPED)
def test_pth_however_it_is_wrapped(tmp_path: Path, weights: dict[str, Tensor], wrapped: str):
    path = tmp_path / 'swin.pth'
    torch.save(WRAPPED[wrapped](weights), path)
    assert_equal(build(path), weights)


def test_the_older_format_of_torch(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    torch.save(dict(model=weights), path, _use_new_zipfile_serialization=False)
    assert_equal(build(path), weights)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.'])
def test_safetensors(tmp_path: Path, weights: dict[str, Tensor], prefix: str):
    path = tmp_path / 'swin.safetensors'
    save_file(prefixed(weights, prefix), path)
    assert_equal(build(path), weights)


def test_half_precision_file(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    torch.save({key: value.half() for key, value in weights.items()}, path)
    model = build(path)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert_equal(model, {key: value.half().float() for key, value in weights.items()})


def test_a_file_of_microsofts(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin_tiny_patch4_window7_224.pth'
    torch.save(dict(model=microsoft(weights)), path)
    fresh = SwinTransformer(**SMALL).state_dict()
    expected = weights | {key: fresh[key] for key in fresh if key.startswith(('norm0', 'norm1'))}
    assert_equal(build(path), expected)


def test_fewer_stages_than_the_file(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    torch.save(weights, path)
    assert_equal(build(path, out_indices=(0,)), weights)


def test_inside_a_detector(tmp_path: Path, weights: dict[str, Tensor]):
    """The weights survive the initialisation of the model around the backbone."""
    path = tmp_path / 'swin.pth'
    torch.save(weights, path)

    class Detector(BaseModule):
        def __init__(self) -> None:
            super().__init__(init_cfg=dict(type='Constant', layer=['Linear', 'LayerNorm'], val=3.0))
            init_cfg = dict(type='swin_dense.Pretrained', checkpoint=str(path))
            self.backbone = MODELS.build(dict(type='swin_dense.SwinTransformer', **SMALL, init_cfg=init_cfg))

    detector = Detector()
    detector.init_weights()
    assert_equal(detector.backbone, weights)


def test_frozen_stages_load_and_stay_frozen(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    torch.save(weights, path)
    model = build(path, frozen_stages=1)
    assert_equal(model, weights)
    assert not model.patch_embed.proj.weight.requires_grad
    assert model.norm1.weight.requires_grad


def test_a_missing_key(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    del weights['layers.1.blocks.0.attn.qkv.bias'], weights['layers.1.blocks.1.mlp.fc2.weight']
    torch.save(weights, path)
    with pytest.raises(UserError) as caught:
        build(path)
    assert str(caught.value) == (
        f'checkpoint {path} (Microsoft, Swin v1) lacks 2 of the {len(weights) + 2} weights, '
        'layers.1.blocks.0.attn.qkv.bias first'
    )


def test_a_file_of_something_else(tmp_path: Path):
    path = tmp_path / 'resnet.pth'
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(UserError, match='none of its 1 tensors belongs to the model, which has'):
        build(path)


@pytest.mark.parametrize(
    ('changed', 'key', 'shapes'),
    [
        (
            dict(num_heads=(2, 2)),
            'layers.0.blocks.0.attn.relative_position_bias_table',
            ('(49, 1)', '(49, 2)'),
        ),
        (dict(embed_dims=16), 'patch_embed.proj.weight', ('(8, 3, 4, 4)', '(16, 3, 4, 4)')),
    ],
)
def test_a_shape_that_does_not_fit(
    tmp_path: Path, weights: dict[str, Tensor], changed: dict, key: str, shapes: tuple[str, str]
):
    path = tmp_path / 'swin.pth'
    torch.save(weights, path)
    with pytest.raises(UserError) as caught:
        build(path, **changed)
    message = str(caught.value)
    assert f'{key} is {shapes[0]}, but the model needs {shapes[1]}' in message
    assert str(path) in message
    assert '\n' not in message


def test_nothing_is_loaded_when_something_does_not_fit(tmp_path: Path, weights: dict[str, Tensor]):
    path = tmp_path / 'swin.pth'
    weights['layers.1.blocks.1.mlp.fc2.bias'] = torch.zeros(5)
    torch.save(weights, path)
    model = SwinTransformer(**SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UserError):
        Pretrained(str(path))(model)
    assert_equal(model, before)


def broken_files() -> dict[str, bytes]:
    return {
        'text.pth': b'<!DOCTYPE html><title>404: not found</title>',
        'empty.pth': b'',
        'zip.pth': b'PK\x03\x04 and no more',
        'text.safetensors': b'version https://git-lfs.github.com/spec/v1',
        'empty.safetensors': b'',
    }


@pytest.mark.parametrize('name', broken_files())
def test_a_file_that_is_no_checkpoint(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(broken_files()[name])
    with pytest.raises(UserError, match='cannot be read safely') as caught:
        build(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, weights: dict[str, Tensor], suffix: str, share: float):
    path = tmp_path / f'swin.{suffix}'
    if suffix == 'pth':
        torch.save(weights, path)
    else:
        save_file(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match='cannot be read safely') as caught:
        build(path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [[torch.zeros(3)], torch.zeros(3), 'text'], ids=['list', 'tensor', 'str'])
def test_a_file_without_a_dict(tmp_path: Path, content: object):
    path = tmp_path / 'swin.pth'
    torch.save(content, path)
    with pytest.raises(UserError, match='not a dict of tensors'):
        build(path)


def test_no_such_file(tmp_path: Path):
    with pytest.raises(UserError, match=r'absent\.pth does not exist'):
        build(tmp_path / 'absent.pth')
    with pytest.raises(UserError, match='is a folder, not a file'):
        build(tmp_path)


class Payload:
    """Runs a command while it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'older format'])
def test_a_malicious_pickle_is_not_run(tmp_path: Path, weights: dict[str, Tensor], zipped: bool):
    trace, path = tmp_path / 'trace', tmp_path / 'swin.pth'
    torch.save(
        dict(model=weights, epoch=Payload(f'touch {trace}')), path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(UnsafeFileError, match=r'is refused: it holds posix\.system'):
        build(path)
    assert not trace.exists()


def test_an_address_is_downloaded_once(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def download(address: str, path: str, progress: bool) -> None:
        asked.append(address)
        torch.save(dict(model=microsoft(weights)), path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    address = 'https://example.com/models/swin.pth?download=1'
    for _ in range(2):
        assert torch.equal(build(address).patch_embed.proj.weight, weights['patch_embed.proj.weight'])
    assert asked == [address]


def test_an_address_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def download(address: str, path: str, progress: bool) -> None:
        raise OSError('no route to host')

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(
        UserError, match=r'cannot be downloaded \(no route to host\): put the file at .*swin\.pth'
    ):
        files.fetch('https://example.com/swin.pth')
