"""Maps, parameters and FLOPs of the stages and parts of a model. No weights are loaded.

FLOPs are multiply-adds, each counted once, of convolutions, linear layers and attention: the papers' unit.
They are counted on torch's meta device, where tensors have shapes and no values.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models import CascadeRoIHead, SingleStageDetector, StandardRoIHead
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmseg.models import EncoderDecoder
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swin_dense.console.terminal import console, quiet_hosts, say
from swin_dense.errors import UserError
from swin_dense.models import SwinTransformer

SIZES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}  # height and width of the papers' counts
SMALLEST = 32  # the stride of C5


@dataclass(frozen=True)
class Part:
    """A part of a model; ``flops`` is None where only training runs it."""

    name: str
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Stage:
    """A stage of a Swin backbone with its output norm, and the merging that leads to the next."""

    map: tuple[int, int]
    channels: int
    blocks: int
    heads: int
    window: int
    parameters: int
    flops: int


def build(config: Config) -> nn.Module:
    """The config's model on the meta device, in evaluation mode.

    Raises:
        UserError: the model has no backbone.
    """
    model = copy.deepcopy(config.model)
    if 'backbone' not in model:
        raise UserError(f'config {config.filename}: model.backbone is missing')
    model.backbone.init_cfg = None
    # the hosts' own backbones read values back while they are built, which meta tensors do not have
    device = 'meta' if str(model.backbone.type).startswith('swin_dense.') else 'cpu'
    scope = DefaultScope.overwrite_default_scope(config.default_scope)
    with quiet_hosts(), scope, torch.device(device):
        return MODELS.build(model).to('meta').eval()


def run(module: nn.Module, *inputs: object) -> tuple[object, dict[str, int]]:
    """Call a module on meta tensors.

    Returns:
        What it returns, and the FLOPs of each module in it by name: the class, a dot, the path inside.
    """
    math = sdpa_kernel(SDPBackend.MATH)  # attention as two matrix products, which the counter knows
    with torch.no_grad(), math, FlopCounterMode(display=False) as counter:
        outputs = module(*inputs)
    # the counter counts two for each multiply-add
    return outputs, {name: sum(by_op.values()) // 2 for name, by_op in counter.get_flop_counts().items()}


def parameters(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in module.parameters())


def stages(backbone: SwinTransformer, height: int, width: int) -> Iterator[Stage]:
    """The stages of a Swin backbone for an image of this size; the patch embedding is none of them."""
    name = type(backbone).__name__
    _, flops = run(backbone, _image(height, width))
    layer: Any
    for i, layer in enumerate(backbone.layers):
        stride = 4 * 2**i
        attention = layer.blocks[0].attn
        yield Stage(
            map=(-(-height // stride), -(-width // stride)),
            channels=attention.proj.out_features,
            blocks=len(layer.blocks),
            heads=attention.num_heads,
            window=attention.window_size,
            parameters=parameters(layer) + parameters(getattr(backbone, f'norm{i}', nn.Identity())),
            flops=flops[f'{name}.layers.{i}'] + flops.get(f'{name}.layers.{i}.downsample', 0),
        )


def parts(model: Any, height: int, width: int) -> list[Part]:  # noqa: ANN401  a host's model
    """Backbone, neck and heads of a detector or segmentor for an image of this size.

    Heads of regions run on as many boxes and masks as ``test_cfg`` allows for an image.

    Raises:
        UserError: a kind of model whose parts cannot be run one by one.
    """
    roi_heads = (StandardRoIHead, CascadeRoIHead)
    two_stage = type(getattr(model, 'roi_head', None)) in roi_heads and model.with_rpn
    if not two_stage and not isinstance(model, (SingleStageDetector, EncoderDecoder)):
        raise UserError(
            f'model.type={type(model).__name__}: FLOPs are counted for Faster, Mask and Cascade R-CNN, for '
            "mmdet's single-stage detectors and for mmseg's EncoderDecoder"
        )
    listed: list[Part] = []

    def add(name: str, module: nn.Module, *inputs: object) -> object:
        outputs, flops = run(module, *inputs)
        listed.append(Part(name, parameters(module), flops.get('Global', 0)))
        return outputs

    maps = add('backbone', model.backbone, _image(height, width))
    if model.with_neck:
        maps = add('neck', model.neck, maps)
    for name in ('rpn_head', 'bbox_head', 'decode_head'):
        for path, head in _listed(model, name):
            add(path, head, maps)
    listed += [Part(path, parameters(head), None) for path, head in _listed(model, 'auxiliary_head')]
    if two_stage:
        for kind, most in zip(('bbox', 'mask'), limits(model), strict=True):
            extractors = _listed(model.roi_head, f'{kind}_roi_extractor')
            heads = _listed(model.roi_head, f'{kind}_head')
            for (name, head), (_, extractor) in zip(heads, extractors, strict=True):
                side = extractor.roi_layers[0].output_size
                add(f'roi_head.{name}', head, _meta(most, extractor.out_channels, *side))
    return listed


def limits(model: Any) -> tuple[int, int]:  # noqa: ANN401  a host's detector
    """How many boxes and how many masks the heads of regions see of an image at most."""
    return model.test_cfg.rpn.max_per_img, model.test_cfg.rcnn.max_per_img


def total(model: nn.Module, listed: list[Part]) -> Part:
    """The whole model of these parts; what only training runs has parameters and no FLOPs."""
    return Part('total', parameters(model), sum(part.flops or 0 for part in listed))


def show(config: Config, size: tuple[int, int] | None = None) -> None:
    """Print the stages of the backbone and the parts of the model.

    Args:
        config: a detection or segmentation config, as ``engine.config.load`` returns it.
        size: height and width of the image; None for the size of the papers' counts.
    """
    height, width = size or SIZES[config.default_scope]
    if min(height, width) < SMALLEST:
        raise UserError(f'--size {height} {width}: height and width must be {SMALLEST} or more')
    model = build(config)
    listed = parts(model, height, width)  # before anything is printed: it may refuse
    origin = '--size' if size else "the papers' size; --size H W for another"
    say(f'image: {height} x {width} ({origin})')
    if isinstance(model.backbone, SwinTransformer):
        console.print(_stage_table(stages(model.backbone, height, width), listed[0]))
    console.print(_part_table([*listed, total(model, listed)]))
    say('FLOPs: multiply-adds, each counted once; convolutions, linear layers and attention')
    if hasattr(model, 'roi_head'):
        boxes, masks = limits(model)
        say(f'roi_head: at its limits, {boxes} boxes' + (f' and {masks} masks' if model.with_mask else ''))


def _stage_table(rows: Iterator[Stage], backbone: Part) -> Table:
    table = Table(title='backbone', title_justify='left')
    for column in ('', 'map', 'channels', 'blocks', 'heads', 'window', 'parameters', 'FLOPs'):
        table.add_column(column, justify='left' if not column else 'right')
    for i, row in enumerate(rows):
        shape = f'{row.map[0]} x {row.map[1]}'
        counts = (row.channels, row.blocks, row.heads, row.window)
        table.add_row(f'C{i + 2}', shape, *map(str, counts), *_cells(row))
    table.add_section()
    table.add_row('and patch embedding', *[''] * 5, *_cells(backbone))
    return table


def _part_table(rows: list[Part]) -> Table:
    table = Table(title='model', title_justify='left')
    for column in ('', 'parameters', 'FLOPs'):
        table.add_column(column, justify='left' if not column else 'right')
    for row in rows:
        if row.name == 'total':
            table.add_section()
        table.add_row(row.name, *_cells(row))
    return table


def _cells(row: Part | Stage) -> tuple[str, str]:
    flops = 'training only' if row.flops is None else f'{row.flops / 1e9:.2f} G'
    return f'{row.parameters / 1e6:.2f} M', flops


def _listed(owner: Any, name: str) -> list[tuple[str, Any]]:  # noqa: ANN401
    """The module of this name, or those of the list of this name, with their names; none if it is absent."""
    module = getattr(owner, name, None)
    if isinstance(module, nn.ModuleList):
        return [(f'{name}.{i}', head) for i, head in enumerate(module)]
    return [] if module is None else [(name, module)]


def _image(height: int, width: int) -> Tensor:
    return _meta(1, 3, height, width)


def _meta(*shape: int) -> Tensor:
    return torch.empty(shape, device='meta')
