"""What is wrong with a COCO data set: asked before training, of the annotation file and of its images."""

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import compress, repeat
from operator import not_
from pathlib import Path

import numpy as np

from swin_dense.check.annotations import check_boxes, check_masks
from swin_dense.check.image_files import check_files
from swin_dense.console.findings import Finding, errors, some
from swin_dense.data.coco import Split, class_missing
from swin_dense.formats import coco_json
from swin_dense.formats.coco_json import Columns


def check_split(
    split: Split,
    wanted: Sequence[str] | None,
    decode: bool,
    masks: bool | None = None,
    scored: bool = True,
) -> list[Finding]:
    """Check one annotation file and the images that it names.

    The quick form reads headers of images, of a large set for a quarter of a second, and decodes a few.

    Args:
        split: annotation file and image folder.
        wanted: names of the classes to learn, None for all of the file.
        decode: decode every image, with a progress bar on standard error.
        masks: whether a model with masks is trained or scored; None: if any annotation has one.
        scored: whether evaluation uses the file; otherwise it is trained on.

    Raises:
        UserError: the annotation file is missing.
    """
    path = split.annotations
    content, findings = coco_json.read_with_findings(path)
    if errors(findings):
        return findings
    findings += check_classes(path, content, wanted)
    if not content['images']:
        findings.append(Finding('error', path, 'images', 'the list is empty'))
    if not content['images'] or not content['categories']:
        return findings
    findings += _check_annotations(path, content, wanted, masks, scored)
    findings += check_files(split, content['images'], decode)
    return findings


def check_classes(path: Path, content: dict, wanted: Sequence[str] | None) -> list[Finding]:
    """Whether an annotation file has the classes that a config, or another file, names."""
    present = [category['name'] for category in content['categories']]
    if not present:
        return [Finding('error', path, 'categories', 'the list is empty')]
    lacking = [name for name in wanted or () if name not in present]
    return [Finding('error', path, 'categories', class_missing(name, present, path)) for name in lacking]


def count_instances(path: Path) -> dict[str, int]:
    """Annotations of each class, crowds left out, in the order of a file in which nothing grave is wrong."""
    annotations = coco_json.columns(path)
    counts = Counter(compress(annotations.category_ids, map(not_, annotations.crowd)))
    return {
        category['name']: counts[category['id']]
        for category in coco_json.read_annotations(path)['categories']
    }


@coco_json.uncollected()
def _check_annotations(
    path: Path, content: dict, wanted: Sequence[str] | None, masks: bool | None, scored: bool
) -> list[Finding]:
    if not content['annotations']:
        message = f'0 usable of 0: none of the {len(content["images"])} images has an object'
        return [Finding('error', path, 'annotations', message)]
    annotations = coco_json.columns(path)
    sizes = np.array([[image[side] for image in content['images']] for side in ('width', 'height')], float).T
    sizes = np.r_[sizes, [[np.nan, np.nan]]]  # index -1: an image that is not there
    index = _positions([image['id'] for image in content['images']], annotations.image_ids)
    findings = _check_references(path, content['categories'], annotations, index)
    of_boxes, kept = check_boxes(path, annotations, sizes[index], scored)
    findings += of_boxes + _check_flags(path, annotations, scored)
    learned = {c['id'] for c in content['categories'] if wanted is None or c['name'] in wanted}
    kept &= (index >= 0) & np.array([category in learned for category in annotations.category_ids])
    if any(annotations.ignore):
        kept &= ~np.array([bool(flag) for flag in annotations.ignore])
    if not kept.any():
        message = f'0 usable of {len(kept)}: a model would learn that there is nothing'
        findings.insert(0, Finding('error', path, 'annotations', message))
    some_have = any(mask is not None for mask in annotations.masks)
    if masks or some_have:
        grave = masks if masks is not None else some_have
        findings += check_masks(path, annotations, sizes[index], 'error' if grave else 'warning')
    used = np.zeros(len(content['images']), bool)
    used[index[kept]] = True
    return findings + _notes(path, content, wanted, used, scored)


def _positions(known: list, wanted: list) -> np.ndarray:
    """(N,) the place of each of N wanted ids among the known ones, of which no two are alike; -1 for none."""
    try:
        numbers, asked = (np.frombuffer(array('q', ids), np.int64) for ids in (known, wanted))
    except (TypeError, OverflowError):  # texts, fractions, or beyond 64 bits
        place = {name: i for i, name in enumerate(known)}
        return np.fromiter(map(place.get, wanted, repeat(-1)), int, len(wanted))
    order = np.argsort(numbers)
    places = order[np.searchsorted(numbers, asked, sorter=order).clip(max=len(numbers) - 1)]
    return np.where(numbers[places] == asked, places, -1)


def _check_references(
    path: Path, categories: list[dict], annotations: Columns, index: np.ndarray
) -> list[Finding]:
    """Classes and images that are not in the file; ``index``: (N,) int, -1 where there is no image."""
    findings = []
    # a set first: most files have no unknown class
    if unknown := set(annotations.category_ids) - {category['id'] for category in categories}:
        what = 'no category has it, and these objects would be taken for background; annotation ids'
        ids = _where(annotations, lambda i: annotations.category_ids[i] in unknown)
        findings.append(Finding('error', path, 'annotations.category_id', what, **some(ids)))
    if len(lost := np.flatnonzero(index < 0)):
        what = 'no image has it: dropped; annotation ids'
        lost_ids = some(annotations.ids[i] for i in lost)
        findings.append(Finding('warning', path, 'annotations.image_id', what, **lost_ids))
    return findings


def _where(annotations: Columns, holds: Callable[[int], bool]) -> list:
    """The ids of the annotations at whose positions something holds."""
    return [name for i, name in enumerate(annotations.ids) if holds(i)]


def _check_flags(path: Path, annotations: Columns, scored: bool) -> list[Finding]:
    findings = []
    field, flags = 'annotations.iscrowd', annotations.crowd
    if scored and 0 in annotations.ids:
        zero = [annotations.image_ids[i] for i, name in enumerate(annotations.ids) if name == 0]
        what = 'id 0 is "no match" to pycocotools: the object is never found (AP 0 if it is the only one)'
        findings.append(
            Finding('warning', path, 'annotations.id', f'{what}; number from 1; in image', **some(zero))
        )
    if set(map(type, flags)) <= {int} and set(flags) <= {0, 1}:
        return findings
    if scored and (lacking := _where(annotations, lambda i: flags[i] is None)):
        what = "the field 'iscrowd' is missing, which evaluation reads: write 0; of annotation ids"
        findings.append(Finding('error', path, field, what, **some(lacking)))
    if strange := _where(annotations, lambda i: flags[i] not in (None, 0, 1)):
        findings.append(Finding('error', path, field, 'neither 0 nor 1; annotation ids', **some(strange)))
    return findings


def _notes(
    path: Path, content: dict, wanted: Sequence[str] | None, used: np.ndarray, scored: bool
) -> list[Finding]:
    """Images and classes that have nothing; ``used``: (images,) bool, which have something."""
    findings = []
    if empty := [content['images'][i]['id'] for i in np.flatnonzero(~used)]:
        left_out = '' if scored else ' (left out of training where filter_empty_gt is set)'
        what = f'without usable objects, of {len(content["images"])}{left_out}; image ids'
        findings.append(Finding('note', path, 'images', what, **some(empty)))
    counts = count_instances(path)
    absent = [name for name, count in counts.items() if not count and (wanted is None or name in wanted)]
    if absent:
        what = f'classes of {len(counts)} without any instance'
        findings.append(Finding('note', path, 'categories', what, **some(absent)))
    if wanted is not None and (others := [name for name in counts if name not in wanted]):
        what = 'categories that are not among the classes of the config: their objects are background'
        findings.append(Finding('note', path, 'categories', what, **some(others)))
    return findings
