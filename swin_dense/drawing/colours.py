"""One colour for each class: distinct for 150 classes, and for readers who see no red or no green."""

from functools import cache

import numpy as np

# Okabe and Ito's palette for colour-blind readers, without black
FIRST = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (213, 94, 0),
        (0, 114, 178),
        (204, 121, 167),
        (240, 228, 66),
    ],
    np.uint8,
)
COUNT = 256  # colours: a label map of bytes has no more classes
STEPS = 10  # of each channel, among which further colours are chosen
LIGHTNESS = (0.4, 0.9)  # in OKLab: neither black nor white, which texts and outlines have
# Machado et al. 2009, severity 1: what is seen without the cones for red, and without those for green
VISIONS = {
    'normal': np.eye(3),
    'protanopia': np.array(
        [
            (0.152286, 1.052583, -0.204868),
            (0.114503, 0.786281, 0.099216),
            (-0.003882, -0.048116, 1.051998),
        ]
    ),
    'deuteranopia': np.array(
        [
            (0.367322, 0.860646, -0.227968),
            (0.280085, 0.672501, 0.047413),
            (-0.011820, 0.042940, 0.968881),
        ]
    ),
}
# Ottosson 2020: linear sRGB to cone responses, and their cube roots to lightness, green-red, blue-yellow
TO_CONES = np.array(
    [
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    ]
)
TO_LAB = np.array(
    [
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    ]
)


def colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB; those of fewer classes are the first of those of more.

    After the first seven, each is the one that is farthest from all before it. The distance of two colours is
    the least of those in ``VISIONS``, in OKLab. From the 257th class on they are used again.
    """
    sequence = _sequence()
    return sequence[np.arange(count) % len(sequence)].copy()


def ink_is_black(colour: np.ndarray) -> bool:
    """Whether black letters stand out on a colour (3,) uint8 RGB, and not white ones."""
    return bool(colour @ (0.299, 0.587, 0.114) > 140)


def oklab(rgb: np.ndarray, vision: str = 'normal') -> np.ndarray:
    """(N, 3) lightness, green-red and blue-yellow of (N, 3) uint8 sRGB, as seen with a vision."""
    values = rgb / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = (linear @ VISIONS[vision].T).clip(0, 1)
    return np.cbrt(seen @ TO_CONES.T) @ TO_LAB.T


@cache
def _sequence() -> np.ndarray:
    """(COUNT, 3) uint8 in the order in which classes get them."""
    levels = np.linspace(0, 255, STEPS).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing='ij'), -1).reshape(-1, 3)
    lightness = oklab(grid)[:, 0]
    grid = grid[(lightness > LIGHTNESS[0]) & (lightness < LIGHTNESS[1])]
    candidates = np.concatenate([FIRST, grid])
    seen = np.stack([oklab(candidates, vision) for vision in VISIONS])
    order = list(range(len(FIRST)))
    nearest = np.min([_distances(seen, i) for i in order], axis=0)
    while len(order) < COUNT:
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(seen, order[-1]))
    return candidates[order]


def _distances(seen: np.ndarray, index: int) -> np.ndarray:
    """(N,) from one colour to each; ``seen``: (visions, N, 3)."""
    return np.linalg.norm(seen - seen[:, index : index + 1], axis=-1).min(0)
