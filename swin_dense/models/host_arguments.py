"""Arguments of the hosts' own Swin that ours takes as they stand in a config.

The hosts make an option of some things that the paper fixes. Ours takes the paper's values alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

PATCH = 4  # stride of C2; every following stage halves the resolution
STRIDES = (PATCH, 2, 2, 2)
NORM = {'type': 'LN', 'requires_grad': True, 'eps': 1e-5}
ACTIVATION = {'type': 'GELU'}


def check(
    patch_size: int = PATCH,
    strides: Sequence[int] = STRIDES,
    qk_scale: float | None = None,
    patch_norm: bool = True,
    norm_cfg: Mapping[str, Any] | None = None,
    act_cfg: Mapping[str, Any] | None = None,
) -> None:
    """Refuse values that ask for another network than the paper's.

    Raises:
        ValueError: an argument has such a value; the message names it.
    """
    wrong = {
        'patch_size': (patch_size, PATCH, patch_size == PATCH),
        'strides': (strides, STRIDES, tuple(strides) == (PATCH, *[2] * (len(strides) - 1))),
        'qk_scale': (qk_scale, None, qk_scale is None),
        'patch_norm': (patch_norm, True, patch_norm),
        'norm_cfg': (norm_cfg, {'type': 'LN'}, _within(norm_cfg, NORM)),
        'act_cfg': (act_cfg, ACTIVATION, _within(act_cfg, ACTIVATION)),
    }
    for name, (given, supported, fits) in wrong.items():
        if not fits:
            raise ValueError(
                f'{name}={given!r} is not supported: swin_dense.SwinTransformer has {supported!r}'
            )


def _within(given: Mapping[str, Any] | None, supported: Mapping[str, Any]) -> bool:
    return given is None or all(supported.get(key) == value for key, value in given.items())


def initial_weights(init_cfg: Any, pretrained: str | None) -> Any:  # noqa: ANN401  a dict, several, or None
    """The ``init_cfg`` that loads weights by our reader wherever the given one would by mmengine's.

    mmengine's loads tensors of the same name and says nothing of the others. The hosts' files name them
    differently, so that it would load none at all.

    Args:
        init_cfg: as in mmengine: a dict, a list of dicts, or None.
        pretrained: mmseg's short form: the file alone.

    Raises:
        ValueError: both are given.
    """
    if pretrained is not None:
        if init_cfg is not None:
            raise ValueError('init_cfg and pretrained both name weights: leave one out')
        return _by_our_reader({'type': 'Pretrained', 'checkpoint': pretrained})
    if isinstance(init_cfg, (list, tuple)):
        return [_by_our_reader(entry) for entry in init_cfg]
    return init_cfg if init_cfg is None else _by_our_reader(init_cfg)


def loads_by_name(entry: Mapping[str, Any]) -> bool:
    """Whether an ``init_cfg`` is mmengine's own initializer from a file."""
    kind = entry.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name in ('Pretrained', 'mmengine.Pretrained', 'PretrainedInit')


def _by_our_reader(entry: Mapping[str, Any]) -> dict[str, Any]:
    if not loads_by_name(entry):
        return dict(entry)
    # of a whole model's file, our reader takes the backbone without being told its prefix
    return {'type': 'swin_dense.Pretrained', 'checkpoint': entry['checkpoint']}
