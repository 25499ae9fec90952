"""``--backbone swin_t`` on the first config of each family and backbone of both zoos."""

import copy

import pytest

from swin_dense import hosts
from swin_dense.config import with_backbone
from swin_dense.errors import UserError
from swin_dense.hosts.configs import stock_config, stock_root

hosts.prepare()
# other strides than ours, tokens instead of maps, branches, or a package that is not there
REFUSED = {
    'BEiT', 'BiSeNetV1', 'BiSeNetV2', 'CGNet', 'DDRNet', 'DetectoRS_ResNet', 'ERFNet', 'FastSCNN',
    'HourglassNet', 'ICNet', 'MAE', 'MobileNetV3', 'PIDNet', 'STDCContextPathNet', 'TridentResNet', 'UNet',
    'VPD', 'VisionTransformer',
}  # fmt: skip


def first_of_each() -> dict[tuple[str, str], str]:
    """A config by its family and the type of its backbone."""
    first: dict[tuple[str, str], str] = {}
    for host in ('mmdet', 'mmseg'):
        root = stock_root(host)
        for file in sorted(root.glob('*/*.py')):
            name = f'{host}::{file.relative_to(root).as_posix()}'
            try:
                model = stock_config(name).get('model') or {}
            except FileNotFoundError:  # some of mmdet's name files that its package lacks
                continue
            if file.parent.name != '_base_' and 'type' in (model.get('backbone') or {}):
                first.setdefault((f'{host} {file.parent.name}', str(model.backbone.type)), name)
    return first


@pytest.mark.slow
def test_each_is_replaced_or_refused_in_a_line():
    replaced, refused, lines = [], {}, []
    for (_, kind), name in first_of_each().items():
        try:
            config = with_backbone(copy.deepcopy(stock_config(name)), 'swin_t')
        except UserError as error:
            refused[name] = kind
            lines.append(str(error))
        else:
            assert config.model.backbone.type == 'swin_dense.SwinTransformer'
            replaced.append(name)
    print(f'{len(replaced)} of {len(replaced) + len(refused)} are replaced')
    assert not any('\n' in line for line in lines)
    assert set(refused.values()) - {'ResNet'} == REFUSED
    # a ResNet's last stage is the RoI head of some
    resnets = [name for name, kind in refused.items() if kind == 'ResNet']
    assert all(stock_config(name).model.roi_head.get('shared_head') for name in resnets)
