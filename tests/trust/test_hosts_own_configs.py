"""What the hosts themselves ship is refused only where it must be, and what they train predicts."""

# ruff: noqa: E501  names of configs

import copy
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from swin_dense import trust
from swin_dense.data.fields import inner_datasets
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.predict import Predictor, model
from tests import recipes

# which of the hosts' configs a checkpoint may not bring along, and why
REFUSED = {
    'mmdet::glip/*': "language_model.type='BertModel': it fetches a language model",
    'mmdet::grounding_dino/*': "language_model.type='BertModel': it fetches a language model",
    'mmdet::mm_grounding_dino/*': "language_model.type='BertModel': it fetches a language model",
    'mmdet::lad/*': 'model.teacher_ckpt=.*: a host loads weights from it',
    'mmdet::ld/*': 'model.teacher_ckpt=.*: a host loads weights from it',
    'mmdet::misc/d2_*': "model.type='Detectron2Wrapper': it runs detectron2's configs",
    'mmdet::strongsort/*': "model.cmc.type='CameraMotionCompensation': it evaluates one of its arguments",
    'mmdet::reid/*': "a step 'PackReIDInputs'",  # no detector: it tells people apart
    'mmdet::rtmdet/classification/*': "the type 'LabelSmoothLoss'",  # mmpretrain's classifiers
    'mmseg::vpd/*': "model.backbone.type='VPD': it loads a diffusion model",
}
# no configs of models: parts of others, and bases that the hosts forgot to ship
BROKEN = ('mmdet::bytetrack/bytetrack_yolox_x_8xb4-amp-*', 'mmdet::sort/faster-rcnn_r50_fpn_8xb2-*')
FAMILIES = (
    *('faster_rcnn/faster-rcnn_r50_fpn_1x_coco', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco'),
    *('cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco'),
    *('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco', 'atss/atss_r50_fpn_1x_coco', 'gfl/gfl_r50_fpn_1x_coco'),
    *('yolox/yolox_tiny_8xb8-300e_coco', 'yolof/yolof_r50-c5_8xb8-1x_coco', 'paa/paa_r50_fpn_1x_coco'),
    *('detr/detr_r50_8xb2-150e_coco', 'rtmdet/rtmdet_tiny_8xb32-300e_coco', 'fpg/mask-rcnn_r50_fpg_crop640-50e_coco'),
    *('solo/solo_r50_fpn_1x_coco', 'libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco'),
    'swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco',
)  # fmt: skip
SEGMENTORS = (
    *('fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512', 'pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512'),
    *('deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024', 'upernet/upernet_r50_4xb4-80k_ade20k-512x512'),
    *('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512', 'ocrnet/ocrnet_hr18s_4xb4-80k_ade20k-512x512'),
    *('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024', 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512'),
    *('segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512', 'mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512'),
)  # fmt: skip


# one of ours is always looked at, and all with the slow tests
OURS = [
    path if path.stem == 'mask_rcnn_swin_nano' else pytest.param(path, marks=pytest.mark.slow)
    for path in sorted(recipes.CONFIGS.rglob('*.py'))
]


def stock() -> Iterator[tuple[str, Path]]:
    for host in (mmdet, mmseg):
        folder = Path(host.__file__).parent / '.mim' / 'configs'
        for path in sorted(folder.rglob('*.py')):
            inside = path.relative_to(folder)
            if '_base_' not in inside.parts:
                yield f'{host.__name__}::{inside}', path


def refusal(text: str, host: str) -> str | None:
    """Why a checkpoint with this config would not be built; None if it would."""
    try:
        values = trust.parse(text, 'checkpoint x', 'meta.cfg')
        scope, leaf = values.get('default_scope') or host, model._test_set(values)
        trust.check_model(trust.without_weights(values['model']), 'checkpoint x', scope)
        trust.check_pipeline(leaf.get('pipeline') or values.get('test_pipeline') or [], 'checkpoint x', scope)
    except UnsafeFileError as error:
        return str(error)
    return None


@pytest.fixture
def unformatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Line breaks by yapf take seconds each."""
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **style: (text, True))


@pytest.mark.parametrize('path', OURS, ids=lambda path: path.stem)
def test_our_recipes(path: Path, unformatted: None):
    config = Config.fromfile(path)
    assert 'model' not in config or refusal(config.pretty_text, config.default_scope) is None


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
def test_every_config_that_the_hosts_ship(unformatted: None):
    counted = dict.fromkeys(REFUSED, 0)
    read = 0
    for name, path in stock():
        try:
            config = Config.fromfile(path)
        except FileNotFoundError:
            assert any(fnmatch(name, pattern) for pattern in BROKEN), name
            continue
        if not config.get('model', {}).get('type'):
            continue
        read += 1
        why, known = refusal(config.pretty_text, name[:5]), [x for x in REFUSED if fnmatch(name, x)]
        if why is None:
            continue
        assert known, f'{name}: {why}'
        assert re.search(REFUSED[known[0]], why), f'{name}: {why}'
        counted[known[0]] += 1
    print(f'{sum(counted.values())} of {read} refused: {counted}')
    assert read > 1400
    assert all(counted.values()), 'the list says no more than it must'


def small(name: str) -> Config:
    """A host's config as a host's training saves it, with a pipeline for small images."""
    config = recipes.hosts(name)
    config = Config(copy.deepcopy(config.to_dict()))
    for step in inner_datasets(config.test_dataloader.dataset)[0].pipeline:
        if 'scale' in step:
            step['scale'] = (128, 128)
        if 'size' in step:
            step['size'] = (128, 128)
    if 'size' in (config.model.get('data_preprocessor') or {}):
        config.model.data_preprocessor.update(size=(128, 128))
    return config


def saved(config: Config, path: Path) -> Path:
    """Untrained: the weights are those that the constructors give."""
    cfg = trust.without_weights(config.model)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        weights = MODELS.build(cfg).state_dict()
    torch.save(dict(state_dict=weights, meta=dict(cfg=config.pretty_text), message_hub={}), path)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    'name', [*(f'mmdet::{x}.py' for x in FAMILIES), *(f'mmseg::{x}.py' for x in SEGMENTORS)]
)
def test_models_of_the_hosts_still_predict(name: str, unformatted: None, tmp_path: Path):
    path = saved(small(name), tmp_path / 'x.pth')
    predictor = Predictor(path, device='cpu')
    path.unlink()
    image = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    (tmp_path / 'x.png').write_bytes(encoded(image))
    found = predictor(tmp_path / 'x.png')
    assert tuple(found.shape) == (96, 128)


def encoded(image: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode('.png', image)[1].tobytes()


def test_classes_by_their_path(unformatted: None):
    """mmengine's newer style of configs names a class by its path, which may not be another's."""
    values = dict(type='mmdet.models.detectors.RetinaNet', loss=dict(type='mmdet.models.losses.FocalLoss'))
    trust.check_model(values, 'checkpoint x', 'mmdet')
    for kind in ('mmdet.models.utils.multi_apply', 'mmdet.apis.init_detector', 'mmdet.models.losses.Focal'):
        with pytest.raises(UserError, match='which is none of'):
            trust.check_model(dict(type=kind), 'checkpoint x', 'mmdet')
