"""Blocks computed group by group of windows equal the plain ones, and stand back where they must."""

from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from swin_dense.kernels import blocked
from swin_dense.models import SwinTransformer, SwinTransformerV2, fused
from tests.kernels.blocks import (
    BLOCKS,
    DIM,
    VERSIONS,
    block_of,
    inner_modules,
    plain_path,
    relative_difference,
)
from tests.references.swin_weights import randomise


def spy() -> mock.Mock:
    """Computes what ``blocked.block_`` computes and counts its calls."""
    return mock.patch.object(blocked, 'block_', side_effect=blocked.block_)


WINDOWS_OF_ONE = [
    ((3, 9, 5), dict(window=1)),
    ((2, 9, 5), dict(window=1, shifted=False, num_heads=8)),
]


@torch.no_grad()
@pytest.mark.parametrize('tokens', [1, 50, blocked.TOKENS])
@pytest.mark.parametrize(('size', 'arguments'), [*BLOCKS, *WINDOWS_OF_ONE])
@pytest.mark.parametrize('version', VERSIONS)
def test_equals_the_plain_block(
    version: str, size: tuple[int, ...], arguments: dict, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocked, 'TOKENS', tokens)
    block, x = block_of(version, **arguments), torch.randn(*size, DIM, dtype=torch.float64)
    before = x.clone()
    with spy() as forward:
        result = block(x)
    assert forward.called
    assert torch.equal(x, before)
    with plain_path():
        assert relative_difference(result, block(x)) <= 1e-12


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_strided_maps(version: str):
    block = block_of(version)
    x = torch.randn(2, 16, 24, DIM, dtype=torch.float64)
    strided = {
        'channels first': x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        'every second': x.repeat_interleave(2, 1)[:, ::2],
        'part': torch.cat([x, x], dim=2)[:, :, :24],
        'expanded': x[:1, :, :1].expand(2, -1, 24, -1),
    }
    for name, view in strided.items():
        before = view.clone()
        assert not view.is_contiguous()
        assert relative_difference(block(view), block(before)) <= 1e-14, name
        assert torch.equal(view, before), name


@pytest.mark.parametrize('version', VERSIONS)
class TestStandsIn:
    @torch.no_grad()
    def test_in_evaluation_without_gradients(self, version: str):
        for dtype in (torch.float32, torch.float64):
            assert fused.suits_inference(block_of(version).to(dtype), torch.randn(1, 7, 7, DIM, dtype=dtype))
        with torch.inference_mode():
            assert fused.suits_inference(block_of(version), torch.randn(1, 7, 7, DIM, dtype=torch.float64))

    def test_not_with_gradients_or_in_training(self, version: str):
        block, x = block_of(version), torch.randn(1, 7, 7, DIM, dtype=torch.float64)
        assert not fused.suits_inference(block, x)
        with torch.no_grad():
            assert not fused.suits_inference(block.train(), x)

    def test_frozen_parts(self, version: str):
        """Gradients are enabled, and none can come: as in the stages that are frozen in training."""
        block, x = block_of(version).requires_grad_(False), torch.randn(1, 9, 16, DIM, dtype=torch.float64)
        assert fused.suits_inference(block, x)
        result = block(x)
        assert not result.requires_grad
        with plain_path():
            assert relative_difference(result, block(x)) <= 1e-12
        assert not fused.suits_inference(block, x.clone().requires_grad_())
        for parameter in block.parameters():
            parameter.requires_grad_()
            assert not fused.suits_inference(block, x)
            parameter.requires_grad_(False)

    @torch.no_grad()
    def test_not_under_autocast(self, version: str):
        block, x = block_of(version).float(), torch.randn(1, 7, 7, DIM)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert not fused.suits_inference(block, x)
        with torch.autocast('cpu', enabled=False):
            assert fused.suits_inference(block, x)

    @torch.no_grad()
    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_not_in_half_precision(self, version: str, dtype: torch.dtype):
        assert not fused.suits_inference(block_of(version).to(dtype), torch.randn(1, 7, 7, DIM, dtype=dtype))

    @torch.no_grad()
    def test_not_on_other_devices(self, version: str):
        x = torch.empty(1, 9, 7, DIM, dtype=torch.float64, device='meta')
        block = block_of(version).to('meta')
        assert not fused.suits_inference(block, x)
        assert block(x).is_meta
        assert block(x).shape == x.shape

    @torch.no_grad()
    def test_not_when_compiled(self, version: str, monkeypatch: pytest.MonkeyPatch):
        block, x = block_of(version), torch.randn(1, 7, 7, DIM, dtype=torch.float64)
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
        assert not fused.suits_inference(block, x)

    @torch.no_grad()
    @pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning', 'ignore:.torch.jit:FutureWarning')
    def test_not_when_traced(self, version: str):
        """A trace holds what ran: pure tensor operations on one size."""
        block, x = block_of(version), torch.randn(1, 9, 16, DIM, dtype=torch.float64)
        with spy() as forward:
            traced = torch.jit.trace(block, x, check_trace=False)
        assert not forward.called
        x = torch.randn_like(x)
        assert relative_difference(traced(x), block(x)) <= 1e-12

    @torch.no_grad()
    def test_not_with_hooks_on_inner_parts(self, version: str):
        block, x = block_of(version), torch.randn(1, 9, 16, DIM, dtype=torch.float64)
        for name, part in block.named_modules():
            for register in (part.register_forward_hook, part.register_forward_pre_hook):
                hook = register(lambda *_: None)
                assert fused.suits_inference(block, x) is (part is block), name
                hook.remove()
                assert fused.suits_inference(block, x)


@torch.no_grad()
@pytest.mark.parametrize(
    ('part', 'arguments'),
    [('mlp.drop', dict(drop=0.5)), ('attn', dict(attn_drop=0.5)), ('drop_path', dict(drop_path=0.5))],
)
@pytest.mark.parametrize('version', VERSIONS)
def test_dropout_kept_on_in_evaluation(version: str, part: str, arguments: dict):
    """As in Monte Carlo dropout: the block in evaluation, what drops in training."""
    block, x = block_of(version, **arguments), torch.randn(4, 9, 16, DIM, dtype=torch.float64)
    block.get_submodule(part).train()
    assert not torch.equal(block(x), block(x))


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_methods_of_a_subclass_count(version: str):
    class Without(VERSIONS[version]):
        def attend(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    block, x = block_of(version), torch.randn(1, 9, 16, DIM, dtype=torch.float64)
    block.__class__ = Without
    result = block(x)
    with plain_path():
        assert relative_difference(result, block(x)) <= 1e-12


@torch.no_grad()
def test_no_images():
    assert block_of('v1')(torch.empty(0, 9, 16, DIM, dtype=torch.float64)).shape == (0, 9, 16, DIM)


BACKBONES = {'v1': SwinTransformer, 'v2': SwinTransformerV2}
SMALL = dict(embed_dims=8, depths=(2, 2), num_heads=(2, 2), out_indices=(0, 1), window_size=4)


def backbone_of(version: str) -> nn.Module:
    model = BACKBONES[version](**SMALL).double().eval()
    randomise(model)
    return model


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_hooks_fire_through_the_backbone(version: str):
    model, image = backbone_of(version), torch.randn(1, 3, 50, 70, dtype=torch.float64)
    expected = model(image)
    block = model.layers[1].blocks[1]
    for name in inner_modules(block):
        calls = []
        hook = block.get_submodule(name).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        maps = model(image)
        hook.remove()
        assert calls, name
        for x, y in zip(maps, expected, strict=True):
            assert relative_difference(x, y) <= 1e-12
    # what a hook returns counts
    hook = block.attn.register_forward_hook(lambda _module, _inputs, output: -output)
    assert relative_difference(model(image)[1], expected[1]) > 1e-2
    hook.remove()
    assert torch.equal(model(image)[1], expected[1])


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_a_stage_is_computed_in_one_map_of_its_own(version: str):
    stage, x = backbone_of(version).layers[0], torch.randn(2, 9, 13, 8, dtype=torch.float64)
    before = x.clone()
    with spy() as forward:
        result = stage(x)
    maps = [call.args[0] for call in forward.call_args_list]
    assert len(maps) == len(stage.blocks)
    assert all(one is result for one in maps)
    assert torch.equal(x, before)
    with plain_path():
        assert relative_difference(result, stage(x)) <= 1e-12


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_what_a_hook_keeps_of_a_block_stays(version: str):
    stage, x = backbone_of(version).layers[0], torch.randn(2, 9, 13, 8, dtype=torch.float64)
    kept = []
    stage.blocks[0].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    result = stage(x)
    with plain_path():
        assert relative_difference(kept[0], stage.blocks[0](x)) <= 1e-12
        assert relative_difference(result, stage(x)) <= 1e-12


@torch.no_grad()
@pytest.mark.parametrize('version', VERSIONS)
def test_blocks_of_other_kinds_in_a_stage(version: str):
    stage, x = backbone_of(version).layers[0], torch.randn(1, 9, 13, 8, dtype=torch.float64)
    expected = stage.blocks[1](x)
    stage.blocks[0] = nn.Identity()
    assert torch.equal(stage(x), expected)


@torch.no_grad()
@pytest.mark.parametrize('tokens', [1, 50, blocked.TOKENS])
@pytest.mark.parametrize('size', [(1, 50, 70), (3, 47, 33), (2, 5, 3), (1, 4, 4)])
@pytest.mark.parametrize('version', VERSIONS)
def test_embedding_and_merging_in_bands(
    version: str, size: tuple[int, ...], tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocked, 'TOKENS', tokens)
    model = backbone_of(version)
    batch, height, width = size
    image = torch.randn(batch, 3, height, width, dtype=torch.float64)
    x = torch.randn(batch, height, width, 8, dtype=torch.float64)
    for layer, inputs in ((model.patch_embed, image), (model.layers[0].downsample, x)):
        with mock.patch.object(blocked, 'bands', side_effect=blocked.bands) as bands:
            result = layer(inputs)
        assert bands.called
        with plain_path():
            assert relative_difference(result, layer(inputs)) <= 1e-12


@torch.no_grad()
def test_a_hook_inside_the_embedding_sees_the_whole_image():
    model, image = backbone_of('v1'), torch.randn(1, 3, 50, 70, dtype=torch.float64)
    seen = []
    model.patch_embed.norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output.shape))
    model(image)
    assert seen == [(1, 13, 18, 8)]


def test_bands():
    for batch, height, width, stride, tokens in ((1, 40, 28, 4, 14), (2, 41, 28, 4, 14), (1, 7, 400, 2, 100)):
        x = torch.arange(batch * height * width).view(batch, height, width, 1)
        with mock.patch.object(blocked, 'TOKENS', tokens):
            parts = blocked.bands(x, 1, stride)
        assert torch.equal(torch.cat(parts, 1), x)
        rows = max(1, tokens // (batch * width // stride))
        assert {part.size(1) for part in parts[:-1]} == {rows * stride}


class Adapted(nn.Linear):
    """A low-rank adapter in the manner of LoRA: the layer's own weight plus a trained product."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.load_state_dict(layer.state_dict())
        self.down, self.up = nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.up(self.down(x))


class Wrapped(nn.Module):
    """The same around the layer."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer, self.adapted = layer, Adapted(layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.adapted(x)


@torch.no_grad()
@pytest.mark.parametrize('adapter', [Adapted, Wrapped])
@pytest.mark.parametrize(
    ('version', 'name'),
    [(version, name) for version in VERSIONS for name in ('attn.proj', 'mlp.fc1', 'mlp.fc2')]
    + [('v1', 'attn.qkv')],
)
def test_adapters_count(version: str, name: str, adapter: type):
    model, image = backbone_of(version), torch.randn(1, 3, 50, 70, dtype=torch.float64)
    without = model(image)[1]
    block = model.layers[1].blocks[1]
    block.set_submodule(name, adapter(block.get_submodule(name)).double())
    result = model(image)[1]
    with plain_path():
        assert relative_difference(result, model(image)[1]) <= 1e-12
    assert relative_difference(result, without) > 1e-3
