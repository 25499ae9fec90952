"""The acceptance gate: our Swin computes what mmdet's computes, and so do its gradients.

The measure of a difference is the largest absolute difference of a tensor over the largest absolute
value of the reference tensor. The gate is 1e-10 in double and 1e-5 in single precision, for every
output, the gradient of the image and that of every parameter. The reference is always computed in double
precision: a second rounding, which changes with the number of threads, would count as our error.

On the CPU a block is computed in one of three ways: in evaluation without gradients, with gradients, and
plainly. All three pass the gate.
"""

from dataclasses import dataclass

import pytest
import torch
from mmdet.models.backbones import SwinTransformer as MMDetSwin
from torch import Tensor, nn

from swin_dense.models import SwinTransformer
from tests.kernels.blocks import plain_path
from tests.references.swin_weights import SMALL, TINY, random_swin, to_mmdet

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


@dataclass(frozen=True)
class Case:
    """One comparison."""

    height: int
    width: int
    batch: int = 1
    window: int = 7
    dtype: torch.dtype = torch.float64
    tiny: bool = False

    def __str__(self) -> str:
        net = '-tiny' if self.tiny else ''
        dtype = str(self.dtype).removeprefix('torch.')
        return f'{self.height}x{self.width}-b{self.batch}-w{self.window}-{dtype}{net}'

    @property
    def arguments(self) -> dict:
        return dict(TINY if self.tiny else SMALL, window_size=self.window)


@dataclass
class Results:
    """What is compared, by name."""

    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]


def cases() -> list:
    sizes = [(224, 224), (800, 1333), (500, 375), (33, 47), (1, 1)]
    listed = [
        Case(*size, batch, window, dtype)
        for dtype in TOLERANCE
        for size in sizes
        for window in (7, 12)
        for batch in (1, 2)
    ]
    listed += [Case(224, 224, dtype=dtype, tiny=True) for dtype in TOLERANCE]
    return [
        pytest.param(case, id=str(case), marks=pytest.mark.slow if is_slow(case) else ()) for case in listed
    ]


def is_slow(case: Case) -> bool:
    if case == Case(800, 1333):
        return False
    pixels = case.batch * case.height * case.width
    return pixels > 800 * 1000 or (pixels > 500 * 500 and case.dtype == torch.float32)


def mmdet_swin(ours: SwinTransformer, **kwargs: object) -> MMDetSwin:
    theirs = MMDetSwin(drop_path_rate=0.0, **kwargs).to(next(ours.parameters()).dtype)
    wanted = {key for key in theirs.state_dict() if not key.endswith('relative_position_index')}
    weights = to_mmdet(ours.state_dict())
    assert set(weights) == wanted
    theirs.load_state_dict(weights, strict=False)
    return theirs


def image_of(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (case.batch, 3, case.height, case.width)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(case.dtype)


def run(model: nn.Module, image: Tensor) -> Results:
    """Outputs, and gradients for a random cotangent of each output."""
    image = image.clone().requires_grad_()
    outputs = model(image)
    generator = torch.Generator().manual_seed(2)
    cotangents = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64).to(image.dtype) for x in outputs
    ]
    model.zero_grad()
    torch.autograd.backward(outputs, cotangents)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert not missing
    return Results(
        {f'output {i}': x.detach() for i, x in enumerate(outputs)},
        {**gradients, 'image': image.grad},
    )


def inferred(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The outputs in evaluation mode and without gradients."""
    with torch.no_grad():
        return {f'output {i}': x for i, x in enumerate(model.eval()(image))}


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, str]:
    """The largest relative difference and the name of its tensor."""
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
    return max(
        (((ours[name] - tensor).abs().max() / tensor.abs().max()).item(), name)
        for name, tensor in theirs.items()
    )


def reference_of(case: Case) -> Results:
    """mmdet's results for the case's weights and image, in double precision."""
    rounded = random_swin(**case.arguments).to(case.dtype).double()
    return run(mmdet_swin(rounded, **case.arguments), image_of(case).double())


@pytest.fixture(scope='module', params=cases())
def case_and_reference(request: pytest.FixtureRequest) -> tuple[Case, Results]:
    """The reference is computed once for a case."""
    return request.param, reference_of(request.param)


def assert_close(results: Results, reference: Results, tolerance: float = 1e-10) -> None:
    difference, name = worst(results.outputs, reference.outputs)
    assert difference <= tolerance, name
    difference, name = worst(to_mmdet(results.gradients), reference.gradients)
    assert difference <= tolerance, name


def compare(ours: SwinTransformer, theirs: MMDetSwin, image: Tensor) -> None:
    """Outputs, gradients, and outputs without gradients, in double precision."""
    reference = run(theirs, image)
    assert_close(run(ours, image), reference)
    difference, name = worst(inferred(ours, image), reference.outputs)
    assert difference <= 1e-10, name


@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
def test_outputs_and_gradients(case_and_reference: tuple[Case, Results], with_cp: bool):
    case, reference = case_and_reference
    model = random_swin(**case.arguments, with_cp=with_cp).to(case.dtype)
    assert_close(run(model, image_of(case)), reference, TOLERANCE[case.dtype])


def test_outputs_without_gradients(case_and_reference: tuple[Case, Results]):
    case, reference = case_and_reference
    model = random_swin(**case.arguments).to(case.dtype)
    difference, name = worst(inferred(model, image_of(case)), reference.outputs)
    assert difference <= TOLERANCE[case.dtype], name


PLAIN_CASES = [
    Case(224, 224, 2),
    Case(33, 47, 2, window=12),
    Case(1, 1),
    Case(130, 151),
    Case(150, 98, 2, window=4),
    Case(224, 224, 1, dtype=torch.float32),
]


@pytest.mark.parametrize('case', PLAIN_CASES, ids=str)
def test_plain_path(case: Case):
    """What blocks compute on other devices, under autocast and when they are compiled."""
    ours = random_swin(**case.arguments).to(case.dtype)
    image = image_of(case)
    reference = reference_of(case)
    tolerance = TOLERANCE[case.dtype]
    with plain_path():
        assert_close(run(ours, image), reference, tolerance)
        difference, name = worst(inferred(ours, image), reference.outputs)
    assert difference <= tolerance, name


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')  # mmdet leaves use_reentrant to torch
def test_both_with_checkpointing():
    case = Case(96, 130, batch=2)
    ours = random_swin(**case.arguments, with_cp=True)
    theirs = mmdet_swin(ours, **case.arguments, with_cp=True)
    compare(ours, theirs, image_of(case))


def test_mask_is_minus_100_and_not_infinity():
    """A bias that outweighs the mask lets tokens attend across the seam, as in the official code."""
    case = Case(130, 150)
    ours = random_swin(**case.arguments)
    with torch.no_grad():
        for block in (block for stage in ours.layers for block in stage.blocks):
            block.attn.relative_position_bias_table.mul_(100)
    theirs = mmdet_swin(ours, **case.arguments)
    compare(ours, theirs, image_of(case))


def test_without_qkv_bias_and_other_mlp_ratio():
    case = Case(130, 150)
    arguments = dict(case.arguments, qkv_bias=False, mlp_ratio=2, in_channels=5)
    ours = random_swin(**arguments)
    theirs = mmdet_swin(ours, **arguments)
    image = torch.randn(1, 5, 130, 150, dtype=torch.float64)
    compare(ours, theirs, image)


def test_absolute_position_embedding_at_its_own_size():
    case = Case(224, 224)
    ours = random_swin(**case.arguments, use_abs_pos_embed=True, pretrain_img_size=224)
    theirs = mmdet_swin(ours, **case.arguments, use_abs_pos_embed=True, pretrain_img_size=224)
    compare(ours, theirs, image_of(case))


@pytest.mark.parametrize('out_indices', [(0, 1), (1, 2), (3,)])
def test_some_of_the_outputs(out_indices: tuple[int, ...]):
    case = Case(96, 130)
    ours = random_swin(**case.arguments, out_indices=out_indices).eval()
    theirs = MMDetSwin(drop_path_rate=0.0, **case.arguments, out_indices=out_indices).double()
    unmatched = theirs.load_state_dict(to_mmdet(ours.state_dict()), strict=False)
    assert not unmatched.unexpected_keys
    theirs.eval()
    with torch.no_grad():
        results, reference = ours(image_of(case)), theirs(image_of(case))
    assert worst(dict(enumerate(results)), dict(enumerate(reference)))[0] <= 1e-10
