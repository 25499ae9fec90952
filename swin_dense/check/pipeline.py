"""What a config's pipeline and filter make of the images: nothing at all, in the worst case."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swin_dense.console.findings import Finding, some_of_several

RESIZES = ('Resize', 'RandomResize', 'RandomChoiceResize')  # that take a scale and may keep the ratio


def check_filter(dataset: dict, path: Path, content: dict) -> list[Finding]:
    """Whether mmdet's filter leaves a training data set any image; mmengine fails on an empty one.

    Args:
        dataset: config of a CocoDataset.
        path, content: its annotation file.
    """
    rule = dataset.get('filter_cfg') or {}
    images = content['images']
    if dataset.get('test_mode') or not rule or not images:
        return []
    least = rule.get('min_size', 0)
    large = {image['id'] for image in large_enough(dataset, content)}
    if large and rule.get('filter_empty_gt'):
        names = (dataset.get('metainfo') or {}).get('classes')
        learned = {c['id'] for c in content['categories'] if not names or c['name'] in names}
        large &= {a['image_id'] for a in content['annotations'] if a['category_id'] in learned}
        reason = f'filter_cfg.filter_empty_gt=True and min_size={least} drop'
    else:
        reason = f'filter_cfg.min_size={least} drops'
    if large:
        return []
    longest = max(min(image['width'], image['height']) for image in images)
    hint = f'; the largest shorter side is {longest} pixels' if longest < least else ''
    what = f'{reason} all of the {len(images)} images{hint}'
    return [Finding('error', path, 'images', what)]


def large_enough(dataset: dict, content: dict) -> list[dict]:
    """The images of an annotation file that mmdet's filter keeps for their size."""
    rule = dataset.get('filter_cfg') or {}
    least = 0 if dataset.get('test_mode') else rule.get('min_size', 0)
    return [image for image in content['images'] if min(image['width'], image['height']) >= least]


def scales(pipeline: Sequence[dict]) -> list[tuple[float, float]]:
    """The sizes into which a pipeline's first step behind loading fits images, the least where it draws one.

    Empty if that step is no resize that keeps the ratio of the sides.
    """
    for step in pipeline or ():
        kind = str(step.get('type')).split('.')[-1]
        if kind.startswith('Load'):
            continue
        if kind not in RESIZES or not step.get('keep_ratio') or step.get('resize_type', 'Resize') != 'Resize':
            return []
        sizes = _sizes(step.get('scales') if kind == 'RandomChoiceResize' else step.get('scale'))
        if kind != 'RandomResize' or not sizes:
            return sizes
        least = min(step.get('ratio_range') or (1,))  # with it there is one size, without it there are two
        width, height = (int(min(sides) * least) for sides in zip(*sizes, strict=True))
        return [(width, height)]
    return []


def check_sizes(
    path: Path,
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    resizes: Sequence[tuple[float, float]],
) -> list[Finding]:
    """An error that names the images of which a resize would leave no pixels.

    Args:
        path: the folder of the images.
        names: of N files.
        sizes: (N, 2) width and height of each as it is loaded.
        resizes: as of ``scales``.
    """
    known = np.array(sizes, float).reshape(-1, 2)
    long, short = known.max(1), known.min(1)
    for scale in resizes:
        share = np.minimum(max(scale) / np.maximum(long, 1), min(scale) / np.maximum(short, 1))
        thin = np.flatnonzero((short * share + 0.5).astype(int) < 1)  # as mmcv rounds
        if len(thin):
            width, height = (int(side) for side in known[thin[0]])
            what = (
                f'{names[int(thin[0])]} is {width} x {height}: the resize to {scale[0]} x {scale[1]} leaves '
                f'its shorter side no pixel, and the run would stop there'
            )
            examples = some_of_several([names[i] for i in thin.tolist()])
            return [Finding('error', path, '', what, **examples, samples=True)]
    return []


def _sizes(value: Any) -> list[tuple[float, float]]:  # noqa: ANN401
    """One scale, or several, as a config writes them; a single number is both sides."""
    if isinstance(value, (int, float)):
        return [(value, value)]
    if not isinstance(value, (list, tuple)):
        return []
    if len(value) == 2 and all(isinstance(side, (int, float)) for side in value):
        return [tuple(value)]
    return [tuple(scale) for scale in value if isinstance(scale, (list, tuple)) and len(scale) == 2]
