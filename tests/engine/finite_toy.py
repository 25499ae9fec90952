"""A small training run with faults: image ``i`` may make a loss or a gradient that is not finite."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from swin_dense.engine.runner import Runner

IMAGES, BATCH = 12, 2
FINE, NAN, INF, GRADIENT, TOO_LARGE, DETACHED, SUM = range(7)
NUMBER = itertools.count()


class Bad(torch.autograd.Function):
    """x, with a gradient that is NaN or overflows."""

    @staticmethod
    def forward(ctx: object, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


class Images(Dataset):
    """Points (number, 1 / number, fault)."""

    metainfo = {'classes': ('one',)}

    def __init__(self, faults: dict[int, int], numbers: Sequence[int] = range(IMAGES)) -> None:
        self.faults, self.numbers = faults, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict:
        number = self.numbers[index]
        sample = BaseDataElement(
            metainfo=dict(img_path=f'images/{number}.jpg'), y=torch.tensor([number % 3.0])
        )
        x = torch.tensor([float(number), 1 / (1 + number), float(self.faults.get(number, FINE))])
        return {'inputs': x, 'data_samples': sample}


class Toy(BaseModel):
    """A line after BatchNorm and dropout, with two losses and an accuracy."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.dropout = nn.Dropout(dropout)
        self.line = nn.Linear(2, 1)
        self.other = nn.Parameter(torch.ones(1))

    def forward(self, inputs: list, data_samples: list, mode: str = 'loss') -> dict:
        x = torch.stack(list(inputs))
        fault = int(x[:, 2].max())
        points = torch.cat([x[:1, :2] * torch.nan, x[1:, :2]]) if fault == NAN else x[:, :2]
        out = self.line(self.dropout(self.norm(points)))
        out = Bad.apply(out, torch.nan) if fault == GRADIENT else out
        other = Bad.apply(self.other, torch.inf) if fault == TOO_LARGE else self.other
        fit = (out - torch.stack([sample.y for sample in data_samples])).square().mean()
        size = (self.line.weight.square() * other).sum()
        if fault == INF:
            fit = fit / 0
        if fault == SUM:
            fit, size = fit * 0 + 3e38, size * 0 + 1.5e38
        if fault == DETACHED:
            size = size + size.detach() * torch.nan  # its gradient is finite
        return {'loss_fit': fit, 'loss_size': [size, size], 'acc': torch.tensor(torch.nan)}


def toy(dropout: float = 0.0) -> Toy:
    torch.manual_seed(1)
    return Toy(dropout)


def runner(work_dir: Path, faults: dict[int, int], model: Toy | None = None, **changes: object) -> Runner:
    init_default_scope('mmdet')
    cfg = dict(
        model=model or toy(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            dataset=Images(faults),
            batch_size=BATCH,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=pseudo_collate,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=3),
        default_scope='mmdet',
    )
    cfg.update(changes)
    return Runner(**cfg, cfg=Config(dict(work_dir=str(work_dir))), experiment_name=f'finite {next(NUMBER)}')


def plainly(
    windows: list[list[list[int]]], steps: int = 1, clip: float | None = None, dropped: Sequence[int] = ()
) -> tuple[Toy, dict]:
    """The model and the optimizer's state after these windows of batches of image numbers, in plain torch.

    Args:
        windows: for each step, the batches whose gradients are summed.
        steps: batches that a whole window has.
        clip: largest norm of the gradients.
        dropped: windows after which the gradients are thrown away instead of a step.
    """
    model, images = toy(), Images({})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for window, batches in enumerate(windows):
        for numbers in batches:
            batch = pseudo_collate([images[number] for number in numbers])
            losses = model(**batch)
            ((losses['loss_fit'] + sum(losses['loss_size'])) / steps).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        if window not in dropped:
            optimizer.step()
        optimizer.zero_grad()
    return model, optimizer.state_dict()
