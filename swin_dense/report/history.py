"""The training of a run, read from its work directory: curves and facts."""

import json
from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from swin_dense import __version__, tasks
from swin_dense.data.fields import inner_datasets, loaders

Curves = dict[str, list[tuple[float, float]]]
NO_METRICS = ('time', 'data_time', 'step', 'epoch', 'iter', 'lr', 'base_lr')


def read_scalars(work_dir: Path) -> list[dict]:
    """Every record of the run's logs, starts and resumptions in order; broken lines are left out."""
    records = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue  # the last line of a run that was cut off
            if isinstance(record, dict):
                records.append(record)
    return records


def learning_curves(records: list[dict], in_percent: bool) -> dict[str, Curves]:
    """Losses, learning rate and metrics by iteration.

    Args:
        records: as ``read_scalars`` returns them.
        in_percent: the metrics in them are in percent.

    Returns:
        For ``loss``, ``learning rate`` and ``metrics`` the points (iteration, value) of each name;
        groups without points are left out. A record repeated after a resumption replaces the first.
    """
    groups: dict[str, dict[str, dict[float, float]]] = {'loss': {}, 'metrics': {}, 'learning rate': {}}
    last_of_epoch: dict[int, int] = {}
    for record in records:
        if 'iter' in record and 'loss' in record:
            step = record['iter']
            last_of_epoch[record.get('epoch', 0)] = step
            for name, value in record.items():
                if 'loss' in name:
                    groups['loss'].setdefault(name, {})[step] = value
            if 'lr' in record:
                groups['learning rate'].setdefault('learning rate', {})[step] = record['lr']
        elif 'step' in record:
            step = last_of_epoch.get(record['step'], record['step'])  # of epoch-based runs, the epoch
            for name, value in record.items():
                if 'loss' in name:
                    groups['loss'].setdefault(name, {})[step] = value
                elif name not in NO_METRICS and isinstance(value, (int, float)) and value != -1:
                    scaled = value / 100 if in_percent else value
                    groups['metrics'].setdefault(name.removeprefix('coco/'), {})[step] = scaled
    curves = {
        group: {name: _finite(points) for name, points in series.items() if _finite(points)}
        for group, series in groups.items()
    }
    return {group: series for group, series in curves.items() if series}


def facts(config: Config, work_dir: Path, records: list[dict]) -> dict[str, str]:
    """Model, data and settings of a run, for a person who was not there."""
    model = config.model
    parts = [model.get('type'), *(model[p].get('type') for p in ('backbone', 'neck') if model.get(p))]
    rows = {
        'run': str(work_dir.name),
        'config': Path(config.filename).name,
        'task': tasks.of_config(config).name,
        'model': ' > '.join(str(part).removeprefix('swin_dense.') for part in parts),
        'trained on': _data(config, 'train'),
        'evaluated on': _data(config, 'val'),
        'schedule': _schedule(config.get('train_cfg') or {}),
        'optimizer': _optimizer(config.get('optim_wrapper') or {}),
        'batch size': str((config.get('train_dataloader') or {}).get('batch_size', '')),
        'started': _started(work_dir),
        'training time': _duration(records),
        'written by': f'swin_dense {__version__}',
    }
    return {name: value for name, value in rows.items() if value}


def _finite(points: Mapping[float, float]) -> list[tuple[float, float]]:
    finite = {step: v for step, v in points.items() if isinstance(v, (int, float)) and abs(v) < float('inf')}
    return sorted((step, float(value)) for step, value in finite.items())


def _data(config: Config, split: str) -> str:
    loader = loaders(config).get(split)
    if not loader:
        return ''
    dataset = inner_datasets(loader['dataset'])[0]
    prefix = dataset.get('data_prefix') or {}
    parts = dataset.get('ann_file') or prefix.get('img_path') or prefix.get('img') or ''
    return str(Path(dataset.get('data_root') or '') / parts)


def _schedule(loop: Mapping) -> str:
    if loop.get('max_epochs'):
        return f'{loop["max_epochs"]} epochs'
    return f'{loop["max_iters"]} iterations' if loop.get('max_iters') else ''


def _optimizer(wrapper: Mapping) -> str:
    optimizer = wrapper.get('optimizer') or {}
    return f'{optimizer["type"]}, learning rate {optimizer.get("lr", 0):g}' if 'type' in optimizer else ''


def _started(work_dir: Path) -> str:
    """From the name that mmengine gives the folder of a start: 20261122_044403."""
    starts = sorted(path.parent.name for path in work_dir.glob('*/vis_data'))
    if not starts or len(starts[0]) != 15:
        return ''
    day, clock = starts[0].split('_')
    return f'{day[:4]}-{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]}'


def _duration(records: list[dict]) -> str:
    """From the seconds an iteration that each record states for those since the last."""
    seconds, before = 0.0, 0
    for record in records:
        if 'iter' in record and 'time' in record:
            if record['iter'] > before:
                seconds += (record['iter'] - before) * record['time']
            before = record['iter']
    minutes = round(seconds / 60)
    if not seconds:
        return ''
    return f'{minutes // 60} h {minutes % 60} min' if minutes >= 60 else f'{max(minutes, 1)} min'
