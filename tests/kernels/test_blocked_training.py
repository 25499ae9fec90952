"""The blocks with a backward pass of their own equal the plain ones, gradients included, and keep less."""

from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import pytest
import torch
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from swin_dense.kernels import blocked, blocked_training
from swin_dense.models import SwinTransformer, fused
from tests.kernels.blocks import BLOCKS, DIM, block_of, plain_path, relative_difference
from tests.references.swin_weights import TINY, random_swin

SMALL = dict(embed_dims=8, depths=(2, 2), num_heads=(2, 2), out_indices=(0, 1), window_size=4)


def spy() -> mock.Mock:
    """Computes what ``blocked_training.block`` computes and counts its calls."""
    return mock.patch.object(blocked_training, 'block', side_effect=blocked_training.block)


def map_of(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, height, width, DIM, dtype=torch.float64, requires_grad=True)


def run(block: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output, and the gradients of x and of every trained parameter, by name."""
    torch.manual_seed(3)
    output = block(x)
    named = {name: parameter for name, parameter in block.named_parameters() if parameter.requires_grad}
    if x.requires_grad:
        named['x'] = x
    cotangent = torch.randn(output.shape, dtype=output.dtype)
    gradients = torch.autograd.grad(output, list(named.values()), cotangent)
    return {'output': output.detach(), **dict(zip(named, gradients, strict=True))}


def assert_equals_plain(block: nn.Module, x: Tensor) -> None:
    with spy() as forward:
        results = run(block, x)
    assert forward.called
    with plain_path():
        expected = run(block, x)
    assert set(results) == set(expected)
    for name, value in expected.items():
        assert relative_difference(results[name], value) <= 1e-11, name


IN_EVALUATION = ((2, 9, 5), dict(window=2, drop=0.4, attn_drop=0.4))


@pytest.mark.parametrize('tokens', [1, 50, blocked.TOKENS])
@pytest.mark.parametrize(('size', 'arguments'), [*BLOCKS, IN_EVALUATION])
def test_equals_the_plain_block(
    size: tuple[int, ...], arguments: dict, tokens: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(blocked, 'TOKENS', tokens)
    assert_equals_plain(block_of('v1', **arguments), map_of(*size))


@pytest.mark.parametrize('tokens', [1, 50, blocked.TOKENS])
@pytest.mark.parametrize('drop_path', [0.0, 0.2, 0.7])
@pytest.mark.parametrize('qkv_bias', [True, False])
def test_stochastic_depth(qkv_bias: bool, drop_path: float, tokens: int, monkeypatch: pytest.MonkeyPatch):
    """The random numbers are the plain block's, so the same samples skip the same branches."""
    monkeypatch.setattr(blocked, 'TOKENS', tokens)
    block = block_of('v1', drop_path=drop_path, qkv_bias=qkv_bias)
    assert_equals_plain(block.train(), map_of(6, 9, 5))


def test_all_branches_dropped():
    block, x = block_of('v1', drop_path=1.0).train(), map_of(2, 9, 5)
    output = block(x)
    assert torch.equal(output, x)
    gradient, *others = torch.autograd.grad(output.sum(), [x, *block.parameters()])
    assert torch.equal(gradient, torch.ones_like(x))
    assert not any(other.any() for other in others)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch):
    """Against finite differences, in every parameter and the map."""
    monkeypatch.setattr(blocked, 'TOKENS', 5)
    block = block_of('v1', window=2)
    names = [name for name, _ in block.named_parameters()]

    def outputs(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    with spy() as forward:
        assert torch.autograd.gradcheck(outputs, (map_of(2, 3, 2), *block.parameters()), fast_mode=True)
    assert forward.called


def test_strided_maps_and_cotangents():
    block = block_of('v1')
    x = torch.randn(2, DIM, 16, 24, dtype=torch.float64).permute(0, 2, 3, 1).requires_grad_()
    assert_equals_plain(block, x)
    with_sum = torch.autograd.grad(block(x).sum(), x)[0]  # its cotangent is one number, expanded
    with plain_path():
        assert relative_difference(with_sum, torch.autograd.grad(block(x).sum(), x)[0]) <= 1e-11


@pytest.mark.parametrize('frozen', ['attn', 'attn.qkv', 'norm1', 'mlp', 'norm2'])
def test_frozen_parameters_get_no_gradient(frozen: str):
    block, x = block_of('v1'), map_of(1, 9, 16)
    block.get_submodule(frozen).requires_grad_(False)
    assert_equals_plain(block, x.detach())
    block(x.detach()).square().sum().backward()
    for name, parameter in block.named_parameters():
        assert (parameter.grad is None) is name.startswith(f'{frozen}.'), name
    assert x.grad is None


def test_only_the_map_or_only_the_bias_table_needs_a_gradient():
    block, x = block_of('v1').requires_grad_(False), map_of(1, 9, 16)
    assert_equals_plain(block, x)
    block.attn.relative_position_bias_table.requires_grad_()
    assert_equals_plain(block, x.detach())


@pytest.mark.parametrize('training', [False, True])
def test_nothing_needs_a_gradient(training: bool):
    block, x = block_of('v1').requires_grad_(False).train(training), map_of(1, 9, 16).detach()
    assert not fused.suits_training(block, x)
    assert not block(x).requires_grad


def test_frozen_stages():
    """Those keep nothing, and the rest get the plain path's gradients."""
    model, image = backbone_of(frozen_stages=1), torch.randn(2, 3, 50, 70, dtype=torch.float64)

    def gradients() -> list[Tensor]:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.autograd.grad(model(image)[1].square().sum(), trained)

    with spy() as forward:
        computed = gradients()
    assert forward.call_count == 2
    with plain_path():
        for ours, theirs in zip(computed, gradients(), strict=True):
            assert relative_difference(ours, theirs) <= 1e-11


def test_dropout_takes_the_plain_path_in_training_only():
    x = map_of(2, 9, 16)
    for arguments in (dict(drop=0.3), dict(attn_drop=0.3)):
        block = block_of('v1', **arguments)
        with spy() as forward:
            once, twice = block.train()(x), block(x)
        assert not forward.called
        assert not torch.allclose(once, twice)
        assert_equals_plain(block.eval(), x)


@pytest.mark.parametrize('part', ['attn', 'attn.qkv', 'mlp.fc2', 'norm1', 'drop_path'])
def test_hooks_and_autocast_take_the_plain_path(part: str):
    block, x = block_of('v1').float(), torch.randn(1, 9, 16, DIM)
    assert fused.suits_training(block, x)
    hook = block.get_submodule(part).register_forward_hook(lambda *_: None)
    assert not fused.suits_training(block, x)
    hook.remove()
    assert fused.suits_training(block, x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert not fused.suits_training(block, x)
    with torch.no_grad():
        assert not fused.suits_training(block, x)
    assert not fused.suits_training(block_of('v2').float(), x)
    assert not fused.suits_training(block.bfloat16(), x.bfloat16())


@pytest.mark.parametrize('part', ['attn', 'norm2', 'mlp.fc1'])
def test_backward_hooks_fire(part: str):
    block, calls = block_of('v1'), []
    block.get_submodule(part).register_full_backward_hook(lambda *_: calls.append(1))
    block(map_of(1, 9, 16)).sum().backward()
    assert calls


def test_eps_of_the_norms():
    block, x = block_of('v1'), map_of(1, 9, 16)
    block.norm1.eps = block.norm2.eps = 0.1
    result = block(x)
    with plain_path():
        assert relative_difference(result, block(x)) <= 1e-11


def backbone_of(**arguments: object) -> SwinTransformer:
    return random_swin(**{**SMALL, **arguments}).train()


def gradients_of(model: SwinTransformer, image: Tensor) -> dict[str, Tensor]:
    """The maps and every gradient, the image's too, of a backward pass that adds to .grad."""
    torch.manual_seed(3)
    image = image.clone().requires_grad_()
    maps = model(image)
    torch.autograd.backward(maps, [torch.ones_like(x).cumsum(1) for x in maps])
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return {**gradients, 'image': image.grad, **{f'map {i}': x.detach() for i, x in enumerate(maps)}}


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_changes_nothing(drop_path_rate: float):
    image = torch.randn(3, 3, 50, 70, dtype=torch.float64)
    with spy() as forward:
        stored = gradients_of(backbone_of(drop_path_rate=drop_path_rate), image)
        assert forward.call_count == 4
        recomputed = gradients_of(backbone_of(drop_path_rate=drop_path_rate, with_cp=True), image)
        assert forward.call_count == 12
    for name, value in stored.items():
        assert torch.equal(recomputed[name], value), name


def test_saliency():
    """The image's gradient in evaluation mode, with and without gradients of the weights."""
    model, image = backbone_of(drop_path_rate=0.5, drop_rate=0.5).eval(), torch.randn(1, 3, 50, 70).double()
    image.requires_grad_()

    def saliency() -> Tensor:
        return torch.autograd.grad(model(image)[-1].square().sum(), image)[0]

    with plain_path():
        expected = saliency()
    for trained in (True, False):
        model.requires_grad_(trained)
        with spy() as forward:
            assert relative_difference(saliency(), expected) <= 1e-11
        assert forward.call_count == 4


def test_gradients_accumulate():
    model, images = backbone_of(), torch.randn(2, 1, 3, 33, 47, dtype=torch.float64)
    for image in images:
        accumulated = gradients_of(model, image)
    with plain_path():
        model.zero_grad()
        for image in images:
            expected = gradients_of(model, image)
    for name, value in expected.items():
        assert relative_difference(accumulated[name], value) <= 1e-11, name


def test_the_cotangent_stays_as_it_is():
    output = block_of('v1', shifted=False)(map_of(1, 7, 14))  # one group of one piece: views of the map
    cotangent = torch.randn_like(output)
    before = cotangent.clone()
    output.backward(cotangent)
    assert torch.equal(cotangent, before)


def test_a_kept_graph_gives_the_same_gradients_twice():
    block, x = block_of('v1', drop_path=0.5).train(), map_of(4, 9, 16)
    output = block(x).square().sum()
    inputs = [x, *block.parameters()]
    once = torch.autograd.grad(output, inputs, retain_graph=True)
    for first, second in zip(once, torch.autograd.grad(output, inputs), strict=True):
        assert torch.equal(first, second)


def test_a_freed_graph_says_so():
    output = block_of('v1')(map_of(1, 9, 16)).sum()
    output.backward()
    with pytest.raises(RuntimeError, match='backward through the graph a second time'):
        output.backward()


def test_second_derivatives_say_so():
    x = map_of(1, 9, 16)
    gradient = torch.autograd.grad(block_of('v1')(x).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


def test_a_map_changed_after_the_forward_pass_is_noticed():
    x = map_of(1, 9, 16) * 1
    output = block_of('v1')(x)
    x.add_(1)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        output.sum().backward()


def kept(model: nn.Module, image: Tensor, path: Callable = nullcontext) -> int:
    """Bytes that the graph keeps for the backward pass, each memory once, the model's own left out."""
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    storages = {}

    def pack(x: Tensor) -> Tensor:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with path(), saved_tensors_hooks(pack, lambda x: x):
        graph = model(image)
    assert all(x.requires_grad for x in graph)  # and alive, so that no address was used twice
    return sum(size for address, size in storages.items() if address not in own)


def test_keeps_less_than_mmdet_for_the_backward_pass():
    image = torch.randn(2, 3, 224, 224)
    arguments = dict(TINY, drop_path_rate=0.0)
    ours, theirs = (kept(model(**arguments), image) for model in (SwinTransformer, MMDetSwin))
    plain = kept(SwinTransformer(**arguments), image, plain_path)
    print(f'\nSwin-T keeps {ours / 2**20:.0f} MiB, plain {plain / 2**20:.0f}, mmdet {theirs / 2**20:.0f}')
    assert ours <= 0.6 * theirs
    assert ours <= 0.75 * plain
