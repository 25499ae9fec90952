"""A batch of maps cut into groups of windows: every token once, in the windows of the rolled map."""

import pytest
import torch
from torch import Tensor

from swin_dense.kernels.windows import (
    WindowGroup,
    pad_to_multiple,
    split_windows,
    window_groups,
    window_kinds,
)

# batch, height, width, window, shift
GEOMETRIES = [
    (1, 7, 7, 7, 0),
    (1, 7, 7, 7, 3),
    (2, 14, 21, 7, 3),
    (2, 8, 15, 7, 3),  # six lines of pads, which the shift of three spreads over two rows of windows
    (3, 9, 5, 4, 2),
    (3, 9, 5, 4, 0),
    (1, 1, 1, 7, 3),
    (2, 1, 30, 7, 3),
    (2, 30, 1, 7, 0),
    (2, 3, 5, 1, 0),
    (3, 5, 4, 2, 1),
    (1, 33, 47, 12, 6),
]


@pytest.mark.parametrize('tokens', [1, 40, 10**6])
@pytest.mark.parametrize(('batch', 'height', 'width', 'window', 'shift'), GEOMETRIES)
class TestWindowGroups:
    @pytest.fixture
    def numbers(self, batch: int, height: int, width: int) -> Tensor:
        """(B * H * W, 1): each token's own number, from 1."""
        return torch.arange(1, batch * height * width + 1).unsqueeze(1)

    @pytest.fixture
    def groups(
        self, batch: int, height: int, width: int, window: int, shift: int, tokens: int
    ) -> tuple[WindowGroup, ...]:
        return window_groups(batch, height, width, window, shift, tokens)

    def test_every_token_once(self, groups: tuple[WindowGroup, ...], numbers: Tensor):
        taken = torch.cat([group.take(numbers) for group in groups])
        assert torch.equal(taken.sort(dim=0).values, numbers)

    def test_put_is_the_inverse_of_take(self, groups: tuple[WindowGroup, ...], numbers: Tensor):
        result = torch.zeros_like(numbers)
        for group in groups:
            group.put(result, group.take(numbers))
        assert torch.equal(result, numbers)

    def test_from_windows_is_the_inverse_of_to_windows(
        self, groups: tuple[WindowGroup, ...], numbers: Tensor
    ):
        for group in groups:
            values = group.take(numbers)
            assert torch.equal(group.from_windows(group.to_windows(values)), values)

    def test_windows_and_kinds_are_those_of_the_rolled_map(
        self,
        groups: tuple[WindowGroup, ...],
        numbers: Tensor,
        batch: int,
        height: int,
        width: int,
        window: int,
        shift: int,
    ):
        padded = pad_to_multiple(numbers.view(batch, height, width, 1), window)
        rows, columns = padded.size(1) // window, padded.size(2) // window
        expected = split_windows(padded.roll((-shift, -shift), dims=(1, 2)), window).squeeze(2)
        kinds = window_kinds(rows, columns, torch.device('cpu')).repeat(batch) * (shift > 0)
        listed = []
        for group in groups:
            windows = group.to_windows(group.take(numbers)).view(-1, window**2)
            assert torch.equal((windows.flatten() == 0).nonzero().squeeze(1), group.pads)
            assert [first for _, first, _ in group.kinds] == [0, *(last for *_, last in group.kinds[:-1])]
            assert group.kinds[-1][2] == len(windows)
            lengths = [last - first for _, first, last in group.kinds]
            assert lengths == sorted(lengths, reverse=True)
            assert len({kind for kind, *_ in group.kinds}) == len(group.kinds)
            for kind, first, last in group.kinds:
                listed += [[kind, *some] for some in windows[first:last].tolist()]
        wanted = [[kind, *some] for kind, some in zip(kinds.tolist(), expected.tolist(), strict=True)]
        assert sorted(listed) == sorted(wanted)

    def test_number_of_groups(
        self,
        groups: tuple[WindowGroup, ...],
        batch: int,
        height: int,
        width: int,
        window: int,
        tokens: int,
    ):
        rows = batch * -(-height // window)
        assert len(groups) == {1: rows, 40: len(groups), 10**6: 1}[tokens]
        # whole rows of windows, shared out evenly; a row may be larger than what was asked for
        sizes = [len(group.sources) for group in groups]
        row = -(-width // window) * window**2
        assert max(sizes) - min(sizes) <= row
        assert max(len(group.places) for group in groups) <= 1.5 * tokens + row


def test_a_group_of_one_piece_is_not_copied():
    tokens = torch.randn(28 * 28, 3)
    for group in window_groups(1, 28, 28, 7, 0, 7 * 28):
        assert len(group.pieces) == 1
        assert group.take(tokens).untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()


def test_geometry_made_in_inference_mode_serves_training_later():
    with torch.inference_mode():
        group = window_groups(1, 23, 29, 7, 3, 123)[0]
    assert not any(x.is_inference() for x in (group.sources, group.pads, group.places))
