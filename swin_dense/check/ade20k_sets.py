"""What is wrong with a data set in ADE20K's layout: one folder of images, one of label maps."""

import math
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.progress import track

from swin_dense.check import label_maps
from swin_dense.check.links import check_links, common_root
from swin_dense.check.pipeline import check_sizes
from swin_dense.console.findings import Finding, some, some_of_several
from swin_dense.formats.decoding import GOLDEN, SAMPLED, find_damage, sample
from swin_dense.formats.images import BadImageError, Probe, probe
from swin_dense.formats.label_maps import StoredLabels, read_labels
from swin_dense.formats.pixels import read_stored

SECONDS = 3.5  # of the quick form, after which no more files are read
BATCH = 16  # files between two looks at the clock
SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp', '.gif')


@dataclass(frozen=True)
class _Read:
    """What one pair of files gave; the texts say what is wrong, empty if nothing is."""

    image: Path
    label: Path
    probe: Probe | None = None
    label_map: StoredLabels | None = None
    image_error: str = ''
    label_error: str = ''


def check_split(
    images: Path,
    labels: Path,
    img_suffix: str,
    seg_map_suffix: str,
    classes: tuple[str, ...],
    reduce_zero_label: bool,
    decode: bool,
    host_loads: bool = True,
    resizes: Sequence[tuple[float, float]] = (),
) -> list[Finding]:
    """Check one split: pairs, suffixes, sizes, and labels against the classes.

    Args:
        images, labels: folders, searched with all below them, as mmseg does.
        img_suffix, seg_map_suffix: ends of the file names, as in the config.
        classes: names, in the order of the labels in the files.
        reduce_zero_label: whether label 0 is ignored and class i has label i + 1.
        decode: decode every image and every label map, with a progress bar. Otherwise image headers and label
            maps are read for a few seconds, and where these are not enough a note says of how many; of the
            images a few are decoded, the same each time.
        host_loads: whether the hosts' LoadImageFromFile loads the images, and not swin_dense.LoadImage.
        resizes: sizes into which the pipeline fits images.
    """
    end = math.inf if decode else time.monotonic() + SECONDS
    for folder, key in ((images, 'img_path'), (labels, 'seg_map_path')):
        if not folder.is_dir():
            return [Finding('error', folder, f'data_prefix.{key}', 'the folder does not exist')]
    (image_files, image_links), (label_files, label_links) = _list(images), _list(labels)
    findings = _check_suffixes(images, labels, image_files, label_files, img_suffix, seg_map_suffix)
    pictures, maps = _stems(image_files, img_suffix), _stems(label_files, seg_map_suffix)
    paired = sorted(pictures.keys() & maps.keys())
    findings += _check_pairs(images, labels, pictures, maps, seg_map_suffix)
    if not paired:
        return findings
    empty = {stem for stem in paired if not (image_files[pictures[stem]] and label_files[maps[stem]])}
    pairs = ((images / pictures[stem], labels / maps[stem]) for stem in _ordered(paired, empty))
    reads = list(_read_all(pairs, len(paired), decode, end))
    histogram = label_maps.Histogram(classes, reduce_zero_label)
    for read in reads:
        if read.label_map is not None:
            histogram.add(read.label, read.label_map)
    findings += [*_check_files(reads), *_check_pixels(reads, decode), *_check_kinds(reads, host_loads)]
    shapes = [(read.image.name, read.probe.shown_size) for read in reads if read.probe]
    findings += check_sizes(images, [name for name, _ in shapes], [size for _, size in shapes], resizes)
    root = common_root(labels, images)
    findings += [*check_links(root, images, image_links), *check_links(root, labels, label_links)]
    findings += label_maps.findings(histogram, labels, complete=histogram.maps == len(paired))
    if len(reads) < len(paired):
        text = f'{len(reads)} of {len(paired)} pairs were read, evenly spread: the full check reads all'
        findings.append(Finding('note', labels, '', text))
    return findings


def _list(folder: Path) -> tuple[dict[str, int], list[str]]:
    """Bytes of each file below a folder by its relative name, hidden ones left out, as mmseg lists them.

    Beside them the names of all symbolic links.
    """
    files: dict[str, int] = {}
    links: list[str] = []
    waiting, seen = [(str(folder), '')], set()
    while waiting:
        path, prefix = waiting.pop()
        real = os.path.realpath(path)
        if real in seen:  # a link to a folder above
            continue
        seen.add(real)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(prefix + entry.name)
                if entry.is_dir():
                    waiting.append((entry.path, f'{prefix}{entry.name}/'))
                elif not entry.name.startswith('.') and entry.is_file():
                    files[prefix + entry.name] = entry.stat().st_size
    return files, sorted(links)


def _stems(files: Iterable[str], suffix: str) -> dict[str, str]:
    """Names that end with a suffix, by what comes before it."""
    return {name.removesuffix(suffix): name for name in files if name.endswith(suffix)}


def _check_suffixes(
    images: Path,
    labels: Path,
    image_files: dict[str, int],
    label_files: dict[str, int],
    img_suffix: str,
    seg_map_suffix: str,
) -> list[Finding]:
    """No file of a kind at all, images that another suffix leaves out, label maps in a lossy format."""
    findings = []
    sides = (
        ('img_suffix', images, image_files, img_suffix, 'image', label_files),
        ('seg_map_suffix', labels, label_files, seg_map_suffix, 'label map', image_files),
    )
    for key, folder, files, suffix, kind, others in sides:
        if any(name.endswith(suffix) for name in files):
            continue
        near = _nearest_suffix(files, [name.removesuffix(Path(name).suffix) for name in islice(others, 10)])
        hint = f': {near[1]} end with {near[0]!r}' if near else ' (there are no image files at all)'
        hang = '; a data set of no images hangs under InfiniteSampler' if kind == 'image' else ''
        findings.append(Finding('error', folder, key, f'no {kind} ends with {suffix!r}{hint}{hang}'))
    unused = sorted(name for name in image_files if not name.endswith(img_suffix) and _is_image(name))
    if unused and len(unused) < len(image_files) and images != labels:
        text = f'images do not end with {img_suffix!r} and are not used'
        findings.append(Finding('warning', images, 'img_suffix', text, **some(unused)))
    if seg_map_suffix.lower().endswith(('.jpg', '.jpeg')):
        text = 'JPEG is lossy: it smears labels into values that are other classes'
        findings.append(Finding('warning', labels, 'seg_map_suffix', text))
    return findings


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _nearest_suffix(files: Iterable[str], stems: list[str]) -> tuple[str, int] | None:
    """The ending that most images have behind a stem of the other folder's, and how many have it."""
    names = [name for name in files if _is_image(name)]
    ends: Counter[str] = Counter()
    for stem in stems[:10]:
        ends.update(name.removeprefix(stem) for name in names if name.startswith(stem))
    ends = ends or Counter(Path(name).suffix for name in names)
    if not ends:
        return None
    suffix = ends.most_common(1)[0][0]
    return suffix, sum(name.endswith(suffix) for name in names)


def _check_pairs(
    images: Path, labels: Path, pictures: dict[str, str], maps: dict[str, str], seg_map_suffix: str
) -> list[Finding]:
    findings = []
    if not pictures.keys() & maps.keys():
        if pictures and maps:
            near = _nearest_suffix(maps.values(), sorted(pictures))
            hint = f': {near[1]} end with {near[0]!r}' if near and near[0] != seg_map_suffix else ''
            text = f'no label map has the name of an image and {seg_map_suffix!r}{hint}'
            findings.append(Finding('error', labels, 'seg_map_suffix', text, **some(sorted(maps.values()))))
        return findings
    alone = sorted(pictures.keys() - maps.keys())
    if alone:
        first = labels / (alone[0] + seg_map_suffix)
        text = f'image {images / pictures[alone[0]]} has no label map: training fails where it is drawn'
        others = some_of_several([pictures[stem] for stem in alone])
        findings.append(Finding('error', first, '', text, **others, samples=True))
    unused = sorted(maps.keys() - pictures.keys())
    if unused:
        text = 'label maps without an image are not used'
        findings.append(Finding('warning', labels, '', text, **some(maps[stem] for stem in unused)))
    return findings


def _ordered(stems: list[str], empty: set[str]) -> list[str]:
    """Those of empty files first; of the others any beginning is spread evenly over the whole."""
    places = sorted(range(len(stems)), key=lambda i: i * GOLDEN % 1)
    return sorted((stems[i] for i in places), key=lambda stem: stem not in empty)


def _read_all(pairs: Iterator[tuple[Path, Path]], count: int, decode: bool, end: float) -> Iterator[_Read]:
    """Read the pairs, all of them or as many as there is time for until ``end``, a few at least."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        if decode:
            work = threads.map(_read, pairs)
            yield from track(work, 'reading headers and label maps', total=count, transient=True)
            return
        number = 0
        while batch := list(islice(pairs, BATCH)):
            yield from threads.map(_read, batch)
            number += len(batch)
            if number >= SAMPLED and time.monotonic() > end:  # so many are decoded
                return


def _read(pair: tuple[Path, Path]) -> _Read:
    image, label = pair
    findings = label_map = None
    image_error = label_error = ''
    try:
        findings = probe(image)
    except BadImageError as error:
        image_error = str(error)
    try:
        label_map = read_labels(label)
    except BadImageError as error:
        label_error = str(error)
    return _Read(image, label, findings, label_map, image_error, label_error)


def _check_files(reads: list[_Read]) -> list[Finding]:
    """What cannot be read, once for each reason, and pairs of different sizes."""
    broken: dict[str, list[Path]] = defaultdict(list)
    for read in reads:
        for path, text in ((read.image, read.image_error), (read.label, read.label_error)):
            if text:
                broken[text].append(path)
    findings = [label_maps.in_files('error', '', text, paths, True) for text, paths in broken.items()]
    pairs = [(read, read.probe, read.label_map) for read in reads if read.probe and read.label_map]
    differ = [pair for pair in pairs if pair[2].size != pair[1].shown_size[::-1]]
    if differ:
        read, image, label = min(differ, key=lambda pair: pair[0].label)
        is_turned = image.shown_size != (image.width, image.height)
        turned = f' as its EXIF orientation {image.orientation} shows it' if is_turned else ''
        width, height = image.shown_size
        text = f'{label.size[1]} x {label.size[0]}, but image {read.image} is {width} x {height}{turned}'
        others = some_of_several(sorted(read.label.name for read, _, _ in differ))
        findings.append(Finding('error', read.label, 'size', text, **others, samples=True))
    return findings


def _check_pixels(reads: list[_Read], decode: bool) -> list[Finding]:
    """Images that can be opened, but not decoded whole: of all, or of the first that were read."""
    good = [(read.image, read.probe) for read in (reads if decode else reads[:SAMPLED]) if read.probe]
    chosen = range(len(good)) if decode else sample([image.width * image.height for _, image in good])
    title = 'decoding images' if decode else ''
    damaged: dict[tuple[str, bool], list[Path]] = defaultdict(list)
    for damage in find_damage([good[i][0] for i in chosen], read_stored, title):
        damaged[damage.text, damage.grave].append(damage.path)
    return [
        label_maps.in_files('error' if grave else 'warning', '', text, paths, True)
        for (text, grave), paths in damaged.items()
    ]


def _check_kinds(reads: list[_Read], host_loads: bool) -> list[Finding]:
    """Images that differ from one another, or that the hosts' loader does not take as they are."""
    findings = []
    probes = [(read.image, read.probe) for read in reads if read.probe is not None]
    turned = [path for path, image in probes if image.orientation > 1]
    if turned:
        text = 'the EXIF orientation turns images when they are loaded, and never the label maps'
        findings.append(label_maps.in_files('warning', 'EXIF orientation', text, turned))
    if host_loads:
        findings += _not_taken(probes)
    tiffs = Counter(image.channels for path, image in probes if _is_tiff(path))
    if len(tiffs) > 1:
        (common, _), (rare, _) = tiffs.most_common()[0], tiffs.most_common()[-1]
        odd = [path for path, image in probes if _is_tiff(path) and image.channels == rare]
        text = f'{rare} channels, but other images have {common}'
        findings.append(label_maps.in_files('error', 'image', text, odd))
    return findings


def _not_taken(probes: list[tuple[Path, Probe]]) -> list[Finding]:
    """Images that LoadImageFromFile changes, or does not load."""
    findings = []
    transparent = {path for path, image in probes if _is_tiff(path) and image.mode == 'RGBA'}
    if transparent:
        text = "LoadImageFromFile multiplies a TIFF's colours by its alpha: load with swin_dense.LoadImage"
        findings.append(label_maps.in_files('warning', 'image', text, list(transparent)))
    kinds: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path, image in probes:
        if path in transparent:
            continue
        bands = image.channels if _is_tiff(path) else 3
        if bands not in (1, 3) or image.bits > 8:
            kinds[bands, image.bits].append(path)
    for (bands, bits), paths in sorted(kinds.items()):
        if bands not in (1, 3):
            text = f'{bands} channels: LoadImageFromFile loads some of them or none, and does not say so'
            load = f"dict(type='swin_dense.LoadImage', channels={bands})"
        else:
            text = f'{bits} bits a value: LoadImageFromFile keeps the upper 8 of 16 and loads no others'
            load = "dict(type='swin_dense.LoadImage')"
        text += f'; load with {load}'
        findings.append(label_maps.in_files('warning', 'image', text, paths))
    return findings


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in ('.tif', '.tiff')
