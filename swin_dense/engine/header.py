"""The header of a run: what is trained, on what, how, and where it goes."""

from typing import Any

import torch
from mmengine.device import get_device
from mmengine.runner import EpochBasedTrainLoop
from mmengine.runner.loops import BaseLoop
from torch import nn

from swin_dense import __version__, hosts, tasks
from swin_dense.engine import layer_decay, run_state
from swin_dense.engine.runner import Runner


def training_header(runner: Runner) -> dict[str, str]:
    """The header of a training run whose loops and optimizer are built."""
    loader = runner.train_loop.dataloader
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        schedule = f'{runner.max_epochs} epochs of {len(loader)} iterations'
    else:
        schedule = f'{runner.max_iters} iterations'
    if runner.iter:
        schedule += f', resumed after {runner.iter}'
    return {
        **_model_rows(runner),
        'train': _dataset(runner.train_loop),
        'val': _dataset(runner.val_loop) if runner.val_loop else 'none',
        'classes': _classes(runner.train_loop),
        **_task_rows(runner, runner.train_loop),
        'device': _device(runner),
        'precision': _precision(runner),
        'batch': _batch(runner),
        'learning rate': _rate(runner),
        **_depth_rows(runner),
        'schedule': schedule,
        'saved in': f'{runner.work_dir} (checkpoints, metrics.json, predictions.png, log)',
    }


def test_header(runner: Runner) -> dict[str, str]:
    """The header of an evaluation."""
    return {
        **_model_rows(runner),
        'weights': runner.cfg.load_from,
        'test': _dataset(runner.test_loop),
        'classes': _classes(runner.test_loop),
        **_task_rows(runner, runner.test_loop),
        'device': _device(runner),
        'saved in': runner.work_dir,
    }


def _model(runner: Runner) -> nn.Module:
    model: Any = runner.model
    return getattr(model, 'module', model)


def _model_rows(runner: Runner) -> dict[str, str]:
    model = _model(runner)
    names = ('backbone', 'neck', 'decode_head', 'roi_head', 'bbox_head')
    parts = (getattr(model, name, None) for name in names)
    chain = ' > '.join(type(part).__name__ for part in parts if part is not None)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    share = 'all trained' if trained == total else f'{trained / 1e6:.2f} M of them trained'
    return {
        'config': f'{runner.cfg.filename} (swin_dense {__version__})',
        'model': f'{type(model).__name__}: {chain}, {total / 1e6:.2f} M parameters, {share}',
    }


def _task_rows(runner: Runner, loop: BaseLoop) -> dict[str, str]:
    return tasks.of_config(runner.cfg).header(_inner(loop))


def _inner(loop: BaseLoop) -> Any:  # noqa: ANN401  of a host
    """The data set inside wrappers; of several the first."""
    dataset = loop.dataloader.dataset
    while hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets'):
        dataset = dataset.dataset if hasattr(dataset, 'dataset') else dataset.datasets[0]
    return dataset


def _dataset(loop: BaseLoop) -> str:
    dataset, inner = loop.dataloader.dataset, _inner(loop)
    where = getattr(inner, 'ann_file', '') or getattr(inner, 'data_prefix', {}).get('img_path', '')
    return f'{len(dataset)} images, {where}'


def _classes(loop: BaseLoop) -> str:
    names = loop.dataloader.dataset.metainfo.get('classes', ())
    shown = ', '.join(name.strip() for name in names[:8]) + (', ...' if len(names) > 8 else '')
    return f'{len(names)}: {shown}'


def _device(runner: Runner) -> str:
    device = get_device()
    name = torch.cuda.get_device_name() if device == 'cuda' else f'{torch.get_num_threads()} threads'
    processes = f', {runner.world_size} processes' if runner.world_size > 1 else ''
    return f'{device} ({name}){processes}, NMS and RoIAlign from {hosts.prepare()}'


def _precision(runner: Runner) -> str:
    kind = type(runner.optim_wrapper).__name__
    return {'BFloat16OptimWrapper': 'bf16 autocast', 'AmpOptimWrapper': 'fp16 autocast'}.get(kind, 'fp32')


def _batch(runner: Runner) -> str:
    """The effective batch and what it is made of."""
    images = _images(runner)
    steps = run_state.batches_per_step(runner.optim_wrapper)
    batch = images * runner.world_size * steps
    if batch == images:
        return f'{batch} images a step'
    return f'{batch} images a step ({images} x {runner.world_size} processes x {steps} accumulated)'


def _rate(runner: Runner) -> str:
    """The learning rate, and how it follows from the recipe's batch."""
    rate, ratio = f'{_learning_rate(runner):.3g}', _ratio(runner)
    if ratio is None:
        return f'{rate} (the config states no batch size to scale from)'
    if ratio == 1:
        return f'{rate}, for the same batch as in the recipe'
    recipe = runner.auto_scale_lr['base_batch_size']
    if not runner.auto_scale_lr.get('enable'):
        return f"{rate}, the recipe's for {recipe} images a step, NOT scaled"
    return (
        f'{rate}, scaled by {ratio:.3g}: the recipe has {recipe} images a step (--no-scale-lr keeps its rate)'
    )


def unscaled_rate(runner: Runner) -> str | None:
    """A warning if the batch differs from the recipe's and the learning rate does not; None otherwise."""
    ratio = _ratio(runner)
    if ratio in (None, 1) or runner.auto_scale_lr.get('enable'):
        return None
    rate = _learning_rate(runner)
    return (
        f'the learning rate {rate:.3g} is for {runner.auto_scale_lr["base_batch_size"]} images a step, '
        f'and this run has {_batch(runner).split()[0]}: the linear rule would make it {rate * ratio:.3g}'
    )


def _depth_rows(runner: Runner) -> dict[str, str]:
    """The learning rates by depth, where ``LayerDecay`` sets them."""
    text = layer_decay.summary(runner.optim_wrapper.optimizer.param_groups)
    return {} if text is None else {'rate by depth': text}


def _images(runner: Runner) -> int:
    """Images of a batch of one process."""
    return runner.train_loop.dataloader.batch_size or runner.cfg.train_dataloader.batch_size


def _ratio(runner: Runner) -> float | None:
    """The effective batch over the recipe's; None where the config states none."""
    recipe = (runner.auto_scale_lr or {}).get('base_batch_size')
    steps = run_state.batches_per_step(runner.optim_wrapper)
    return None if recipe is None else _images(runner) * runner.world_size * steps / recipe


def _learning_rate(runner: Runner) -> float:
    groups = runner.optim_wrapper.optimizer.param_groups
    return max(group.get('initial_lr', group['lr']) for group in groups)
