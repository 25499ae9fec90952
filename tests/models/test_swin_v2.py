"""What v2 adds to v1; that it computes what others compute is in ``tests/references``."""

import math

import mmdet.registry
import mmseg.registry
import pytest
import torch
from torch import Tensor, nn

from swin_dense.kernels.windows import log_coordinates
from swin_dense.models import SwinTransformer, SwinTransformerV2
from swin_dense.models.attention import WindowAttentionV2, _unit
from swin_dense.models.swin_v2 import PatchMergingV2, SwinBlockV2
from tests.references.swin_weights import randomise

CPU = torch.device('cpu')
SMALL = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), drop_path_rate=0.0)


def small(**kwargs: object) -> SwinTransformerV2:
    model = SwinTransformerV2(**{**SMALL, **kwargs})
    randomise(model)
    return model


def blocks_of(model: SwinTransformer) -> list[list[nn.Module]]:
    return [list(stage.blocks) for stage in model.layers]


@pytest.mark.parametrize('window', [8, 3, (8, 4, 2, 1)])
@pytest.mark.parametrize('size', [(1, 1), (1, 90), (3, 5), (33, 47), (64, 64), (100, 31)])
def test_shapes(size: tuple[int, int], window: int | tuple[int, ...]):
    maps = small(window_size=window)(torch.randn(2, 3, *size))
    assert isinstance(maps, tuple)
    for i, x in enumerate(maps):
        assert list(x.shape) == [2, 16 * 2**i, *(math.ceil(side / (4 * 2**i)) for side in size)]
        assert torch.isfinite(x).all()
        assert x.is_contiguous()


@pytest.mark.parametrize('network', [SwinTransformer, SwinTransformerV2])
def test_window_of_each_stage(network: type[SwinTransformer]):
    model = network(**SMALL, window_size=[8, 5, 2, 1])
    for blocks, window, shift in zip(blocks_of(model), (8, 5, 2, 1), (4, 2, 1, 0), strict=True):
        assert [block.window_size for block in blocks] == [window] * 2
        assert [block.attn.window_size for block in blocks] == [window] * 2
        assert [block.shift for block in blocks] == [0, shift]
    same = network(**SMALL, window_size=[4] * 4)
    one = network(**SMALL, window_size=4)
    one.load_state_dict(same.state_dict())
    image = torch.randn(1, 3, 50, 70)
    assert all(torch.equal(x, y) for x, y in zip(same(image), one(image), strict=True))


def test_window_of_8_unless_another_is_asked_for():
    assert {block.window_size for blocks in blocks_of(SwinTransformerV2(**SMALL)) for block in blocks} == {8}
    assert {block.window_size for blocks in blocks_of(SwinTransformer(**SMALL)) for block in blocks} == {7}


@pytest.mark.parametrize('window', [1, 2, 3, 7, 8, 12])
@pytest.mark.parametrize('pretrained', [1, 2, 8, 16])
def test_coordinates(window: int, pretrained: int):
    expected = []
    for dy in range(-window + 1, window):
        for dx in range(-window + 1, window):
            pair = []
            for offset in (dy, dx):
                size = abs(offset) / (pretrained - 1 if pretrained > 1 else 1)
                sign = (offset > 0) - (offset < 0)
                pair.append(sign * math.log2(1 + 8 * size) / math.log2(8))
            expected.append(pair)
    coordinates = log_coordinates(window, pretrained, CPU, torch.float64)
    torch.testing.assert_close(coordinates, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)
    for dtype in (torch.float32, torch.bfloat16):
        assert log_coordinates(window, pretrained, CPU, dtype).equal(coordinates.to(dtype))


def test_pretrained_windows_keep_the_coordinates_of_the_pretraining():
    """An offset looks to the MLP as it did in the pretraining; larger ones go little beyond 1 (eq. 4)."""
    small_window = log_coordinates(8, 8, CPU, torch.float64).view(15, 15, 2)
    kept = log_coordinates(16, 8, CPU, torch.float64).view(31, 31, 2)
    own = log_coordinates(16, 16, CPU, torch.float64).view(31, 31, 2)
    assert kept[8:-8, 8:-8].equal(small_window)
    assert small_window.max() == own.max() == math.log2(9) / 3
    assert small_window.max() < kept.max() < 1.5

    model = small(window_size=16, pretrained_window_sizes=(8, 12, 0, 16))
    assert [blocks[1].attn.pretrained_window for blocks in blocks_of(model)] == [8, 12, 16, 16]
    original = small(window_size=8)
    attn, before = model.layers[0].blocks[0].attn, original.layers[0].blocks[0].attn
    attn.load_state_dict(before.state_dict())
    # query (3, 5) and key (7, 1) of a window
    bias = attn.position_bias()[:, 3 * 16 + 5, 7 * 16 + 1]
    torch.testing.assert_close(bias, before.position_bias()[:, 3 * 8 + 5, 7 * 8 + 1])


def test_attention_sees_directions_and_not_lengths():
    attn = WindowAttentionV2(16, 4, 2).double()
    randomise(attn)
    nn.init.zeros_(attn.q_bias)
    x = torch.randn(3, 16, 16, dtype=torch.float64)
    bias = attn.position_bias().unsqueeze(0)
    before = attn(x, bias)
    with torch.no_grad():
        attn.qkv.weight[:16] *= 30  # q
        attn.qkv.weight[16:32] *= 0.01  # k
    torch.testing.assert_close(attn(x, bias), before)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_unit_vectors(dtype: torch.dtype):
    x = torch.randn(5, 7).to(dtype)
    x[2] = 0
    x.requires_grad_()
    unit = _unit(x)
    assert unit.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(unit.norm(dim=1), unit.new_tensor([1, 1, 0, 1, 1]))
    torch.testing.assert_close(unit.detach(), nn.functional.normalize(x.detach().to(unit.dtype), dim=1))
    unit.backward(1000 * torch.ones_like(unit))
    assert torch.isfinite(x.grad).all()


def test_the_scale_stops_at_100():
    attn = WindowAttentionV2(16, 4, 2)
    randomise(attn)
    x, bias = torch.randn(3, 16, 16), attn.position_bias().unsqueeze(0)
    outputs = []
    for value in (math.log(50), math.log(100), 5, 50):
        nn.init.constant_(attn.logit_scale, value)
        outputs.append(attn(x, bias))
    assert not torch.allclose(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[1], outputs[2])
    assert outputs[2].equal(outputs[3])


def test_a_new_network():
    """Microsoft's initial values: every block is the identity, tau is 0.1, nothing has a bias."""
    model = SwinTransformerV2(**SMALL, extra_norm_every=2)
    for name, value in model.state_dict().items():
        if name.endswith('logit_scale'):
            torch.testing.assert_close(value, torch.full_like(value, math.log(10)))
            assert value.dim() == 3
            assert value.shape[1:] == (1, 1)
        elif '.norm1.' in name or '.norm2.' in name or (name.endswith('bias') and 'embed' not in name):
            assert not value.any(), name
        elif 'norm' in name and name.endswith('weight'):
            assert (value == 1).all(), name
        elif not name.startswith('patch_embed.'):
            assert value.abs().max() <= 2, name
            assert 0.015 < value.std() < 0.025, name
    x = torch.randn(2, 9, 10, 16)
    assert model.layers[0].blocks[0](x).equal(x)
    assert SwinTransformerV2(**SMALL).layers[0](x).equal(x)


def test_state_dict_has_microsofts_names_and_nothing_derived():
    model = SwinTransformerV2()
    weights = model.state_dict()
    block = [
        'attn.logit_scale',
        'attn.q_bias',
        'attn.v_bias',
        'attn.cpb_mlp.0.weight',
        'attn.cpb_mlp.0.bias',
        'attn.cpb_mlp.2.weight',
        'attn.qkv.weight',
        'attn.proj.weight',
        'attn.proj.bias',
        'norm1.weight',
        'norm1.bias',
        'norm2.weight',
        'norm2.bias',
        'mlp.fc1.weight',
        'mlp.fc1.bias',
        'mlp.fc2.weight',
        'mlp.fc2.bias',
    ]
    expected = {
        f'layers.{i}.blocks.{j}.{k}' for i, n in enumerate((2, 2, 6, 2)) for j in range(n) for k in block
    }
    merging = ('reduction.weight', 'norm.weight', 'norm.bias')
    expected |= {f'layers.{i}.downsample.{name}' for i in range(3) for name in merging}
    expected |= {f'norm{i}.{kind}' for i in range(4) for kind in ('weight', 'bias')}
    expected |= {f'patch_embed.{part}.{kind}' for part in ('proj', 'norm') for kind in ('weight', 'bias')}
    assert set(weights) == expected == {name for name, _ in model.named_parameters()}
    assert weights['layers.1.blocks.0.attn.cpb_mlp.2.weight'].shape == (6, 512)
    assert weights['layers.1.downsample.reduction.weight'].shape == (384, 768)
    assert weights['layers.1.downsample.norm.weight'].shape == (384,)
    # torchvision's count without its norm, its head and the bias of k, which v2 takes for 0
    backbone = sum(value.numel() for key, value in weights.items() if not key.startswith('norm'))
    assert backbone == 28_351_570 - 1_536 - 769_000 - (2 * 96 + 2 * 192 + 6 * 384 + 2 * 768)


def test_extra_norms_end_every_nth_block_of_a_stage():
    model = SwinTransformerV2(8, (1, 2, 7, 2), (1, 1, 1, 1), extra_norm_every=3, window_size=2)
    assert [[isinstance(block.norm3, nn.LayerNorm) for block in blocks] for blocks in blocks_of(model)] == [
        [False],
        [False, False],
        [False, False, True, False, False, True, False],
        [False, False],
    ]
    x = model.layers[2].blocks[2](10 * torch.randn(1, 5, 5, 32))
    torch.testing.assert_close(x.mean(-1), torch.zeros(1, 5, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(-1, unbiased=False), torch.ones(1, 5, 5), rtol=0, atol=1e-3)
    assert not any('norm3.' in key for key in SwinTransformerV2(**SMALL).state_dict() if 'blocks' in key)


def test_extra_norms_of_frozen_stages_are_frozen():
    model = small(extra_norm_every=1, frozen_stages=2)
    for i, stage in enumerate(model.layers):
        assert all(parameter.requires_grad is (i >= 2) for parameter in stage.parameters())


def test_merging_norms_last():
    merging = PatchMergingV2(8)
    x = merging(100 * torch.randn(2, 5, 7, 8))
    assert x.shape == (2, 3, 4, 16)
    torch.testing.assert_close(x.std(-1, unbiased=False), torch.ones(2, 3, 4), rtol=0, atol=1e-3)


def test_stochastic_depth_leaves_a_sample_as_it_is():
    """The norm is inside the branch: what is dropped adds nothing, not even the norm's bias."""
    block = SwinBlockV2(16, WindowAttentionV2(16, 4, 2), True, 4.0, 0.0, 0.999999)
    randomise(block)
    x = torch.randn(2, 9, 10, 16)
    assert block.train()(x).equal(x)
    assert not torch.allclose(block.eval()(x), x)


def test_arguments_reach_the_blocks():
    model = small(drop_rate=0.1, attn_drop_rate=0.2, drop_path_rate=0.7, mlp_ratio=2, qkv_bias=False)
    blocks = [block for blocks in blocks_of(model) for block in blocks]
    assert [block.drop_path.p for block in blocks] == pytest.approx([0.1 * i for i in range(8)])
    for block in blocks:
        assert (block.attn.attn_drop, block.attn.proj_drop.p, block.mlp.drop.p) == (0.2, 0.1, 0.1)
        assert block.mlp.fc1.out_features == 2 * block.mlp.fc1.in_features
        assert block.attn.q_bias is None
        assert block.attn.v_bias is None


def test_dropout_in_training_only():
    x = torch.randn(3, 16, 16)
    without = WindowAttentionV2(16, 4, 2)
    randomise(without)
    bias = without.position_bias().unsqueeze(0)
    for attn in (WindowAttentionV2(16, 4, 2, attn_drop=0.5), WindowAttentionV2(16, 4, 2, proj_drop=0.5)):
        attn.load_state_dict(without.state_dict())
        assert attn.eval()(x, bias).equal(without(x, bias))
        assert not torch.allclose(attn.train()(x, bias), without(x, bias))


def gradients(model: SwinTransformerV2, image: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(5)
    maps = model(image)
    torch.autograd.backward(maps, [torch.ones_like(x).cumsum(1) for x in maps])
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_checkpointing_changes_no_gradient_under_dropout_and_stochastic_depth():
    arguments = dict(drop_path_rate=0.5, drop_rate=0.2, attn_drop_rate=0.2, extra_norm_every=2, window_size=4)
    image = torch.randn(3, 3, 50, 70)
    stored, recomputed = (gradients(small(with_cp=with_cp, **arguments), image) for with_cp in (False, True))
    for name, gradient in stored.items():
        assert recomputed[name].equal(gradient), name


FROZEN = [(-1, (0, 1, 2, 3)), (0, (0, 1, 2, 3)), (2, (0, 1, 2, 3)), (2, (1, 3)), (3, (2,))]


@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
@pytest.mark.parametrize(('frozen', 'out_indices'), FROZEN)
def test_frozen_stages(frozen: int, out_indices: tuple[int, ...], with_cp: bool):
    model = small(
        frozen_stages=frozen,
        out_indices=out_indices,
        with_cp=with_cp,
        extra_norm_every=2,
        use_abs_pos_embed=True,
        pretrain_img_size=64,
        window_size=4,
    ).train()
    prefixes = ['patch_embed.', 'absolute_pos_embed'] if frozen >= 0 else []
    prefixes += [f'{name}{i}.' for i in range(frozen) for name in ('layers.', 'norm')]
    trained = {name for name, _ in model.named_parameters() if not name.startswith(tuple(prefixes))}
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trained
    maps = [x for x in model(torch.randn(1, 3, 64, 80)) if x.requires_grad]
    if not trained:
        assert not maps
        return
    sum((x * torch.randn_like(x)).sum() for x in maps).backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == trained


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(window_size=0), r'window_size=\[0, 0, 0, 0\] must be 1 or more in each of the 4 stages'),
        (dict(window_size=(8, 8, 8)), 'must be 1 or more in each of the 4 stages'),
        (dict(window_size=(8, 8, 8, -1)), 'must be 1 or more in each of the 4 stages'),
        (dict(pretrained_window_sizes=(8, 8)), 'pretrained_window_sizes=.* must be 0 or more in each'),
        (dict(pretrained_window_sizes=(8, 8, 8, -8)), 'must be 0 or more in each of the 4 stages'),
        (dict(extra_norm_every=0), 'extra_norm_every=0 must be 1 or more, or None'),
        (dict(depths=(2, 2, 6)), 'one entry for each stage'),
        (dict(out_indices=(0, 4)), 'beyond the 4 in depths'),
        (dict(frozen_stages=5), 'must lie between -1 and 4'),
        (dict(num_heads=(3, 6, 12, 24)), 'num_heads=3 does not divide the 16 channels'),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SwinTransformerV2(**{**SMALL, **arguments})
    v1 = {
        key: value
        for key, value in arguments.items()
        if key not in ('pretrained_window_sizes', 'extra_norm_every')
    }
    if v1:
        with pytest.raises(ValueError, match=message):
            SwinTransformer(**{**SMALL, **v1})


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=['bfloat16', 'float16'])
@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
def test_autocast(with_cp: bool, dtype: torch.dtype):
    """Finite, and in half precision too: F.normalize's gradient of a pad's zero key is not."""
    model = small(drop_path_rate=0.1, with_cp=with_cp).train()
    with torch.autocast('cpu', dtype=dtype):
        maps = model(torch.randn(2, 3, 75, 50))
        loss = sum(x.float().square().mean() for x in maps)
    (loss * 2**8).backward()
    assert all(torch.isfinite(x).all() for x in maps)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_autocast_is_close_to_single_precision():
    model, image = small(), torch.randn(1, 3, 75, 50)
    exact = gradients(model, image)
    maps = model(image)
    model.zero_grad()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough_maps = model(image)
        rough = gradients(model, image)
    for x, y in zip(maps, rough_maps, strict=True):
        assert (x - y).abs().mean() < 0.05 * x.abs().mean()
    for name, gradient in exact.items():
        if not name.endswith('logit_scale'):  # a sum that nearly cancels: 0.4 here, and in mmpretrain
            assert (rough[name] - gradient).norm() < 0.5 * gradient.norm(), name


def test_position_bias_stays_in_single_precision_under_autocast():
    attn = WindowAttentionV2(16, 8, 2)
    randomise(attn)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        bias = attn.position_bias()
    assert bias.dtype == torch.float32
    torch.testing.assert_close(bias, attn.position_bias(), rtol=0, atol=0.1)


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
        assert double[i].dtype == torch.float64
        assert torch.equal(again[i], single[i])
        assert torch.equal(fresh[i], double[i])
        assert meta[i].is_meta
        torch.testing.assert_close(single[i].double(), double[i], rtol=1e-3, atol=1e-4)


def test_inference_mode_first_and_training_later():
    """Tensors made in inference mode cannot serve autograd: none of them may stay in a cache."""
    model = small(window_size=5, pretrained_window_sizes=(9, 9, 9, 9))  # sizes that no other test has cached
    image = torch.randn(1, 3, 75, 50)
    with torch.inference_mode():
        model.eval()(image)
    sum(x.sum() for x in model.train()(image)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize('host', [mmdet, mmseg], ids=['mmdet', 'mmseg'])
def test_builds_through_both_hosts(host: object):
    config = dict(type='swin_dense.SwinTransformerV2', **SMALL, window_size=[8, 8, 4, 2])
    assert type(host.registry.MODELS.build(config)) is SwinTransformerV2
