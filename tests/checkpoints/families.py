"""A small Swin of every library, how that library saves and loads it, and its feature maps.

All of them have the architecture ``SMALL``. Maps of (128, 192) pixels divide by its window in every
stage and are larger than it, so all libraries mean the same by it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from tests.checkpoints import microsoft
from tests.checkpoints.ways import DEMO
from tests.references.swin_weights import randomise

SMALL = microsoft.SMALL
DIM, DEPTHS, HEADS, WINDOW = (SMALL[key] for key in ('embed_dims', 'depths', 'num_heads', 'window_size'))
SIZE, SQUARE = (128, 192), (128, 128)
CLASSES = 5
MM = dict(embed_dims=DIM, depths=DEPTHS, num_heads=HEADS)


@dataclass(frozen=True)
class Family:
    """A class of a library.

    Attributes:
        build: a new model with its own random weights.
        maps: C2..C5 of an image, (B, C, H, W), behind the library's output norms if it has such.
        title: how reports call what ``save`` writes.
        target: of the conversion back.
        save: writes the model's weights to a folder, returns the file.
        load: fills a new model from such a file, strictly.
        normed: whether there are output norms.
        extra: arguments of our backbone beyond ``SMALL``.
        size: of the images that it takes.
    """

    build: Callable[[], nn.Module]
    maps: Callable[[nn.Module, Tensor], list[Tensor]]
    title: str
    target: str
    save: Callable[[nn.Module, Path], Path]
    load: Callable[[nn.Module, Path], nn.Module]
    normed: bool = False
    extra: dict | None = None
    size: tuple[int, int] = SIZE

    @property
    def version(self) -> int:
        return 2 if self.title.endswith('v2') else 1

    def random(self, seed: int = 0) -> nn.Module:
        """A model in which every parameter matters."""
        model = self.build()
        model.eval()  # mmdet's returns None
        randomise(model, seed)
        return model


def image(size: tuple[int, int] = SIZE, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


def channels_first(maps: list[Tensor]) -> list[Tensor]:
    return [x.permute(0, 3, 1, 2) for x in maps]


# files of torch and safetensors


def save_pth(model: nn.Module, folder: Path) -> Path:
    torch.save(model.state_dict(), folder / 'model.pth')
    return folder / 'model.pth'


def load_pth(model: nn.Module, path: Path) -> nn.Module:
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return model


def save_safetensors(model: nn.Module, folder: Path) -> Path:
    save_model(model, str(folder / 'model.safetensors'))
    return folder / 'model.safetensors'


def load_safetensors(model: nn.Module, path: Path) -> nn.Module:
    load_model(model, str(path), strict=True)
    return model


# timm


def timm_swin(version: int) -> nn.Module:
    pytest.importorskip('timm')
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    return (SwinTransformerV2 if version == 2 else SwinTransformer)(
        img_size=SIZE, embed_dim=DIM, depths=DEPTHS, num_heads=HEADS, window_size=WINDOW, num_classes=CLASSES
    )


def timm_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    maps, x = [], model.patch_embed(x)
    for stage in model.layers:
        x = stage(x)
        maps.append(x)
    return channels_first(maps)


def timm_features(version: int) -> nn.Module:
    name = 'swinv2_tiny_window8_256' if version == 2 else 'swin_tiny_patch4_window7_224'
    return pytest.importorskip('timm').create_model(
        name,
        features_only=True,
        img_size=SIZE,
        embed_dim=DIM,
        depths=DEPTHS,
        num_heads=HEADS,
        window_size=WINDOW,
    )


def load_timm_features(model: nn.Module, path: Path) -> nn.Module:
    """As timm: into the whole network, whose parts the features then are."""
    whole = timm_swin(2 if any('logit_scale' in key for key in model.state_dict()) else 1)
    unmatched = whole.load_state_dict(torch.load(path, weights_only=True), strict=False)
    assert not unmatched.unexpected_keys
    assert all(key.startswith(('norm.', 'head.')) for key in unmatched.missing_keys)
    parts = {re.sub(r'^layers\.', 'layers_', key): value for key, value in whole.state_dict().items()}
    model.load_state_dict({key: parts[key] for key in model.state_dict()})
    return model


def features_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    return channels_first(model(x))


# torchvision


def torchvision_swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as module

    v2 = dict(block=module.SwinTransformerBlockV2, downsample_layer=module.PatchMergingV2)
    return module.SwinTransformer(
        [4, 4],
        DIM,
        list(DEPTHS),
        list(HEADS),
        [WINDOW] * 2,
        num_classes=CLASSES,
        **(v2 if version == 2 else {}),
    )


def torchvision_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    maps = []
    for i, layer in enumerate(model.features):
        x = layer(x)
        if i % 2:
            maps.append(x)
    return channels_first(maps)


# Hugging Face


def transformers() -> ModuleType:
    module = pytest.importorskip('transformers')
    module.logging.set_verbosity_error()
    module.logging.disable_progress_bar()
    return module


def hf_swin(name: str, **changes: object) -> nn.Module:
    """``name`` as SwinModel, Swinv2Backbone."""
    module = transformers()
    arguments = dict(image_size=SIZE, embed_dim=DIM, depths=list(DEPTHS), num_heads=list(HEADS))
    arguments |= dict(
        window_size=WINDOW, num_labels=CLASSES, out_features=[f'stage{i + 1}' for i in range(4)]
    )
    config = (module.Swinv2Config if 'v2' in name else module.SwinConfig)(**{**arguments, **changes})
    return getattr(module, name)(config)


def hf_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Of the classifiers and base models; the backbones return theirs."""
    base = getattr(model, model.base_model_prefix, model)
    states = base.encoder(
        *base.embeddings(x), output_hidden_states=True, output_hidden_states_before_downsampling=True
    )
    return list(states.reshaped_hidden_states[1:])


def hf_backbone_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(model(x).feature_maps)


def save_hf(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder / 'model.safetensors'


def load_hf(model: nn.Module, path: Path) -> nn.Module:
    folder = path.with_name('hf')
    folder.mkdir()
    path.rename(folder / ('model.safetensors' if path.suffix == '.safetensors' else 'pytorch_model.bin'))
    model.config.save_pretrained(folder)
    loaded, told = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return loaded


# OpenMMLab


def save_mm(model: nn.Module, folder: Path) -> Path:
    save_checkpoint(dict(state_dict=model.state_dict(), meta=dict(epoch=3)), str(folder / 'model.pth'))
    return folder / 'model.pth'


def load_mm(model: nn.Module, path: Path) -> nn.Module:
    """A backbone is filled from what the file has below that name, as through mmengine's init_cfg."""
    whole = model if hasattr(model, 'backbone') else nn.ModuleDict({'backbone': model})
    if not any(key.endswith('logit_scale') for key in whole.state_dict()):
        load_checkpoint(whole, str(path), strict=True)
        return model
    # mmpretrain's v2 drops the derived tensors of any file, also of its own, and then misses them
    unmatched = whole.load_state_dict(torch.load(path, weights_only=True)['state_dict'], strict=False)
    assert not unmatched.unexpected_keys
    assert all('.w_msa.relative_' in key for key in unmatched.missing_keys)
    return model


def mmpretrain_swin(name: str, indices: tuple[int, ...] = (0, 1, 2, 3), **changes: object) -> nn.Module:
    arguments = dict(img_size=SIZE, window_size=WINDOW, out_indices=indices)
    if name == 'SwinTransformerV2':
        arguments.update(window_size=[WINDOW] * 4, pad_small_map=True)
        changes['arch'] = dict(MM, extra_norm_every_n_blocks=changes.pop('extra', 0))
    models = pytest.importorskip('mmpretrain.models')
    return getattr(models, name)(**{**arguments, 'arch': MM, **changes})


def mmpretrain_classifier(name: str) -> nn.Module:
    classifier = pytest.importorskip('mmpretrain.models').ImageClassifier
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        head = dict(type='LinearClsHead', num_classes=CLASSES, in_channels=8 * DIM)
        return classifier(backbone=mmpretrain_swin(name, (3,)), head=head)


def mmpretrain_maps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Of a classifier, before its only norm: what the last block of each stage returns."""
    maps: list[Tensor] = []

    def keep(block: nn.Module, arguments: tuple, result: Tensor) -> None:
        maps.append(result.unflatten(1, tuple(arguments[1])))

    hooks = [stage.blocks[-1].register_forward_hook(keep) for stage in model.backbone.stages]
    model.backbone(x)
    for hook in hooks:
        hook.remove()
    return channels_first(maps)


def mm_backbone(package: str, **changes: object) -> nn.Module:
    """mmdet's or mmseg's."""
    backbones = pytest.importorskip(f'{package}.models.backbones')
    return backbones.SwinTransformer(**MM, window_size=WINDOW, **changes)


def mm_whole(package: str) -> nn.Module:
    """A detector or segmentor around the stock backbone."""
    return whole(package, dict(type='SwinTransformer', **MM, window_size=WINDOW))


def whole(package: str, backbone: dict) -> nn.Module:
    """Mask R-CNN of mmdet or UPerNet of mmseg, small."""
    channels = [DIM * 2**i for i in range(4)]
    if package == 'mmdet':
        from mmdet.registry import MODELS

        config = Config.fromfile(DEMO / 'mask_rcnn_swin_nano.py').model
        config.neck.update(type='FPN', in_channels=channels)
    else:
        from mmseg.registry import MODELS

        config = Config.fromfile(DEMO / 'upernet_swin_nano.py').model
        config.decode_head.in_channels, config.auxiliary_head.in_channels = channels, channels[2]
        for head in (config.decode_head, config.auxiliary_head):
            head.norm_cfg = dict(type='BN')
    config.backbone = backbone
    with DefaultScope.overwrite_default_scope(package):
        return MODELS.build(config)


def direct(model: nn.Module, x: Tensor) -> list[Tensor]:
    return list(getattr(model, 'backbone', model)(x))
