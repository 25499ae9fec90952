"""The quick check of an annotation file and an image folder of the size of COCO's training set."""

import gc
import json
import os
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from swin_dense.check import coco_sets
from swin_dense.data.coco import Split
from swin_dense.formats import coco_json

IMAGES, ANNOTATIONS, CATEGORIES = 118_287, 860_001, 80  # of train2017
CROWDS = 85  # every 85th object is a crowd, in uncompressed RLE
LINKS = 30_000  # to one file: systems have limits
WIDTH, HEIGHT = 640, 480


@pytest.fixture(scope='module')
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    root = tmp_path_factory.mktemp('coco_size')
    images = root / 'train2017'
    images.mkdir()
    for i in range(IMAGES):
        if i % LINKS == 0:
            source = root / f'{i}.jpg'
            cv2.imwrite(str(source), np.full((HEIGHT, WIDTH, 3), 127, np.uint8))
        os.link(source, images / f'{i:012d}.jpg')
    path = root / 'instances_train2017.json'
    with path.open('w') as file:
        file.write('{"images": [')
        file.write(', '.join(map(image, range(IMAGES))))
        file.write('], "categories": ')
        file.write(json.dumps([dict(id=i, name=f'class {i}') for i in range(CATEGORIES)]))
        file.write(', "annotations": [')
        segmentations = [polygon(seed) for seed in range(1000)]
        file.write(', '.join(annotation(i, segmentations) for i in range(ANNOTATIONS)))
        file.write(']}')
    yield Split(path, images)
    coco_json.forget()


def image(i: int) -> str:
    return json.dumps(
        dict(
            license=1, file_name=f'{i:012d}.jpg', height=HEIGHT, width=WIDTH, id=i, date_captured='2013-11-14'
        )
    )


def annotation(i: int, segmentations: list[str]) -> str:
    """Another text each, and so another object when it is parsed."""
    crowd = i % CROWDS == 0
    mask = crowd_mask(i) if crowd else segmentations[i % len(segmentations)]
    return (
        f'{{"segmentation": {mask}, "area": {5000 + i % 997}.5, "iscrowd": {int(crowd)}, '
        f'"image_id": {i * 7919 % IMAGES}, "bbox": [{i % 300}.25, {i % 200}.5, 100.75, 90.0], '
        f'"category_id": {i % CATEGORIES}, "id": {i + 1}}}'
    )


def polygon(seed: int) -> str:
    """About 25 points, as COCO's have on average."""
    rng = np.random.default_rng(seed)
    points = rng.random((int(rng.integers(8, 42)), 2)) * 100 + rng.integers(0, 300, 2)
    return json.dumps([points.round(2).ravel().tolist()])


def crowd_mask(seed: int) -> str:
    counts = [1000 + (seed + k) % 500 for k in range(200)]
    return json.dumps(dict(size=[HEIGHT, WIDTH], counts=[*counts, HEIGHT * WIDTH - sum(counts)]))


@pytest.mark.slow
def test_it_takes_less_than_five_seconds_after_parsing(split: Split, monkeypatch: pytest.MonkeyPatch):
    times, real = [], json.loads

    def loads(text: str) -> object:
        times.append(time.perf_counter())
        content = real(text)
        times.append(time.perf_counter())
        return content

    monkeypatch.setattr(coco_json.json, 'loads', loads)
    gc.collect()
    found = coco_sets.check_split(split, None, decode=False, masks=True, scored=True)
    parsing, seconds = times[1] - times[0], time.perf_counter() - times[1]
    print(
        f'{split.annotations.stat().st_size / 1e6:.0f} MB: {parsing:.1f} s of parsing, then {seconds:.1f} s'
    )
    assert [finding.severity for finding in found] == ['note'], found  # not all images were opened
    # json.loads is the yardstick of a machine that is slow or busy
    assert seconds < max(5, parsing)
