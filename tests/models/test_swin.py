import subprocess
import sys
from itertools import pairwise

import mmdet.registry
import mmseg.registry
import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from torchvision.ops import StochasticDepth

from swin_dense.models import SwinTransformer
from tests.references.swin_weights import randomise

SMALL = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), drop_path_rate=0.0)
SUBSETS = [(0, 1, 2, 3), (0,), (1, 3), (2,), (0, 2), (3,)]


def small(**kwargs: object) -> SwinTransformer:
    model = SwinTransformer(**{**SMALL, **kwargs})
    randomise(model)
    return model


def ceil_divide(size: int, stride: int) -> int:
    return -(-size // stride)


@pytest.mark.parametrize('window', [4, 7])
@pytest.mark.parametrize('size', [(1, 1), (1, 90), (3, 5), (33, 47), (64, 64), (100, 31)])
def test_shapes(size: tuple[int, int], window: int):
    maps = small(window_size=window)(torch.randn(2, 3, *size))
    assert isinstance(maps, tuple)
    for i, x in enumerate(maps):
        # stage by stage, each rounds up: the same as once for the whole stride
        expected = [ceil_divide(side, 4 * 2**i) for side in size]
        assert list(x.shape) == [2, 16 * 2**i, *expected]
        assert torch.isfinite(x).all()


def test_other_image_channels():
    maps = small(in_channels=5)(torch.randn(1, 5, 40, 50))
    assert [tuple(x.shape) for x in maps] == [(1, 16, 10, 13), (1, 32, 5, 7), (1, 64, 3, 4), (1, 128, 2, 2)]


@pytest.mark.parametrize('out_indices', SUBSETS)
def test_out_indices(out_indices: tuple[int, ...]):
    full = small().eval()
    model = small(out_indices=out_indices).eval()
    assert model.out_channels == [16 * 2**i for i in out_indices]
    assert len(model.layers) == out_indices[-1] + 1
    assert model.layers[-1].downsample is None
    missing = model.load_state_dict(full.state_dict(), strict=False).missing_keys
    assert not missing
    image = torch.randn(1, 3, 70, 90)
    with torch.no_grad():
        expected = full(image)
        for i, x in zip(out_indices, model(image), strict=True):
            assert torch.equal(x, expected[i])


def test_images_of_a_batch_do_not_meet():
    model = small().double().eval()
    images = torch.randn(3, 3, 45, 70, dtype=torch.float64)
    with torch.no_grad():
        together = model(images)
        alone = [model(image[None]) for image in images]
    for i, x in enumerate(together):
        torch.testing.assert_close(x, torch.cat([maps[i] for maps in alone]), rtol=0, atol=1e-12)


def frozen_names(model: SwinTransformer) -> set[str]:
    return {name for name, parameter in model.named_parameters() if not parameter.requires_grad}


FROZEN = [
    (frozen, out_indices)
    for out_indices in SUBSETS
    for frozen in range(-1, 5)
    if frozen <= out_indices[-1] + 1
]


@pytest.mark.parametrize(('frozen', 'out_indices'), FROZEN)
def test_frozen_stages(frozen: int, out_indices: tuple[int, ...]):
    model = small(frozen_stages=frozen, out_indices=out_indices, use_abs_pos_embed=True, pretrain_img_size=64)
    prefixes = ['patch_embed.', 'absolute_pos_embed'] if frozen >= 0 else []
    prefixes += [f'{name}{i}.' for i in range(frozen) for name in ('layers.', 'norm')]
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(prefixes))}
    assert frozen_names(model) == expected, 'before the first train()'

    assert model.train() is model
    assert frozen_names(model) == expected
    for name, module in model.named_modules():
        if name:
            frozen_module = f'{name}.'.startswith(tuple(prefixes)) or (frozen >= 0 and name == 'pos_drop')
            assert module.training is not frozen_module, name
    assert model.eval() is model
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
@pytest.mark.parametrize(('frozen', 'out_indices'), FROZEN)
def test_every_trained_parameter_gets_a_gradient(frozen: int, out_indices: tuple[int, ...], with_cp: bool):
    """DistributedDataParallel waits for ever for a parameter that gets none."""
    model = small(
        frozen_stages=frozen,
        out_indices=out_indices,
        use_abs_pos_embed=True,
        pretrain_img_size=64,
        with_cp=with_cp,
    ).train()
    maps = model(torch.randn(1, 3, 64, 80))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        assert frozen == out_indices[-1] + 1
        assert not any(x.requires_grad for x in maps)
        return
    sum((x * torch.randn_like(x)).sum() for x in maps if x.requires_grad).backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained
    zero = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.any()]
    assert not zero


def gradients(model: SwinTransformer, image: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    maps = model(image)
    torch.autograd.backward(maps, [torch.ones_like(x).cumsum(1) for x in maps])
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_checkpointing_changes_no_gradient_under_dropout_and_stochastic_depth():
    arguments = dict(drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2)
    image = torch.randn(3, 3, 50, 70)
    stored, recomputed = (
        gradients(small(with_cp=with_cp, **arguments).train(), image) for with_cp in (False, True)
    )
    for name, gradient in stored.items():
        torch.testing.assert_close(recomputed[name], gradient, msg=name)


def drop_paths(model: SwinTransformer) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, StochasticDepth)]


def test_drop_path_rises_linearly_over_the_blocks():
    model = SwinTransformer(embed_dims=12, depths=(2, 2, 6, 2), num_heads=(1, 1, 1, 1), drop_path_rate=0.22)
    rates = drop_paths(model)
    assert rates == pytest.approx([0.02 * i for i in range(12)])
    assert all(low < high for low, high in pairwise(rates))
    first = SwinTransformer(12, (2, 2, 6, 2), (1, 1, 1, 1), drop_path_rate=0.22, out_indices=(0, 1))
    assert drop_paths(first) == rates[:4]


def test_stochastic_depth_drops_whole_samples_in_training_only():
    model = small(drop_path_rate=0.9)
    image = torch.randn(1, 3, 40, 40).expand(16, -1, -1, -1)
    with torch.no_grad():
        evaluated = model.eval()(image)[-1]
        trained = model.train()(image)[-1]
    assert torch.allclose(evaluated, evaluated[:1], atol=1e-5)
    assert not torch.allclose(trained, trained[:1], atol=1e-2)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(depths=(2, 2, 6)), 'one entry for each stage'),
        (dict(out_indices=()), 'must rise from 0'),
        (dict(out_indices=(2, 1)), 'must rise from 0'),
        (dict(out_indices=(1, 1)), 'must rise from 0'),
        (dict(out_indices=(-1, 0)), 'must rise from 0'),
        (dict(out_indices=(0, 4)), 'beyond the 4 in depths'),
        (dict(frozen_stages=-2), 'must lie between -1 and 4'),
        (dict(frozen_stages=5), 'must lie between -1 and 4'),
        (dict(frozen_stages=3, out_indices=(0, 1)), 'must lie between -1 and 2'),
        (dict(num_heads=(3, 6, 12, 24)), 'num_heads=3 does not divide the 16 channels'),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SwinTransformer(**{**SMALL, **arguments})


MICROSOFT_NAMES = [
    'patch_embed.proj.weight',
    'patch_embed.proj.bias',
    'patch_embed.norm.weight',
    'patch_embed.norm.bias',
    'layers.0.blocks.0.norm1.weight',
    'layers.0.blocks.0.norm1.bias',
    'layers.0.blocks.0.attn.relative_position_bias_table',
    'layers.0.blocks.0.attn.qkv.weight',
    'layers.0.blocks.0.attn.qkv.bias',
    'layers.0.blocks.0.attn.proj.weight',
    'layers.0.blocks.0.attn.proj.bias',
    'layers.0.blocks.0.norm2.weight',
    'layers.0.blocks.0.norm2.bias',
    'layers.0.blocks.0.mlp.fc1.weight',
    'layers.0.blocks.0.mlp.fc1.bias',
    'layers.0.blocks.0.mlp.fc2.weight',
    'layers.0.blocks.0.mlp.fc2.bias',
    'layers.0.downsample.reduction.weight',
    'layers.0.downsample.norm.weight',
    'layers.0.downsample.norm.bias',
    'layers.2.blocks.5.attn.qkv.weight',
    'layers.3.blocks.1.mlp.fc2.bias',
    'norm0.weight',
    'norm0.bias',
    'norm1.weight',
    'norm1.bias',
    'norm2.weight',
    'norm2.bias',
    'norm3.weight',
    'norm3.bias',
]


def test_state_dict_has_microsofts_names_and_nothing_derived():
    weights = SwinTransformer().state_dict()
    assert set(MICROSOFT_NAMES) <= set(weights)
    # 4 of the stem, 13 for each of 12 blocks, 3 for each of 3 mergings, 8 of the output norms
    assert len(weights) == 4 + 13 * 12 + 3 * 3 + 8
    assert set(weights) == {name for name, _ in SwinTransformer().named_parameters()}
    assert weights['layers.0.blocks.0.attn.relative_position_bias_table'].shape == (169, 3)
    assert weights['layers.0.downsample.reduction.weight'].shape == (192, 384)


def test_swin_t_has_the_papers_size():
    weights = SwinTransformer().state_dict()
    backbone = sum(value.numel() for key, value in weights.items() if not key.startswith('norm'))
    # 28,288,354 of the classifier, less its norm (1,536) and its head (769,000)
    assert backbone == 28_288_354 - 1_536 - 769_000


@pytest.mark.parametrize('size', [(64, 64), (40, 100), (200, 30), (1, 1), (63, 61)])
def test_absolute_position_embedding_fits_any_size(size: tuple[int, int]):
    model = small(use_abs_pos_embed=True, pretrain_img_size=64)
    assert model.absolute_pos_embed.shape == (1, 16, 16, 16)
    maps = model(torch.randn(2, 3, *size))
    assert maps[0].shape[2:] == tuple(ceil_divide(side, 4) for side in size)
    maps[-1].square().sum().backward()
    assert torch.isfinite(model.absolute_pos_embed.grad).all()
    assert model.absolute_pos_embed.grad.any()


def test_absolute_position_embedding_is_resized_not_cropped():
    """A constant embedding stays that constant at every size."""
    model, without = small(use_abs_pos_embed=True, pretrain_img_size=64), small()
    without.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        model.absolute_pos_embed.fill_(0.7)
        without.patch_embed.norm.bias += 0.7
        image = torch.randn(1, 3, 90, 50)
        for x, y in zip(model(image), without(image), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
def test_bfloat16_autocast(with_cp: bool):
    model = small(drop_path_rate=0.1, with_cp=with_cp, use_abs_pos_embed=True, pretrain_img_size=64).train()
    image = torch.randn(2, 3, 75, 50)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        maps = model(image)
        loss = sum(x.float().square().mean() for x in maps)
    loss.backward()
    assert all(torch.isfinite(x).all() for x in maps)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_bfloat16_autocast_is_close_to_float32():
    model = small().eval()
    image = torch.randn(1, 3, 75, 50)
    with torch.no_grad():
        exact = model(image)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rough = model(image)
    for x, y in zip(exact, rough, strict=True):
        assert (x - y.float()).abs().mean() < 0.05 * x.abs().mean()


def test_bfloat16_weights():
    maps = small().bfloat16().eval()(torch.randn(1, 3, 75, 50).bfloat16())
    assert all(x.dtype == torch.bfloat16 and torch.isfinite(x).all() for x in maps)


def test_what_is_cached_serves_its_own_dtype_and_device_only():
    image = torch.randn(1, 3, 75, 50, dtype=torch.float64)
    model = small().eval()
    with torch.no_grad():
        single = model(image.float())
        double = model.double()(image)
        again = model.float()(image.float())
        meta = model.to('meta')(image.float().to('meta'))
        fresh = small().double().eval()(image)
    for i in range(4):
        assert single[i].dtype == torch.float32
        assert double[i].dtype == torch.float64
        assert torch.equal(again[i], single[i])
        assert torch.equal(fresh[i], double[i])
        assert meta[i].is_meta
        assert meta[i].shape == single[i].shape
        torch.testing.assert_close(single[i].double(), double[i], rtol=1e-4, atol=1e-4)


def test_what_is_cached_follows_new_weights():
    """Evaluate, change the weights in every way that training does, evaluate: no stale result."""
    image = torch.randn(1, 3, 75, 50)
    model, other = small().eval(), small()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
        expected = other.eval()(image)
        before = model(image)
        model.load_state_dict(other.state_dict())
        loaded = model(image)
        for parameter in model.parameters():
            parameter.mul_(2)
        in_place = model(image)
        for parameter in model.parameters():
            parameter.data = parameter.data * 0.5
        replaced = model(image)
    for i in range(4):
        assert torch.equal(loaded[i], expected[i])
        assert torch.equal(in_place[i], before[i])
        assert torch.equal(replaced[i], expected[i])


def test_inference_mode_first_and_training_later():
    """Tensors made in inference mode cannot serve autograd: none of them may stay in a cache."""
    model = small(window_size=5)  # a size that no other test has cached
    image = torch.randn(1, 3, 75, 50)
    with torch.inference_mode():
        model.eval()(image)
    sum(x.sum() for x in model.train()(image)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('channels_last', [False, True])
def test_layout_of_the_maps(training: bool, channels_last: bool):
    model = small().train(training)
    model.channels_last = channels_last
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for x in model(torch.randn(2, 3, 75, 90)):
        assert x.is_contiguous(memory_format=layout)


def test_channels_last_and_strided_images():
    model = small().eval()
    image = torch.randn(2, 3, 75, 90)
    views = [
        image.contiguous(memory_format=torch.channels_last),
        torch.cat([image, image], dim=3)[..., :90],
    ]
    with torch.no_grad():
        expected = model(image)
        for view in views:
            for x, y in zip(model(view), expected, strict=True):
                torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_builds_through_both_hosts(host: str, scope: str):
    registry = {'mmdet': mmdet.registry.MODELS, 'mmseg': mmseg.registry.MODELS}[host]
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.build(dict(type='swin_dense.SwinTransformer', **SMALL))
    assert type(model) is SwinTransformer
    assert registry.get('SwinTransformer') is not SwinTransformer, 'the host keeps its own'


def test_a_config_needs_no_import_of_ours():
    """In a fresh process the type's scope alone finds and registers the model."""
    script = """
from swin_dense import hosts
hosts.prepare()
import sys, mmdet.registry, mmseg.registry
from mmengine.registry import init_default_scope
assert 'swin_dense.models' not in sys.modules
for host in (mmdet, mmseg):
    init_default_scope(host.__name__)
    model = host.registry.MODELS.build(dict(
        type='swin_dense.SwinTransformer', embed_dims=8, depths=(1,), num_heads=(1,), out_indices=(0,)))
    print(type(model).__module__)
"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ['swin_dense.models.swin'] * 2
