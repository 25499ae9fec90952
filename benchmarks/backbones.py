"""Our backbones and those of the peers, with the same weights and the same maps C2..C5.

A peer runs as its library makes it. Stochastic depth is off everywhere: it would give each a different
amount of work. Classifiers get the output norms that the backbones of detectors have, so that all compute
the same function.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.settings import ARCHITECTURES, WINDOWS, Setting
from swin_dense.checkpoints.convert import export, recognise
from swin_dense.models import SwinTransformer, SwinTransformerV2

# what a peer's model may have beyond the file: what follows from sizes, and a classifier's end
UNFILLED = ('relative_position_index', 'relative_coords_table', 'attn_mask')
UNUSED = ('norm.', 'head.')


def untrained(setting: Setting) -> SwinTransformer:
    """Our backbone as it is initialised."""
    kind = SwinTransformerV2 if setting.version == 2 else SwinTransformer
    architecture = ARCHITECTURES[setting.variant]._asdict()
    return kind(**architecture, window_size=WINDOWS[setting.version], drop_path_rate=0.0)


def ours(setting: Setting) -> SwinTransformer:
    """Our backbone, with random weights of which every one matters."""
    model = untrained(setting)
    randomise(model)
    return model


@torch.no_grad()
def randomise(backbone: nn.Module) -> None:
    """Leave the initialisation, which hides v2's blocks behind norms of weight 0 and all biases behind 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in backbone.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        if name.endswith('logit_scale'):
            continue
        if 'norm' in name and name.endswith('weight'):
            value = 1 + 0.1 * value
        elif parameter.ndim == 1:
            value = 0.1 * value
        elif name.endswith('bias_table'):
            value = 0.5 * value
        else:
            value = value / parameter[0].numel() ** 0.5
        parameter.copy_(value)


def peer(name: str, setting: Setting, mine: SwinTransformer) -> nn.Module:
    """The backbone of a library with our weights.

    Args:
        name: of ``PEERS``.
        setting: says the architecture, and the size that some are made for.
        mine: our backbone.

    Returns:
        A module, images (B, 3, H, W) -> maps (B, C_i, ceil(H / s_i), ceil(W / s_i)) with strides 4 to 32.
    """
    return BUILDERS[name](setting, mine)


class Stages(nn.Module):
    """The stages of a classifier, each map behind an output norm.

    Args:
        stages: maps (B, H, W, C) in and out, but for the first, which takes the image.
        norms: of the maps.
    """

    def __init__(self, stages: Sequence[nn.Module], norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.norms = nn.ModuleList(norms)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images, padded until 4 divides their sides -> maps."""
        bottom, right = -image.size(2) % 4, -image.size(3) % 4
        x = F.pad(image, (0, right, 0, bottom)) if bottom or right else image
        maps = []
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = stage(x)
            maps.append(norm(x).permute(0, 3, 1, 2))
        return tuple(maps)


class FeatureMaps(nn.Module):
    """A backbone of Hugging Face, with output norms if it has none.

    Args:
        backbone: returns ``feature_maps``.
        norms: of the maps, None where the backbone has its own.
    """

    def __init__(self, backbone: nn.Module, norms: Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.norms = None if norms is None else nn.ModuleList(norms)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images -> maps."""
        maps = self.backbone(image).feature_maps
        if self.norms is None:
            return tuple(maps)
        return tuple(
            norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, x in zip(self.norms, maps, strict=True)
        )


def output_norms(mine: SwinTransformer) -> list[nn.Module]:
    """Copies of our output norms."""
    return [copy.deepcopy(getattr(mine, f'norm{i}')) for i in range(4)]


def exported(model: nn.Module, target: str) -> dict[str, Tensor]:
    """The weights of our backbone, or of a model around it, under the names of another library."""
    return export(recognise(model.state_dict()), target, [WINDOWS[2]] * 4)


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load weights.

    Raises:
        RuntimeError: they are not all that the model needs, or more.
    """
    told = model.load_state_dict(tensors, strict=False)
    missing = [key for key in told.missing_keys if not key.endswith(UNFILLED) and not key.startswith(UNUSED)]
    if missing or told.unexpected_keys:
        raise RuntimeError(f'the weights do not fit: missing {missing}, unexpected {told.unexpected_keys}')


def padded(setting: Setting) -> tuple[int, int]:
    """Height and width, up to the next multiples of 4."""
    return setting.height + -setting.height % 4, setting.width + -setting.width % 4


def mmdet(setting: Setting, mine: SwinTransformer) -> nn.Module:
    from mmdet.models.backbones import SwinTransformer as MMDetSwin

    return _openmmlab(MMDetSwin, setting, mine)


def mmseg(setting: Setting, mine: SwinTransformer) -> nn.Module:
    from mmseg.models.backbones import SwinTransformer as MMSegSwin

    return _openmmlab(MMSegSwin, setting, mine)


def _openmmlab(kind: Callable, setting: Setting, mine: SwinTransformer) -> nn.Module:
    dims, depths, heads = ARCHITECTURES[setting.variant]
    model = kind(embed_dims=dims, depths=depths, num_heads=heads, window_size=WINDOWS[1], drop_path_rate=0.0)
    tensors = exported(mine, 'mmdet')
    fill(model, {key.removeprefix('backbone.'): value for key, value in tensors.items()})
    return model


def mmpretrain(setting: Setting, mine: SwinTransformer) -> nn.Module:
    from mmpretrain.models.backbones import SwinTransformerV2 as MMPretrainSwin

    dims, depths, heads = ARCHITECTURES[setting.variant]
    model = MMPretrainSwin(
        dict(embed_dims=dims, depths=depths, num_heads=heads, extra_norm_every_n_blocks=0),
        window_size=WINDOWS[2],
        out_indices=(0, 1, 2, 3),
        pad_small_map=True,
        drop_path_rate=0.0,
    )
    tensors = exported(mine, 'mmpretrain')
    fill(model, {key.removeprefix('backbone.'): value for key, value in tensors.items()})
    return model


def timm(setting: Setting, mine: SwinTransformer) -> nn.Module:
    """Made for the size: it would rebuild the masks in each forward for any size."""
    from timm.models.swin_transformer import SwinTransformer as TimmSwin
    from timm.models.swin_transformer_v2 import SwinTransformerV2 as TimmSwinV2

    dims, depths, heads = ARCHITECTURES[setting.variant]
    model = (TimmSwinV2 if setting.version == 2 else TimmSwin)(
        img_size=padded(setting),
        embed_dim=dims,
        depths=depths,
        num_heads=heads,
        window_size=WINDOWS[setting.version],
        always_partition=True,
        num_classes=0,
        drop_path_rate=0.0,
    )
    fill(model, exported(mine, 'timm'))
    first, *others = model.layers
    return Stages([nn.Sequential(model.patch_embed, first), *others], output_norms(mine))


def torchvision(setting: Setting, mine: SwinTransformer) -> nn.Module:
    from torchvision.models import swin_transformer as module

    dims, depths, heads = ARCHITECTURES[setting.variant]
    second = dict(block=module.SwinTransformerBlockV2, downsample_layer=module.PatchMergingV2)
    model = module.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=dims,
        depths=list(depths),
        num_heads=list(heads),
        window_size=[WINDOWS[setting.version]] * 2,
        stochastic_depth_prob=0.0,
        num_classes=1,
        **(second if setting.version == 2 else {}),
    )
    fill(model, exported(mine, 'torchvision'))
    # what leads to a stage, then its blocks
    pairs = [nn.Sequential(*model.features[i : i + 2]) for i in range(0, 8, 2)]
    return Stages(pairs, output_norms(mine))


def transformers(setting: Setting, mine: SwinTransformer) -> nn.Module:
    import transformers as library

    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    dims, depths, heads = ARCHITECTURES[setting.variant]
    second = setting.version == 2
    config = (library.Swinv2Config if second else library.SwinConfig)(
        image_size=padded(setting),
        embed_dim=dims,
        depths=list(depths),
        num_heads=list(heads),
        window_size=WINDOWS[setting.version],
        drop_path_rate=0.0,
        out_features=[f'stage{i + 1}' for i in range(4)],
    )
    tensors = exported(mine, 'hf')
    if second:  # its backbone has no norms
        tensors = {
            key: value for key, value in tensors.items() if not key.startswith(('hidden_', 'layernorm.'))
        }
    # its loader knows the names that its files have had
    model, told = (library.Swinv2Backbone if second else library.SwinBackbone).from_pretrained(
        None, config=config, state_dict=tensors, output_loading_info=True
    )
    missing = [key for key in told['missing_keys'] if 'layernorm.' not in key.split('encoder')[0]]
    if missing or told['unexpected_keys']:
        raise RuntimeError(f'the weights do not fit: {told}')
    return FeatureMaps(model, output_norms(mine) if second else None)


BUILDERS = {
    'mmdet': mmdet,
    'mmseg': mmseg,
    'mmpretrain': mmpretrain,
    'timm': timm,
    'torchvision': torchvision,
    'transformers': transformers,
}
