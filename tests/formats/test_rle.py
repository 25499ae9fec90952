"""The decoder of compressed run lengths against pycocotools and a plain reading."""

import numpy as np

from swin_dense.formats import rle
from tests.check.coco_sets import encoded


def masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = rng.integers(1, 90, (count, 2))
    made = [rng.random(tuple(shape)) > rng.random() for shape in shapes]
    return [*made, np.zeros((5, 7), bool), np.ones((700, 900), bool), np.ones((1, 1), bool)]


def test_every_rle_of_pycocotools_is_valid():
    made = masks(200)
    texts = [encoded(mask)['counts'] for mask in made]
    pixels = np.array([mask.size for mask in made])
    assert rle.sum_up(texts, pixels).all()
    assert not rle.sum_up(texts, pixels + 1).any()


def plain_runs(text: str) -> list[int] | None:
    """Run lengths by pycocotools' definition, a character after the other; None if the text ends early."""
    runs: list[int] = []
    at = 0
    while at < len(text):
        value = place = 0
        more = True
        while more:
            if at == len(text):
                return None
            group = ord(text[at]) - 48
            value |= (group & 31) << 5 * place
            more = bool(group & 32)
            at, place = at + 1, place + 1
        if group & 16:
            value -= 1 << 5 * place
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def test_garbage_rle_against_a_plain_reading():
    rng = np.random.default_rng(5)
    texts = [encoded(mask)['counts'] for mask in masks(100)[:100]]
    pixels = np.array([sum(plain_runs(text)) for text in texts])
    spoiled = []
    for text in texts:
        at = int(rng.integers(len(text)))
        spoiled.append(text[:at] + chr(int(rng.integers(48, 112))) + text[at + 1 :])
    expected = [
        (runs := plain_runs(text)) is not None and min(runs) >= 0 and sum(runs) == size
        for text, size in zip(spoiled, pixels, strict=True)
    ]
    assert rle.sum_up(spoiled, pixels).tolist() == expected
    assert 0 < sum(expected) < 100  # some characters were replaced by themselves, or only moved a border
