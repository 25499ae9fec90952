"""What the tests of annotations and label maps share."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.check.ade20k_sets import DataSet
from tests.check.coco_sets import HEIGHT, WIDTH


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in (11, 12, 13):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    return tmp_path


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path)
