"""What is wrong with a COCO data set: asked before training, of the annotation file and of its images."""

import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import compress, islice, repeat
from operator import not_
from pathlib import Path

import numpy as np

from swin_dense.check.annotations import check_boxes, check_masks
from swin_dense.check.links import check_links, common_root
from swin_dense.console.findings import Finding, errors, some
from swin_dense.data.coco import Split, class_missing
from swin_dense.formats import coco_json, images
from swin_dense.formats.coco_json import Columns
from swin_dense.formats.decoding import find_damage, sample

ALWAYS_PROBED = 2000  # images of which every header is read, however long it takes
PROBE_SECONDS = 0.25  # for the headers of a larger set
AT_HAND = 0.1  # seconds for a hundred images, or less
THREADS = 8


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
    findings += _check_files(split, content['images'], decode)
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


def _check_files(split: Split, entries: list[dict], decode: bool) -> list[Finding]:
    path, field = split.annotations, 'images.file_name'
    names = [entry['file_name'] for entry in entries]
    findings: list[Finding] = []
    if len(set(names)) < len(names):
        repeated = [name for name, count in Counter(names).items() if count > 1]
        findings.append(Finding('warning', path, field, 'files that several images name', **some(repeated)))
    there, links, odd = _present(split.images, names)
    special = set(odd)
    missing = [n for n, is_there in zip(names, there, strict=True) if not (is_there or n in special)]
    if missing:
        what = f'not in {split.images}, of {len(names)}'
        findings.append(Finding('error', path, field, what, **some(missing), samples=True))
    if odd:
        what = 'no files, but named pipes, sockets or devices'
        findings.append(Finding('error', split.images, '', what, **some(odd), samples=True))
    findings += check_links(common_root(path.parent, split.images), split.images, links)
    readable = [entry for entry, is_there in zip(entries, there, strict=True) if is_there]
    probed = _probe(split.images, readable, decode)
    if len(probed) < len(readable):
        opened = f'{len(probed)} of {len(readable)} images were opened, evenly spread'
        what = f'{opened}; tools/check_data.py --decode opens and decodes them all'
        findings.append(Finding('note', split.images, '', what))
    findings += _unreadable(split, probed) + _check_pixels(split, probed, decode)
    return findings + _check_sizes(split, probed)


@coco_json.uncollected()
def _present(root: Path, names: Sequence[str]) -> tuple[list[bool], list[str], list[str]]:
    """Whether each file is there: by listing folders, which asks the file system once for thousands.

    Beside that the names of symbolic links, and of what is no file at all: named pipes, sockets, devices.
    """
    parts = [name.replace(os.sep, '/').rpartition('/') for name in names]
    listed: dict[str, set[str]] = {}
    links: dict[str, set[str]] = {}
    special: dict[str, set[str]] = {}
    for folder in {folder for folder, _, _ in parts}:
        try:
            with os.scandir(root / folder) as findings:
                entries = list(findings)
        except (OSError, ValueError):
            entries = []
        listed[folder] = {entry.name for entry in entries}
        others = [entry for entry in entries if not entry.is_file(follow_symlinks=False)]
        links[folder] = {entry.name for entry in others if entry.is_symlink()}
        special[folder] = {e.name for e in others if not e.is_symlink() and not e.is_dir()}
    # a folder may be a link itself
    linked = [name for name, (folder, _, last) in zip(names, parts, strict=True) if last in links[folder]]
    linked += sorted(folder for folder in listed if folder and listed[folder])
    odd = [name for name, (folder, _, last) in zip(names, parts, strict=True) if last in special[folder]]
    there = [last in listed[folder] and last not in special[folder] for folder, _, last in parts]
    return there, linked, odd


Probed = list[tuple[dict, images.Probe | str]]


def _probe(root: Path, entries: list[dict], decode: bool) -> Probed:
    """Each image's entry with its header, or what is wrong; of a large set not all, unless ``decode``."""

    def ask(entry: dict) -> tuple[dict, images.Probe | str]:
        try:
            return entry, images.probe(root / entry['file_name'])
        except images.BadImageError as error:
            return entry, str(error)

    order = np.random.default_rng(0).permutation(len(entries))  # wherever it stops, it is evenly spread
    answers = _ask_all(ask, (entries[i] for i in order))
    if decode:
        return list(answers)
    end, probed = time.monotonic() + PROBE_SECONDS, []
    for answer in answers:
        probed.append(answer)
        if len(probed) % 100 == 0 and len(probed) >= ALWAYS_PROBED and time.monotonic() > end:
            break
    return probed


def _ask_all(ask: Callable, queue: Iterator[dict]) -> Iterator:
    """As ``map``, in threads once there is something to wait for: a slow disk, or pixels.

    Where files are at hand, threads take four times as long: all is Python, one at a time.
    """
    with ThreadPoolExecutor(THREADS) as threads:
        at_hand = True
        while some_entries := list(islice(queue, 100)):  # threads.map would begin them all at once
            begin = time.monotonic()
            yield from map(ask, some_entries) if at_hand else threads.map(ask, some_entries)
            at_hand &= time.monotonic() - begin < AT_HAND


def _unreadable(split: Split, probed: Probed) -> list[Finding]:
    reasons: dict[tuple[str, bool], list[str]] = {}
    for entry, answer in probed:
        if isinstance(answer, str):
            reasons.setdefault((answer, True), []).append(entry['file_name'])
    return _by_reason(split, reasons)


def _check_pixels(split: Split, probed: Probed, decode: bool) -> list[Finding]:
    """Images that can be opened, but not decoded whole: of all, or of a sample that is the same each time."""
    # not of those that there was time for
    first = probed if decode else probed[:ALWAYS_PROBED]
    headers = {e['file_name']: header for e, header in first if isinstance(header, images.Probe)}
    names = sorted(headers)
    if not decode:
        names = [names[i] for i in sample([headers[name].width * headers[name].height for name in names])]
    title = f'decoding {split.images}' if decode else ''
    reasons: dict[tuple[str, bool], list[str]] = {}
    paths = {split.images / name: name for name in names}
    for damage in find_damage(list(paths), images.decode, title):
        reasons.setdefault((damage.text, damage.grave), []).append(paths[damage.path])
    return _by_reason(split, reasons)


def _by_reason(split: Split, reasons: dict[tuple[str, bool], list[str]]) -> list[Finding]:
    return [
        Finding(
            'error' if grave else 'warning', split.images, '', reason, **some(sorted(names)), samples=True
        )
        for (reason, grave), names in reasons.items()
    ]


def _check_sizes(split: Split, probed: Probed) -> list[Finding]:
    path, field = split.annotations, 'images.width, height'
    headers = [(entry, header) for entry, header in probed if isinstance(header, images.Probe)]
    differing: list[tuple[dict, images.Probe]] = []
    turned: list[tuple[dict, images.Probe]] = []
    unsure: list[int | str] = []
    for entry, header in headers:
        stated = (entry['width'], entry['height'])
        if stated != header.shown_size:
            stored = header.orientation >= 5 and stated == (header.width, header.height)
            (turned if stored else differing).append((entry, header))
        elif header.orientation != 1 and (header.orientation < 5 or stated[0] == stated[1]):
            unsure.append(entry['id'])
    findings = []
    if differing:
        entry, header = differing[0]
        width, height = header.shown_size
        what = (
            f'not the size of the file, so that boxes and masks would not fit ({entry["file_name"]} is '
            f'{width} x {height}, the JSON says {entry["width"]} x {entry["height"]}); image ids'
        )
        findings.append(Finding('error', path, field, what, **some(e['id'] for e, _ in differing)))
    if turned:
        what = (
            'the size as stored, but EXIF turns the image when it is loaded, and boxes would not fit: '
            'store the pixels upright, or annotate what is displayed; image ids'
        )
        findings.append(Finding('error', path, field, what, **some(e['id'] for e, _ in turned)))
    if unsure:
        what = 'EXIF turns the image when it is loaded: annotations must be of what is displayed; image ids'
        findings.append(Finding('warning', path, 'images', what, **some(unsure)))
    return findings
