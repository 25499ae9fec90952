"""Whether label 0 of label maps is a class, or means that a pixel has no label."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from swin_dense.formats.images import BadImageError
from swin_dense.formats.label_maps import IGNORED, read_labels

ZeroLabel = Literal['ignored', 'class']
CHOICES: tuple[ZeroLabel, ...] = ('ignored', 'class')
BACKGROUND = {'background', 'bg', 'back', 'none', 'other', 'others', 'void', 'unlabeled', 'unlabelled'}
FILES = 30  # label maps that are read, evenly spread: an answer needs the labels that occur, not all pixels


def of_labels(labels: Collection[int], classes: Sequence[str]) -> ZeroLabel | None:
    """The meaning of label 0 by the labels of a data set; None if they fit both meanings, or neither.

    N classes have the labels 0 to N - 1, or 1 to N where 0 is ignored. So a label N answers the question. If
    it never occurs and all the others do, 0 is a class for certain where its name is that of a background,
    and where there would be a single class otherwise.

    Args:
        labels: those that occur; 255 is ignored in any case.
        classes: N names.
    """
    count, present = len(classes), set(labels) - {IGNORED}
    if not present or max(present) > count:
        return None
    if count in present:
        return 'ignored'
    if count < 2 or present != set(range(count)):
        return None
    return 'class' if count == 2 or classes[0].strip().lower() in BACKGROUND else None


def labels_of(folder: Path, suffix: str) -> set[int]:
    """The labels that occur in a folder's label maps, in ``FILES`` of them where there are more.

    A file that cannot be read is passed over: the check of the data names it.
    """
    paths = sorted(folder.rglob(f'*{suffix}'))
    chosen = np.linspace(0, len(paths) - 1, min(FILES, len(paths))).round().astype(int)
    labels: set[int] = set()
    for path in (paths[i] for i in chosen):
        try:
            labels.update(np.flatnonzero(read_labels(path).counts).tolist())
        except BadImageError:
            continue
    return labels
