"""The steps that a test pipeline in a checkpoint may have, and the arguments of each."""

from collections.abc import Sequence
from typing import Any

from swin_dense.errors import UnsafeFileError
from swin_dense.trust.fields import LOCAL_BACKENDS, reason_against
from swin_dense.trust.types import SCOPES, is_known, of_models
from swin_dense.trust.values import ADVICE

_RESIZED = ('scale', 'scale_factor', 'keep_ratio', 'clip_object_border', 'backend', 'interpolation')
_LABELS = ('with_bbox', 'with_label', 'with_seg', 'with_keypoints', 'imdecode_backend')
# by the name of the step, in either host; 'type' and the names of BACKENDS are allowed in every step
STEPS: dict[str, tuple[str, ...]] = {
    'LoadImageFromFile': ('to_float32', 'color_type', 'imdecode_backend', 'ignore_empty'),
    'LoadImage': ('channels',),
    'LoadImageFromNDArray': ('to_float32', 'color_type', 'imdecode_backend', 'ignore_empty'),
    'LoadMultiChannelImageFromFiles': ('to_float32', 'color_type', 'imdecode_backend'),
    'LoadSingleRSImageFromFile': ('to_float32',),
    'LoadMultipleRSImageFromFile': ('to_float32',),
    'LoadBiomedicalImageFromFile': ('to_xyz', 'decode_backend'),
    'LoadAnnotations': (*_LABELS, 'with_mask', 'poly2mask', 'box_type', 'reduce_zero_label', 'ignore_index'),
    'LoadPanopticAnnotations': (*_LABELS, 'with_mask', 'box_type'),
    'LoadEmptyAnnotations': ('with_bbox', 'with_label', 'with_mask', 'with_seg', 'seg_ignore_label'),
    'LoadDepthAnnotation': ('depth_rescale_factor', 'to_float32', 'ignore_empty', 'decode_backend'),
    'LoadTrackAnnotations': (*_LABELS, 'with_mask', 'poly2mask', 'box_type', 'with_instance_id'),
    'LoadProposals': ('num_max_proposals',),
    'FilterAnnotations': ('min_gt_bbox_wh', 'min_gt_mask_area', 'by_box', 'by_mask', 'keep_empty'),
    'Resize': _RESIZED,
    'FixScaleResize': _RESIZED,
    'FixShapeResize': ('width', 'height', 'pad_val', *_RESIZED),
    'ResizeShortestEdge': ('scale', 'max_size'),
    'ResizeToMultiple': ('size_divisor', 'interpolation'),
    'CenterCrop': ('crop_size', 'auto_pad', 'clip_object_border'),
    'Pad': ('size', 'size_divisor', 'pad_to_square', 'pad_val', 'padding_mode'),
    'Normalize': ('mean', 'std', 'to_rgb'),
    'Rerange': ('min_value', 'max_value'),
    'CLAHE': ('clip_limit', 'tile_grid_size'),
    'AdjustGamma': ('gamma',),
    'RGB2Gray': ('out_channels', 'weights'),
    'ConcatCDInput': ('input_keys',),
    'RandomFlip': ('prob', 'direction', 'swap_seg_labels'),
    'RandomCenterCropPad': (
        *('crop_size', 'ratios', 'border', 'mean', 'std', 'to_rgb', 'test_mode', 'test_pad_mode'),
        *('test_pad_add_pix', 'bbox_clip_border'),
    ),
    'ImageToTensor': ('keys',),
    'ToTensor': ('keys',),
    'Transpose': ('keys', 'order'),
    'PackDetInputs': ('meta_keys',),
    'PackSegInputs': ('meta_keys',),
    'PackTrackInputs': ('meta_keys', 'default_meta_keys'),
    'Compose': ('transforms',),
    'MultiScaleFlipAug': ('transforms', 'scales', 'scale_factor', 'allow_flip', 'flip_direction'),
    'TestTimeAug': ('transforms',),
    'TransformBroadcaster': ('transforms', 'share_random_params'),
    'ProposalBroadcaster': ('transforms',),
}
INSIDE = 'transforms'  # where a step holds others
BACKENDS = ('backend_args', 'file_client_args')
DECODERS = ('nifti', 'numpy')  # the third of mmseg's is pickle


def check_pipeline(
    steps: Sequence[Any], what: str, scope: str, path: str = 'test_pipeline'
) -> list[dict[str, Any]]:
    """A test pipeline's steps must be known ones, with known arguments and plain values.

    Args:
        steps: the pipeline.
        what: the file, for messages: ``'checkpoint x.pth'``.
        scope: the host, ``'mmdet'`` or ``'mmseg'``.
        path: where in the file it is.

    Returns:
        The steps without the settings of where training read its files: prediction reads local files.

    Raises:
        UnsafeFileError: a step or an argument is unknown, or a value is not plain.
    """
    return [_step(step, what, scope, f'{path}.{i}') for i, step in enumerate(steps)]


def _step(step: Any, what: str, scope: str, path: str) -> dict[str, Any]:  # noqa: ANN401
    kind = step.get('type') if isinstance(step, dict) else None
    name = kind.rpartition('.')[2] if isinstance(kind, str) else ''
    if name not in STEPS or not is_known(str(kind), step.get('_scope_') or scope, of_models()):
        raise UnsafeFileError(
            f'{what} is refused: its config has a step {kind!r} ({path}.type), which is none that loads or '
            f'resizes an image; {ADVICE}'
        )
    kept: dict[str, Any] = {}
    for key, value in step.items():
        here = f'{path}.{key}'
        if key in BACKENDS:
            _check_backend(value, what, here)
        elif key == 'type':
            kept[key] = value
        elif key == '_scope_':
            if value is not None and value not in SCOPES:
                raise UnsafeFileError(f'{what} is refused: {here}={value!r}: mmengine would import it')
            kept[key] = value
        elif key not in STEPS[name]:
            raise UnsafeFileError(
                f'{what} is refused: {here}: {name} is not known to take {key!r} in a test pipeline; {ADVICE}'
            )
        elif key == INSIDE and isinstance(value, (list, tuple)):
            kept[key] = [
                check_pipeline(entry, what, scope, f'{here}.{i}')
                if isinstance(entry, (list, tuple))
                else _step(entry, what, scope, f'{here}.{i}')
                for i, entry in enumerate(value)
            ]
        else:
            _check_value(key, value, what, here)
            kept[key] = value
    return kept


def _check_backend(value: Any, what: str, path: str) -> None:  # noqa: ANN401
    """Accept local files, and OpenMMLab's own cluster, whose settings are left out."""
    backend = value.get('backend') if isinstance(value, dict) else value
    if value is not None and backend not in (*LOCAL_BACKENDS, 'petrel'):
        raise UnsafeFileError(
            f'{what} is refused: {path}={value!r}: predicting reads local files, and fetches none; {ADVICE}'
        )


def _check_value(field: str, value: Any, what: str, path: str) -> None:  # noqa: ANN401
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_value(str(key), inner, what, f'{path}.{key}')
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            _check_value(field, inner, what, f'{path}.{i}')
    else:
        plain = field == 'decode_backend' and value in DECODERS
        reason = None if plain else reason_against(field, value)
        if field == 'type':
            reason = 'a type where a plain value is expected'
        if reason:
            raise UnsafeFileError(f'{what} is refused: {path}={value!r}: {reason}; {ADVICE}')
