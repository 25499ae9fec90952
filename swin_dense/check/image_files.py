"""The image files that an annotation file names: whether they are there, whole, and of the stated size."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np

from swin_dense.check.links import check_links, common_root
from swin_dense.console.findings import Finding, some
from swin_dense.data.coco import Split
from swin_dense.formats import images
from swin_dense.formats.coco_json import uncollected
from swin_dense.formats.decoding import find_damage, sample

ALWAYS_PROBED = 2000  # images of which every header is read, however long it takes
PROBE_SECONDS = 0.25  # for the headers of a larger set
AT_HAND = 0.1  # seconds for a hundred images, or less
THREADS = 8


def check_files(split: Split, entries: list[dict], decode: bool) -> list[Finding]:
    """Check the image files that an annotation file names: they are there, whole, and of the stated size.

    Args:
        split: annotation file and folder of the images.
        entries: ``id``, ``file_name``, ``width`` and ``height`` of each.
        decode: open and decode them all, with a progress bar on standard error; otherwise headers of all, or
            of those for which there is time, are read, and a few are decoded.
    """
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


@uncollected()
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
