"""The hosts' own classes do what the exploits ask of them: or the tests of refusals could not fail."""

from collections.abc import Callable

import pytest
from mmdet.models.task_modules import AppearanceFreeLink, CameraMotionCompensation
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmseg.datasets.transforms import LoadBiomedicalImageFromFile
from mmseg.models.losses import CrossEntropyLoss, HuasdorffDisstanceLoss, LovaszLoss, TverskyLoss

from tests.trust.canaries import Canaries

DIRECT: dict[str, Callable[[Canaries], object]] = {
    'class weight pkl': lambda c: CrossEntropyLoss(class_weight=c.path('x.pkl')),
    'class weight yaml': lambda c: CrossEntropyLoss(class_weight=c.path('x.yaml')),
    'class weight http': lambda c: CrossEntropyLoss(class_weight=f'{c.address}/x.pkl'),
    'Tversky': lambda c: TverskyLoss(class_weight=c.path('x.pkl')),
    'Lovasz': lambda c: LovaszLoss(class_weight=c.path('x.pkl'), reduction='none'),
    'Hausdorff': lambda c: HuasdorffDisstanceLoss(class_weight=c.path('x.yaml')),
    'AppearanceFreeLink': lambda c: AppearanceFreeLink(f'{c.address}/x.pth'),
    'camera motion': lambda c: CameraMotionCompensation(warp_mode=c.code),
    'unpickled image': lambda c: LoadBiomedicalImageFromFile(decode_backend='pickle')(
        dict(img_path=c.path('x.pkl'))
    ),
    'teacher config': lambda c: Config.fromfile(c.path('x.py')),
    'proposals': lambda c: load(c.path('x.pkl')),
    'type of a package': lambda c: MODELS.build(dict(type='stranger.X')),
    'type that is a module': lambda c: MODELS.build(dict(type='stranger')),
    'called type': lambda c: MODELS.build(dict(type='builtins.open', file=str(c.trace), mode='w')),
    'scope': lambda c: MODELS.build(dict(type='ReLU', _scope_='stranger')),
    'type in a step': lambda c: TRANSFORMS.build(
        dict(type='mmdet.ResizeShortestEdge', scale=8, resize_type='stranger.X')
    ),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', DIRECT)
def test_without_us_the_canary_sings(name: str, canaries: Canaries):
    with DefaultScope.overwrite_default_scope('mmdet'):
        try:
            DIRECT[name](canaries)
        except Exception as error:  # after the deed: what was opened is no weight
            print(f'{type(error).__name__}: {error}')
    assert canaries.sang()
