"""One process, one pair: ``python -m benchmarks.pair JOB`` measures and prints the result as JSON.

JOB is a ``settings.Job`` as JSON. What the libraries print goes to stderr.
"""

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from swin_dense import hosts

hosts.prepare()  # before torch is imported, and the hosts

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks import backbones, measure, whole  # noqa: E402
from benchmarks.settings import ARCHITECTURES, OURS, Job, Setting  # noqa: E402
from swin_dense.report import model_info  # noqa: E402

WARM_UPS = 2
TINY = 64  # side of the image that warms the libraries up before memory is measured
COMPILE_MODES = {'compiled': 'default', 'graphs': 'reduce-overhead'}


@dataclass
class Inputs:
    """What a model is called with.

    Attributes:
        arguments: the image (B, 3, H, W), and for whole models the data samples.
        cotangents: of a backbone's maps.
    """

    arguments: tuple[Any, ...]
    cotangents: tuple[Tensor, ...] = ()


def inputs_of(setting: Setting, device: str) -> Inputs:
    """The same for every model."""
    if setting.model != 'backbone':
        return Inputs(whole.batch(setting, device))
    generator = torch.Generator().manual_seed(1)

    def random(channels: int, stride: int) -> Tensor:
        height, width = -(-setting.height // stride), -(-setting.width // stride)
        return torch.randn((setting.batch, channels, height, width), generator=generator).to(device)

    dims = ARCHITECTURES[setting.variant].embed_dims
    return Inputs((random(3, 1),), tuple(random(dims * 2**i, 4 * 2**i) for i in range(4)))


def models_of(setting: Setting, peer: str | None, device: str) -> dict[str, nn.Module]:
    """Ours and the peer's with the same weights, in evaluation mode."""
    family = backbones if setting.model == 'backbone' else whole
    mine = family.ours(setting)
    models = {OURS: mine} if peer is None else {OURS: mine, peer: family.peer(peer, setting, mine)}
    for model in models.values():
        model.eval()
        model.to(device)
    return models


def autocast(job: Job) -> AbstractContextManager:
    """The precision that a job is for."""
    return torch.autocast(job.device, torch.bfloat16) if job.dtype == 'bf16' else nullcontext()


def forward(model: nn.Module, job: Job, inputs: Inputs) -> Any:  # noqa: ANN401
    """What inference returns; in training the maps, or the loss."""
    with autocast(job):
        if job.setting.model == 'backbone':
            return model(*inputs.arguments)
        return (whole.train if job.setting.phase == 'training' else whole.infer)(model, *inputs.arguments)


def call_of(model: nn.Module, job: Job, inputs: Inputs) -> Callable[[], object]:
    """What is timed: a function without arguments."""

    def infer() -> object:
        with torch.inference_mode():
            return forward(model, job, inputs)

    def train() -> None:
        model.zero_grad(set_to_none=True)
        outputs = forward(model, job, inputs)
        if isinstance(outputs, Tensor):
            outputs.backward()
        else:
            cotangents = (c.to(x.dtype) for c, x in zip(inputs.cotangents, outputs, strict=True))
            torch.autograd.backward(outputs, tuple(cotangents))

    return train if job.setting.phase == 'training' else infer


def in_mode(model: nn.Module, mode: str, setting: Setting) -> nn.Module:
    """The model, compiled if ``mode`` says so: a backbone in one piece, a whole model part by part."""
    if mode == 'eager':
        return model
    how = dict(mode=COMPILE_MODES[mode], dynamic=False)
    if setting.model == 'backbone':
        return torch.compile(model, **how)
    model = deepcopy(model)
    for name in whole.TENSOR_PARTS:
        part = getattr(model, name, None)
        if part is not None:
            # heads call their forward by name, past Module.compile
            part.forward = torch.compile(part.forward, **how)
    return model


def marked(call: Callable[[], object]) -> Callable[[], object]:
    """A call whose predecessor's outputs, which live in the memory of a CUDA graph, may be overwritten."""

    def step() -> object:
        torch.compiler.cudagraph_mark_step_begin()
        return call()

    return step


def candidates(job: Job, models: dict[str, nn.Module], inputs: Inputs) -> dict[str, Callable[[], object]]:
    """Everything to time, by ``'WHO MODE'``."""
    for model in models.values():
        model.train(job.setting.phase == 'training')
    calls = {}
    for mode in job.modes:
        for who, model in models.items():
            call = call_of(in_mode(model, mode, job.setting), job, inputs)
            calls[f'{who} {mode}'] = marked(call) if mode == 'graphs' else call
    return calls


def warm_up(calls: dict[str, Callable[[], object]], device: str) -> dict[str, str]:
    """Call everything; drop from ``calls`` what cannot be compiled, and say why by name."""
    left_out = {}
    for name, call in list(calls.items()):
        try:
            for _ in range(WARM_UPS):
                call()
            measure.wait(device)
        except Exception as error:  # whatever a compiler meets
            if name.endswith(' eager'):
                raise
            del calls[name]
            left_out[name] = f'{type(error).__name__}: {str(error).strip().splitlines()[0]}'
    return left_out


@torch.inference_mode()
def disagreement(models: dict[str, nn.Module], job: Job, inputs: Inputs) -> float:
    """The largest difference of a map over the largest value of the peer's, in single precision."""
    maps = [
        model(*inputs.arguments) if job.setting.model == 'backbone' else whole.maps(model, *inputs.arguments)
        for model in models.values()
    ]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(*maps, strict=True))


def flops(setting: Setting) -> int | None:
    """Of our backbone, two for each multiply-add of its linear layers, convolution and attention.

    Backward passes take twice what forward passes take. None for whole models, whose products depend on what
    is found, and of which an exact rewriting may leave some out.
    """
    if setting.model != 'backbone':
        return None
    model = backbones.untrained(setting).to('meta').eval()
    _, counted = model_info.run(model, torch.empty(1, 3, setting.height, setting.width, device='meta'))
    return 2 * counted['Global'] * setting.batch * (3 if setting.phase == 'training' else 1)


def time_pair(job: Job) -> dict:
    """Times of ours and the peer in every mode, seconds; and how far their outputs are apart."""
    models = models_of(job.setting, job.who, job.device)
    inputs = inputs_of(job.setting, job.device)
    difference = disagreement(models, job, inputs)
    calls = candidates(job, models, inputs)
    left_out = warm_up(calls, job.device)
    peak = measure.product_rate(job.device, job.dtype)
    before = measure.load()
    samples = measure.interleaved(calls, job.rounds, job.device)
    others = before.others(measure.load())
    after = measure.product_rate(job.device, job.dtype)
    return {
        'times': {name: measure.summary(values) for name, values in samples.items()},
        'samples': samples,
        'left_out': left_out,
        'difference': difference,
        'objects': whole.detected(inputs.arguments[1]) if job.setting.model != 'backbone' else None,
        'flops': flops(job.setting),
        'product_rates': [peak, after],
        'others': others,
    }


def measure_memory(job: Job) -> dict:
    """Peak of the first call at the setting's size, and what training saves, bytes.

    A smaller model's call has loaded the libraries before; what a model itself keeps from its first call on
    counts.
    """

    def prepared(setting: Setting) -> tuple[nn.Module, Inputs]:
        models = models_of(setting, None if job.who == OURS else job.who, job.device)
        model = models[job.who]
        model.train(setting.phase == 'training')
        return model, inputs_of(setting, job.device)

    tiny = replace(job.setting, height=TINY, width=TINY)
    model, inputs = prepared(tiny)
    call_of(model, job, inputs)()
    model, inputs = prepared(job.setting)
    peak = measure.peak_memory(call_of(model, job, inputs), job.device)
    saved = None
    if job.setting.phase == 'training':
        saved = measure.saved_memory(lambda: forward(model, job, inputs), model)
    return {'peak': peak, 'saved': saved}


def main() -> None:
    job = Job.from_dict(json.loads(sys.argv[1]))
    with redirect_stdout(sys.stderr):
        result = time_pair(job) if job.kind == 'time' else measure_memory(job)
    print(json.dumps(result))


if __name__ == '__main__':
    main()
