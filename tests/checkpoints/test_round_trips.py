"""From library to library and back nothing is lost, but for what a library has no place for."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from swin_dense.checkpoints.convert import TARGETS, export, recognise
from swin_dense.errors import UserError
from tests.checkpoints import microsoft

WINDOWS = [2] * 4
V1, V2 = tuple(TARGETS), ('swin_dense', 'microsoft', 'timm', 'torchvision', 'hf', 'mmpretrain')
DENSE = ('swin_dense', 'microsoft', 'hf', 'mmpretrain', 'mmdet', 'mmseg')
CLASSIFIERS = ('timm', 'torchvision')


def classifier(version: int) -> dict[str, Tensor]:
    return microsoft.weights(microsoft.classifier_v2() if version == 2 else microsoft.classifier_v1())


def dense() -> dict[str, Tensor]:
    """A backbone with output norms."""
    weights = microsoft.weights(microsoft.backbone_v1())
    return {key.removeprefix('backbone.'): value for key, value in weights.items()}


def through(weights: dict[str, Tensor], *targets: str) -> dict[str, Tensor]:
    for target in targets:
        weights = export(recognise(weights), target, WINDOWS)
    return weights


def assert_same(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """But for OpenMMLab's prefix, which a backbone's file gets on its way."""
    ours, expected = ({key.removeprefix('backbone.'): x for key, x in y.items()} for y in (ours, expected))
    assert set(ours) == set(expected)
    assert all(torch.equal(ours[key], value) for key, value in expected.items())


@pytest.mark.parametrize(('first', 'second'), list(permutations(V1, 2)))
def test_a_classifier(first: str, second: str):
    start = through(classifier(1), first)
    assert_same(through(start, second, first), start)


@pytest.mark.parametrize(('first', 'second'), list(permutations(V2, 2)))
def test_a_classifier_v2(first: str, second: str):
    start = through(classifier(2), first)
    assert_same(through(start, second, first), start)


@pytest.mark.parametrize(('first', 'second'), list(permutations(DENSE, 2)))
def test_a_backbone_with_output_norms(first: str, second: str):
    start = through(dense(), first)
    assert_same(through(start, second, first), start)


@pytest.mark.parametrize(
    ('start', 'order'),
    [(classifier(1), V1), (classifier(2), V2), (dense(), DENSE)],
    ids=['v1', 'v2', 'dense'],
)
def test_through_all_of_them(start: dict[str, Tensor], order: tuple[str, ...]):
    assert_same(through(start, *order, *reversed(order), 'swin_dense'), start)


def test_the_position_embedding():
    start = {**dense(), 'absolute_pos_embed': torch.randn(1, 8, 6, 6)}
    assert_same(through(start, *DENSE, *reversed(DENSE)), start)


@pytest.mark.parametrize('via', CLASSIFIERS)
def test_a_classifier_has_one_norm(via: str):
    """norm0, norm1 and norm2 are lost, and norm3 becomes its only norm."""
    start = dense()
    found = through(start, via, 'swin_dense')
    expected = {
        key: value for key, value in start.items() if key.split('.')[0] not in ('norm0', 'norm1', 'norm2')
    }
    assert_same(
        found, {key.replace('norm3', 'norm', key.startswith('norm3')): x for key, x in expected.items()}
    )


@pytest.mark.parametrize('via', ['mmpretrain', 'mmdet', 'mmseg'])
def test_openmmlab_has_one_name_for_two_norms(via: str):
    """Beside a head, norm3 is the classifier's; without one it is taken for that of C5."""
    start = {key: value for key, value in classifier(1).items() if not key.startswith('head.')}
    found = through(start, via, 'swin_dense')
    assert_same(
        found, {key.replace('norm.', 'norm3.', key.startswith('norm.')): x for key, x in start.items()}
    )


@pytest.mark.parametrize('via', ['mmpretrain', 'mmdet', 'mmseg'])
def test_openmmlab_has_no_norm_beside_that_of_c5(via: str):
    start = dense() | {'norm.weight': torch.ones(64), 'norm.bias': torch.ones(64)}
    assert_same(through(start, via, 'swin_dense'), dense())


def extra_norms() -> dict[str, Tensor]:
    return {f'layers.0.blocks.1.norm3.{part}': torch.randn(8) for part in ('weight', 'bias')}


POSITION = {'absolute_pos_embed': torch.randn(1, 8, 6, 6)}
IMPOSSIBLE = [
    *((2, {}, target, 'Swin v2') for target in ('mmdet', 'mmseg')),
    *((2, extra_norms(), target, 'extra norms') for target in ('microsoft', 'timm', 'torchvision', 'hf')),
    *((1, POSITION, target, 'absolute position embedding') for target in CLASSIFIERS),
    *((2, POSITION, target, 'absolute position embedding') for target in (*CLASSIFIERS, 'hf')),
]


@pytest.mark.parametrize(('version', 'more', 'target', 'reason'), IMPOSSIBLE)
def test_what_a_library_does_not_have(version: int, more: dict[str, Tensor], target: str, reason: str):
    swin = recognise(classifier(version) | more)
    with pytest.raises(UserError, match=rf'^{target} has no .*{reason}: convert to swin_dense') as caught:
        export(swin, target, WINDOWS)
    able = str(caught.value).partition('convert to ')[2].split(', ')
    for other in TARGETS:
        if other in able:
            found = recognise(export(swin, other, WINDOWS)).weights
            assert all(torch.equal(found[key], value) for key, value in more.items())
        else:
            with pytest.raises(UserError):
                export(swin, other, WINDOWS)


@pytest.mark.parametrize('target', ['microsoft', 'torchvision', 'mmpretrain'])
def test_a_window_that_must_be_told(target: str):
    swin = recognise(classifier(2))
    with pytest.raises(UserError, match='saves the window, which this file does not tell: add --window SIDE'):
        export(swin, target)
    found = recognise(export(swin, target, [4, 4, 4, 2], [8, 8, 8, 2]))
    assert [found.window(f'layers.{i}.blocks.0') for i in range(4)] == [4, 4, 4, 2]
    for stage, sides in enumerate([(4, 8), (4, 8), (4, 8), (2, 2)]):
        table = found.derived[f'layers.{stage}.blocks.0.attn.relative_coords_table']
        torch.testing.assert_close(table, microsoft.coordinates(*sides), rtol=0, atol=1e-6)


def test_coordinates_of_another_pretraining_are_kept():
    """A file that tells the window tells that of the pretraining, too."""
    weights = classifier(2) | microsoft.buffers(2, window=4, pretrained=8)
    found = through(weights, 'torchvision', 'mmpretrain', 'microsoft')
    for key, value in microsoft.buffers(2, window=4, pretrained=8).items():
        assert key.endswith('attn_mask') or torch.equal(found[key], value), key
