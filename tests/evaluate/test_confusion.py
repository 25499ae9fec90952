"""Which class is taken for which: by hand, and pycocotools' true positives on the diagonal."""

import json
from pathlib import Path

import numpy as np

from swin_dense.evaluate import coco, confusion
from tests.evaluate import scenes
from tests.evaluate.test_coco import by_pycocotools

CAT, DOG, ZEBRA = range(3)


def outcome(folder: Path, objects: list[tuple], found: list[tuple], kind: str = 'bbox') -> confusion.Outcome:
    """Of one image with ``(class, x)`` objects, a crowd with a third element, and ``(class, x, score)``."""
    boxes = [dict(image_id=1, category_id=c, bbox=[x, 5, 40, 40], area=1600) for c, x, *_ in objects]
    for number, (box, entry) in enumerate(zip(boxes, objects, strict=True), 1):
        box |= dict(id=number, iscrowd=int(len(entry) > 2), segmentation=scenes.encode(entry[1], 5, 40, 40))
    results = [
        dict(
            image_id=1, category_id=c, bbox=[x, 5, 40, 40], score=s, segmentation=scenes.encode(x, 5, 40, 40)
        )
        for c, x, s in found
    ]
    content = dict(
        images=[dict(id=1, file_name='1.png', height=scenes.SIDE, width=scenes.SIDE)],
        annotations=boxes,
        categories=[dict(id=i, name=name) for i, name in enumerate(scenes.NAMES)],
    )
    (folder / 'truth.json').write_text(json.dumps(content))
    (folder / 'results.json').write_text(json.dumps(results))
    scores = {
        s.kind: s for s in coco.evaluate(coco.load_truth(folder / 'truth.json'), folder / 'results.json')
    }
    return confusion.outcomes(scores[kind])[1]


def test_by_hand(tmp_path: Path):
    objects = [(CAT, 0), (DOG, 60), (ZEBRA, 120), (CAT, 200)]
    found = [(CAT, 2, 0.9), (CAT, 62, 0.8), (DOG, 122, 0.49), (ZEBRA, 270, 0.7)]
    for kind in ('bbox', 'segm'):
        got = outcome(tmp_path, objects, found, kind)
        assert got.hits == [CAT]
        assert got.confused == [(DOG, CAT)]
        assert sorted(got.missed) == [CAT, ZEBRA], 'a score below 0.5 finds nothing'
        assert got.invented == [ZEBRA]
        assert got.wrong_objects == {2, 3, 4}
        assert len(got.wrong_detections) == 2
        assert got.f1() == 2 / (4 + 3)


def test_the_right_class_is_matched_first(tmp_path: Path):
    """Though the wrong one has the higher score and overlaps as much."""
    got = outcome(tmp_path, [(CAT, 0)], [(DOG, 0, 0.9), (CAT, 4, 0.6)])
    assert (got.hits, got.confused, got.missed, got.invented) == ([CAT], [], [], [DOG])


def test_one_detection_for_one_object(tmp_path: Path):
    got = outcome(tmp_path, [(CAT, 0)], [(CAT, 0, 0.9), (CAT, 1, 0.8), (DOG, 0, 0.7)])
    assert (got.hits, got.missed) == ([CAT], [])
    assert sorted(got.invented) == [CAT, DOG]
    got = outcome(tmp_path, [(CAT, 0), (CAT, 4)], [(DOG, 5, 0.6), (ZEBRA, 4, 0.9)])
    assert sorted(got.confused) == [(CAT, DOG), (CAT, ZEBRA)], 'the higher score takes the nearer object'


def test_a_crowd_is_neither_found_nor_missed(tmp_path: Path):
    got = outcome(tmp_path, [(CAT, 0, 'crowd')], [(CAT, 0, 0.9), (CAT, 1, 0.9)])
    assert got == confusion.Outcome()
    assert got.f1() == 1


def test_half_an_overlap_is_needed(tmp_path: Path):
    assert outcome(tmp_path, [(CAT, 0)], [(DOG, 13, 0.9)]).confused == [(CAT, DOG)]  # IoU 27 / 53
    assert outcome(tmp_path, [(CAT, 0)], [(DOG, 14, 0.9)]).confused == []  # 26 / 54


def test_the_diagonal_is_pycocotools_true_positives(tmp_path: Path):
    files = scenes.write(tmp_path)
    for kind in ('bbox', 'segm'):
        scores = {s.kind: s for s in coco.evaluate(coco.load_truth(files[0]), files[1])}[kind]
        counts = confusion.matrix(confusion.outcomes(scores), 3)
        confident = [entry for entry in json.loads(files[1].read_text()) if entry['score'] >= 0.5]
        (tmp_path / 'confident.json').write_text(json.dumps(confident))
        reference = by_pycocotools(files[0], tmp_path / 'confident.json', kind)
        hits, found, objects = np.zeros(3, int), np.zeros(3, int), np.zeros(3, int)
        for entry in filter(None, reference.evalImgs):
            if entry['aRng'] == reference.params.areaRng[0]:
                label = reference.params.catIds.index(entry['category_id'])
                counted = ~entry['dtIgnore'][0].astype(bool)
                hits[label] += np.count_nonzero(entry['dtMatches'][0][counted])
                found[label] += counted.sum()
                objects[label] += np.count_nonzero(entry['gtIgnore'] == 0)
        assert counts.dtype == np.int64
        assert np.diag(counts)[:3].tolist() == hits.tolist()
        assert counts[:3].sum(axis=1).tolist() == objects.tolist()
        assert counts[:, :3].sum(axis=0).tolist() == found.tolist()
        assert counts[0, 1] + counts[1, 0] + counts[2, 0] > 0, 'the set has confusions'
        assert counts[3, 3] == 0
