"""Every library's Swin: its file fills our backbone exactly, and our export its model."""

import importlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from swin_dense.checkpoints import files
from swin_dense.checkpoints.convert import TARGETS, export, open_swin, recognise
from swin_dense.models import SwinTransformer
from swin_dense.registry import MODELS
from tests.checkpoints import families as f
from tests.checkpoints import microsoft
from tests.checkpoints.families import Family, image

TOLERANCE = 1e-5
POSITION = dict(extra=dict(use_abs_pos_embed=True, pretrain_img_size=128), size=f.SQUARE)
MM_POSITION = dict(use_abs_pos_embed=True, pretrain_img_size=128)
TIMM = (f.timm_maps, 'timm, Swin v1', 'timm')
TIMM2 = (f.timm_maps, 'timm, Swin v2', 'timm')
FEATURES = (f.features_maps, 'timm (features_only), Swin v1', 'timm', f.save_pth, f.load_timm_features)
FEATURES2 = (f.features_maps, 'timm (features_only), Swin v2', 'timm', f.save_pth, f.load_timm_features)
VISION = (f.torchvision_maps, 'torchvision, Swin v1', 'torchvision')
VISION2 = (f.torchvision_maps, 'torchvision, Swin v2', 'torchvision')
HF = (f.hf_maps, 'Hugging Face, Swin v1', 'hf', f.save_hf, f.load_hf)
HF2 = (f.hf_maps, 'Hugging Face, Swin v2', 'hf', f.save_hf, f.load_hf)
HF_MEMORY = 'Hugging Face (transformers 5, in memory), Swin v1', 'hf', f.save_pth, f.load_hf
MM = 'OpenMMLab (mmdet, mmseg, mmpretrain), Swin v1'
MM2 = 'OpenMMLab (mmpretrain, v2), Swin v2'
PTH, SAFETENSORS, SAVED = (
    (f.save_pth, f.load_pth),
    (f.save_safetensors, f.load_safetensors),
    (f.save_mm, f.load_mm),
)

FAMILIES = {
    'timm': Family(lambda: f.timm_swin(1), *TIMM, *PTH),
    'timm safetensors': Family(lambda: f.timm_swin(1), *TIMM, *SAFETENSORS),
    'timm v2': Family(lambda: f.timm_swin(2), *TIMM2, *SAFETENSORS),
    'timm features': Family(lambda: f.timm_features(1), *FEATURES),
    'timm features v2': Family(lambda: f.timm_features(2), *FEATURES2),
    'torchvision': Family(lambda: f.torchvision_swin(1), *VISION, *PTH),
    'torchvision v2': Family(lambda: f.torchvision_swin(2), *VISION2, *PTH),
    'hf classifier': Family(lambda: f.hf_swin('SwinForImageClassification'), *HF),
    'hf base': Family(lambda: f.hf_swin('SwinModel'), *HF),
    'hf backbone': Family(lambda: f.hf_swin('SwinBackbone'), f.hf_backbone_maps, *HF[1:], normed=True),
    'hf position': Family(
        lambda: f.hf_swin('SwinModel', use_absolute_embeddings=True, image_size=f.SQUARE), *HF, **POSITION
    ),
    'hf classifier in memory': Family(lambda: f.hf_swin('SwinForImageClassification'), f.hf_maps, *HF_MEMORY),
    'hf base in memory': Family(lambda: f.hf_swin('SwinModel'), f.hf_maps, *HF_MEMORY),
    'hf backbone in memory': Family(
        lambda: f.hf_swin('SwinBackbone'), f.hf_backbone_maps, *HF_MEMORY, normed=True
    ),
    'hf v2 classifier': Family(lambda: f.hf_swin('Swinv2ForImageClassification'), *HF2),
    'hf v2 base': Family(lambda: f.hf_swin('Swinv2Model'), *HF2),
    'hf v2 backbone': Family(lambda: f.hf_swin('Swinv2Backbone'), f.hf_backbone_maps, *HF2[1:]),
    'hf v2 without bias': Family(
        lambda: f.hf_swin('Swinv2Model', qkv_bias=False), *HF2, extra=dict(qkv_bias=False)
    ),
    'mmpretrain': Family(
        lambda: f.mmpretrain_swin('SwinTransformer'), f.direct, MM, 'mmpretrain', *SAVED, normed=True
    ),
    'mmpretrain position': Family(
        lambda: f.mmpretrain_swin('SwinTransformer', use_abs_pos_embed=True, img_size=128),
        f.direct, MM, 'mmpretrain', *SAVED, normed=True, **POSITION,
    ),
    'mmpretrain v2': Family(
        lambda: f.mmpretrain_swin('SwinTransformerV2'), f.direct, MM2, 'mmpretrain', *SAVED, normed=True
    ),
    'mmpretrain v2 extra norms': Family(
        lambda: f.mmpretrain_swin('SwinTransformerV2', extra=2),
        f.direct, MM2, 'mmpretrain', *SAVED, normed=True, extra=dict(extra_norm_every=2),
    ),
    'mmpretrain classifier': Family(
        lambda: f.mmpretrain_classifier('SwinTransformer'), f.mmpretrain_maps, MM, 'mmpretrain', *SAVED
    ),
    'mmpretrain classifier v2': Family(
        lambda: f.mmpretrain_classifier('SwinTransformerV2'), f.mmpretrain_maps, MM2, 'mmpretrain', *SAVED
    ),
    'mmdet': Family(lambda: f.mm_backbone('mmdet'), f.direct, MM, 'mmdet', *SAVED, normed=True),
    'mmdet without bias': Family(
        lambda: f.mm_backbone('mmdet', qkv_bias=False),
        f.direct, MM, 'mmdet', *SAVED, normed=True, extra=dict(qkv_bias=False),
    ),
    'mmdet position': Family(
        lambda: f.mm_backbone('mmdet', **MM_POSITION), f.direct, MM, 'mmdet', *SAVED, normed=True, **POSITION
    ),
    'mmseg': Family(lambda: f.mm_backbone('mmseg'), f.direct, MM, 'mmseg', *SAVED, normed=True),
    'mmseg position': Family(
        lambda: f.mm_backbone('mmseg', **MM_POSITION), f.direct, MM, 'mmseg', *SAVED, normed=True, **POSITION
    ),
    'detector of mmdet': Family(lambda: f.mm_whole('mmdet'), f.direct, MM, 'mmdet', *SAVED, normed=True),
    'segmentor of mmseg': Family(lambda: f.mm_whole('mmseg'), f.direct, MM, 'mmseg', *SAVED, normed=True),
}  # fmt: skip


# what a file holds and its own library does not use: torchvision sets the part of k to 0 in the forward pass
UNUSED = {'torchvision v2': 'attn.qkv.bias', 'hf backbone': ('swin.layernorm.weight', 'swin.layernorm.bias')}


def backbone(version: int, path: Path, **changes: object) -> SwinTransformer:
    """Ours, filled from a file as mmengine's runner does it."""
    kind = 'swin_dense.SwinTransformerV2' if version == 2 else 'swin_dense.SwinTransformer'
    init_cfg = dict(type='swin_dense.Pretrained', checkpoint=str(path))
    model = MODELS.build(dict(type=kind, **{**f.SMALL, **changes}, init_cfg=init_cfg))
    model.init_weights()
    return model.eval()


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs) == 4
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.shape == reference.shape
        assert (mine - reference).abs().max() <= TOLERANCE * reference.abs().max()


def normed(ours: SwinTransformer, maps: list[Tensor]) -> list[Tensor]:
    """Behind our output norms, which a classifier's file does not fill."""
    norms = [getattr(ours, f'norm{i}') for i in range(4)]
    return [norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, x in zip(norms, maps, strict=True)]


@pytest.mark.parametrize('name', FAMILIES)
@torch.no_grad()
def test_a_file_fills_our_backbone(name: str, tmp_path: Path):
    family = FAMILIES[name]
    theirs = family.random()
    path = family.save(theirs, tmp_path)
    assert open_swin(str(path)).title == family.title
    ours = backbone(family.version, path, **(family.extra or {}))
    x = image(family.size)
    maps = family.maps(theirs, x)
    assert_close(list(ours(x)), maps if family.normed else normed(ours, maps))


@pytest.mark.parametrize('name', FAMILIES)
@torch.no_grad()
def test_our_export_fills_their_model(name: str, tmp_path: Path):
    """By the library's own loading, strictly, and its weights to the last bit."""
    family = FAMILIES[name]
    theirs = family.random()
    source = family.save(theirs, tmp_path)
    swin = open_swin(str(source))
    windows = [] if swin.window('layers.0.blocks.0') else [f.WINDOW] * 4
    path = tmp_path / f'converted{source.suffix}'
    files.write_tensors(path, export(swin, family.target, windows), TARGETS[family.target])
    if family.save is f.save_hf:  # transformers 4 minds the prefix
        assert {*load_file(path)} == {*load_file(source)} - set(UNUSED.get(name, ()))
    loaded = family.load(family.build(), path)
    loaded.eval()
    x = image(family.size)
    # not to the last bit: products round otherwise where weights begin at another place in memory
    assert_close(family.maps(loaded, x), family.maps(theirs, x))
    found = loaded.state_dict()
    for key, value in theirs.state_dict().items():
        assert key.endswith(UNUSED.get(name, '.')) or torch.equal(found[key], value), key


def microsoft_file(version: int, folder: Path) -> tuple[dict[str, Tensor], Path]:
    """What its training script saves; the weights without what is derived, too."""
    shapes = microsoft.classifier_v2() if version == 2 else microsoft.classifier_v1()
    weights, path = microsoft.weights(shapes), folder / 'ckpt_epoch_299.pth'
    content = dict(model=weights | microsoft.buffers(version), optimizer=dict(state={}), epoch=299)
    torch.save(content | dict(lr_scheduler={}, max_accuracy=81.2, scaler={}), path)
    return weights, path


@pytest.mark.parametrize('version', [1, 2])
@torch.no_grad()
def test_a_classifier_of_microsofts(version: int, tmp_path: Path):
    """timm, which reads these files too, says what they compute."""
    weights, path = microsoft_file(version, tmp_path)
    theirs = f.timm_swin(version)
    module = importlib.import_module(type(theirs).__module__)
    theirs.load_state_dict(module.checkpoint_filter_fn(dict(model=weights), theirs), strict=True)
    ours = backbone(version, path)
    assert open_swin(str(path)).title == f'Microsoft, Swin v{version}'
    assert_close(list(ours(image())), normed(ours, f.timm_maps(theirs.eval(), image())))


@pytest.mark.parametrize('version', [1, 2])
def test_an_older_file_of_timms(version: int, tmp_path: Path):
    """Before 0.9 it had Microsoft's names, and no derived tensors."""
    shapes = microsoft.classifier_v2() if version == 2 else microsoft.classifier_v1()
    path = tmp_path / 'swin.safetensors'
    save_file(microsoft.weights(shapes), path)
    theirs = f.timm_swin(version)
    module = importlib.import_module(type(theirs).__module__)
    theirs.load_state_dict(module.checkpoint_filter_fn(load_file(path), theirs), strict=True)
    with torch.no_grad():
        ours = backbone(version, path)
        assert_close(list(ours(image())), normed(ours, f.timm_maps(theirs.eval(), image())))


@torch.no_grad()
def test_a_detector_of_microsofts(tmp_path: Path):
    """mmdet, which converts these files too, says what they compute."""
    converter = pytest.importorskip('mmdet.models.backbones.swin').swin_converter
    weights = microsoft.weights(microsoft.backbone_v1())
    path = tmp_path / 'mask_rcnn_swin_tiny.pth'
    torch.save(dict(state_dict=weights | {'neck.conv.weight': torch.ones(3)}, meta={}), path)
    theirs = f.mm_backbone('mmdet')
    theirs.eval()
    bare = {key.removeprefix('backbone.'): value for key, value in weights.items()}
    converted = {key.removeprefix('backbone.'): value for key, value in converter(bare).items()}
    unmatched = theirs.load_state_dict(converted, strict=False)
    assert not unmatched.unexpected_keys
    assert all(key.endswith('relative_position_index') for key in unmatched.missing_keys)
    assert_close(list(backbone(1, path)(image())), list(theirs(image())))


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('via', ['microsoft', 'timm', 'torchvision', 'hf', 'mmpretrain'])
def test_back_to_microsoft(via: str, version: int, tmp_path: Path):
    """Its own names, values and derived tensors, from whatever the weights went through."""
    weights, path = microsoft_file(version, tmp_path)
    windows = [f.WINDOW] * 4
    swin = recognise(export(open_swin(str(path)), via, windows))
    found = export(swin, 'microsoft', windows)
    buffers = {key: x for key, x in microsoft.buffers(version).items() if not key.endswith('attn_mask')}
    assert set(found) == {*weights, *buffers}
    assert all(torch.equal(found[key], value) for key, value in weights.items())
    for key, value in buffers.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)


def test_back_to_a_detector_of_microsofts():
    weights = microsoft.weights(microsoft.backbone_v1()) | {'neck.conv.weight': torch.ones(3)}
    found = export(recognise(weights), 'microsoft')
    assert all(torch.equal(found.pop(key), value) for key, value in weights.items())
    assert all(key.endswith('relative_position_index') for key in found)
