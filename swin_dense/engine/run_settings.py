"""The settings that must stay the same, so that a resumed run equals an uninterrupted one."""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.runner import EpochBasedTrainLoop

from swin_dense.engine import run_state
from swin_dense.errors import UserError

CHUNK = 2**20  # bytes that are read at a time


def settings(runner: Any) -> dict[str, Any]:  # noqa: ANN401  our Runner imports this module
    """The settings of a run whose training loop and optimizer are built, as plain values by name."""
    loop, cfg = runner.train_loop, runner.cfg
    dataset = loop.dataloader.dataset
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    wrapper = dict(cfg.get('optim_wrapper') or {})
    precision = str(wrapper.pop('type', 'OptimWrapper')), str(wrapper.pop('dtype', None) or '')
    return {
        'seed': runner.seed,
        'processes': runner.world_size,
        'batch size of a process': loop.dataloader.batch_sampler.batch_size,
        'accumulated batches': run_state.batches_per_step(runner.optim_wrapper),
        'precision': ' '.join(precision).strip(),
        'classes': list((getattr(dataset, 'metainfo', None) or {}).get('classes') or ()),
        'schedule': f'{loop.max_epochs} epochs' if by_epoch else f'{loop.max_iters} iterations',
        'param_scheduler': _text(cfg.get('param_scheduler')),
        'optim_wrapper': _text(wrapper),
        'augmentation': _text(_pipelines(cfg.get('train_dataloader'))),
        'data': fingerprint(dataset),
    }


def check(saved: dict[str, Any], now: dict[str, Any], file: str, anyway: bool) -> list[str]:
    """Refuse to resume with other settings, unless the user wants it anyway.

    Args:
        saved: those of the checkpoint.
        now: those of this run.
        file: the checkpoint's name.
        anyway: whether other settings are allowed.

    Returns:
        A line for each setting that differs.

    Raises:
        UserError: one differs, and that is not allowed; it names the field and both values.
    """
    lines = []
    for name in [name for name in now if name in saved and saved[name] != now[name]]:
        before, after = _differing(saved[name], now[name])
        lines.append(f'{name} was {before}, and is {after}')
    if lines and not anyway:
        more = f' (and {len(lines) - 1} more settings differ)' if len(lines) > 1 else ''
        raise UserError(
            f'--resume: checkpoint {file}: {lines[0]}{more}; --resume-anyway goes on with the new settings'
        )
    return lines


def fingerprint(dataset: Any) -> str:  # noqa: ANN401  torch gives a Dataset no length
    """The number of samples and a checksum of what names them: annotation files, or the names of images."""
    checksum = 0
    for inner in _innermost(dataset):
        annotations = Path(str(getattr(inner, 'ann_file', None) or ''))
        if annotations.is_file():
            with annotations.open('rb') as file:
                while chunk := file.read(CHUNK):
                    checksum = zlib.crc32(chunk, checksum)
        elif hasattr(inner, 'get_data_info'):
            for index in range(len(inner)):
                name = Path(str(inner.get_data_info(index).get('img_path', ''))).name
                checksum = zlib.crc32(name.encode(errors='backslashreplace'), checksum)
    return f'{len(dataset)} samples, checksum {checksum:08x}'


def _innermost(dataset: Any) -> Iterator[Any]:  # noqa: ANN401
    """The data sets inside wrappers such as RepeatDataset and ConcatDataset."""
    inside = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for inner in inside:
        if inner is None or inner is dataset:
            yield dataset
        else:
            yield from _innermost(inner)


def _pipelines(node: Any) -> Any:  # noqa: ANN401
    """Every pipeline in the config of a loader, without the paths beside it."""
    if not isinstance(node, (dict, list, tuple)):
        return []
    own = [node['pipeline']] if isinstance(node, dict) and node.get('pipeline') else []
    inside = node.values() if isinstance(node, dict) else node
    return own + [pipelines for value in inside if (pipelines := _pipelines(value))]


def _text(value: Any) -> str:  # noqa: ANN401
    return json.dumps(value, sort_keys=True, default=str)


def _differing(before: Any, after: Any, shown: int = 60) -> tuple[str, str]:  # noqa: ANN401
    """Both values, cut down to where they differ."""
    one, other = (value if isinstance(value, str) else _text(value) for value in (before, after))
    if max(len(one), len(other)) <= shown:
        return one, other
    same = next((i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - shown // 2)
    one, other = (f'...{text[start : start + shown]}...' for text in (one, other))
    return one, other
