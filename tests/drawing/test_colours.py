"""Colours of the classes: distinct, also for readers who see no red or no green."""

import matplotlib
import numpy as np
import pytest

from swin_dense.drawing.colours import COUNT, VISIONS, colours, ink_is_black, oklab


def least_distance(palette: np.ndarray, vision: str) -> float:
    """Of two colours, in OKLab as they are seen."""
    seen = oklab(palette, vision)
    distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    return distances[~np.eye(len(palette), dtype=bool)].min()


@pytest.mark.parametrize(('count', 'least'), [(5, 0.07), (20, 0.07), (80, 0.03), (150, 0.015)])
@pytest.mark.parametrize('vision', VISIONS)
def test_colours_are_distinct(count: int, least: float, vision: str):
    """People just tell 0.02 apart, side by side. matplotlib's rainbow is what was used before."""
    palette = colours(count)
    assert (palette.shape, palette.dtype) == ((count, 3), np.uint8)
    assert least_distance(palette, vision) > least
    if count <= 10:
        return
    rainbow = matplotlib.colormaps['gist_ncar'](np.linspace(0.05, 0.95, count))[:, :3] * 255
    assert least_distance(palette, vision) > 1.4 * least_distance(rainbow, vision)


def test_fewer_classes_have_the_first_colours():
    assert np.array_equal(colours(150)[:20], colours(20))
    assert len(np.unique(colours(COUNT), axis=0)) == COUNT
    assert np.array_equal(colours(COUNT + 3)[COUNT:], colours(3))


def test_oklab_of_known_colours():
    """White, black, and the red, green and blue of Ottosson's article, from its formulas."""
    lab = oklab(np.array([(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8))
    expected = [(1, 0, 0), (0, 0, 0), (0.628, 0.225, 0.126), (0.866, -0.234, 0.179), (0.452, -0.032, -0.312)]
    assert np.abs(lab - expected).max() < 1e-3


def test_red_and_green_look_alike_without_one_kind_of_cones():
    red, green = np.array([(180, 60, 40)], np.uint8), np.array([(110, 100, 40)], np.uint8)
    normal = np.linalg.norm(oklab(red) - oklab(green))
    for vision in ('protanopia', 'deuteranopia'):
        assert np.linalg.norm(oklab(red, vision) - oklab(green, vision)) < 0.75 * normal


def test_letters_stand_out():
    assert ink_is_black(np.array([240, 228, 66]))
    assert not ink_is_black(np.array([0, 114, 178]))
