"""The histogram of a split's label maps, and what it says against the classes of a config."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from swin_dense.console.findings import Finding, Severity, some, some_of_several
from swin_dense.data.zero_label import of_labels
from swin_dense.formats.label_maps import IGNORED, StoredLabels

SHOWN_VALUES = 5  # label values that get a finding of their own
SHOWN_CLASSES = 20


@dataclass
class Histogram:
    """The labels of a split.

    Attributes:
        classes: names.
        reduce_zero_label: whether label 0 is ignored and class i has label i + 1.
        counts: (256,) int64 pixels of each label.
        files: label maps with each label.
        wrapped: label maps with each value that uint8 does not hold, and what becomes of it.
        blank: label maps in which every pixel is ignored.
        maps: how many were counted.
    """

    classes: tuple[str, ...]
    reduce_zero_label: bool
    counts: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    files: dict[int, list[Path]] = field(default_factory=lambda: defaultdict(list))
    wrapped: dict[tuple[float, int], list[Path]] = field(default_factory=lambda: defaultdict(list))
    blank: list[Path] = field(default_factory=list)
    maps: int = 0

    def add(self, path: Path, label_map: StoredLabels) -> None:
        """Count one more."""
        self.maps += 1
        self.counts += label_map.counts
        for label in np.flatnonzero(label_map.counts).tolist():
            self.files[label].append(path)
        for change in label_map.wrapped.items():
            self.wrapped[change].append(path)
        ignored = label_map.counts[list(self.ignored())].sum()
        if ignored == label_map.counts.sum():
            self.blank.append(path)

    def ignored(self) -> tuple[int, ...]:
        return (0, IGNORED) if self.reduce_zero_label else (IGNORED,)

    def valid(self) -> range:
        """The labels that are classes."""
        first = int(self.reduce_zero_label)
        return range(first, min(first + len(self.classes), IGNORED))

    def beyond(self) -> list[int]:
        """Labels that are neither a class nor ignored."""
        return [label for label in sorted(self.files) if label not in (*self.valid(), *self.ignored())]

    def share(self, label: int) -> str:
        return f'{100 * self.counts[label] / max(self.counts.sum(), 1):.3g} %'


def findings(histogram: Histogram, folder: Path, complete: bool) -> list[Finding]:
    """What the labels of a split say.

    Args:
        histogram: of its label maps.
        folder: theirs.
        complete: whether all were counted; of a sample, what is absent proves nothing.
    """
    if not histogram.maps:
        return []
    findings = [*_wrapped(histogram), *_beyond(histogram)]
    if not histogram.beyond():
        findings += _zero_label(histogram, folder, complete)
    if len(histogram.blank) == histogram.maps:
        findings.append(
            Finding('error', folder, '', 'every pixel of every label map is ignored: nothing to learn')
        )
    elif histogram.blank:
        text = 'label maps in which every pixel is ignored'
        findings.append(Finding('note', folder, '', text, **some(path.name for path in histogram.blank)))
    return [*findings, *_classes(histogram, folder, complete)]


def _wrapped(histogram: Histogram) -> list[Finding]:
    """Values that uint8 changes; what becomes 255 is ignored, as 65535 and -1 are mostly meant to be."""
    findings = []
    changes = sorted(histogram.wrapped.items(), key=lambda item: item[0][1] == IGNORED)
    for (value, label), paths in changes[:SHOWN_VALUES]:
        known = label in (*histogram.valid(), *histogram.ignored())
        effect = 'and is ignored' if label in histogram.ignored() else _meaning(histogram, label)
        severity: Severity = 'warning' if label == IGNORED else 'error'
        message = f'mmseg casts labels to uint8: {value:g} becomes {label}' + (f' {effect}' if known else '')
        findings.append(in_files(severity, f'label {value:g}', message, paths))
    return findings + _rest(
        changes[SHOWN_VALUES:], 'values that uint8 does not hold', lambda item: item[0][0]
    )


def _beyond(histogram: Histogram) -> list[Finding]:
    """Labels that are no class."""
    valid, beyond = histogram.valid(), histogram.beyond()
    count = len(histogram.classes)
    hint = ''
    if not histogram.reduce_zero_label and beyond == [count]:
        hint = '; with reduce_zero_label=True the labels fit: is 0 unlabelled? (--zero-label ignored)'
    message = (
        f'{count} classes and reduce_zero_label={histogram.reduce_zero_label}: labels are {valid.start} to '
        f'{valid.stop - 1}, and {" and ".join(map(str, histogram.ignored()))} ignored; training fails with '
        f'an IndexError, and validation leaves these pixels out{hint}'
    )
    rest = [(label, histogram.files[label]) for label in beyond[SHOWN_VALUES:]]
    return [
        in_files('error', f'label {label}', message, histogram.files[label])
        for label in beyond[:SHOWN_VALUES]
    ] + _rest(rest, 'labels that are no class', lambda item: item[0])


def _zero_label(histogram: Histogram, folder: Path, complete: bool) -> list[Finding]:
    """What becomes of label 0, and whether the labels speak against it."""
    if 0 not in histogram.files:
        return []
    names, last = histogram.classes, len(histogram.classes)
    covers = f'label 0 covers {histogram.share(0)} of pixels and '
    if not histogram.reduce_zero_label:
        text = covers + f'reduce_zero_label=False: it is trained as class {names[0]!r}'
        return [Finding('note', folder, 'reduce_zero_label', text)]
    text = covers + 'reduce_zero_label=True: it is ignored in training and evaluation'
    used = [label for label in histogram.valid() if label in histogram.files]
    if last < 2 or last in histogram.files or used != list(range(1, last)):
        return [Finding('note', folder, 'reduce_zero_label', text)]
    text += (
        f'; but 0 to {last - 1} all occur and {last} never does, as if 0 were class {names[0]!r} and not '
        f'unlabelled: is reduce_zero_label=False meant? (--zero-label class)'
    )
    certain = complete and of_labels(histogram.files, names) == 'class'
    return [Finding('error' if certain else 'warning', folder, 'reduce_zero_label', text)]


def _classes(histogram: Histogram, folder: Path, complete: bool) -> list[Finding]:
    """The share of pixels of each class, and the classes without any."""
    labels = {label: histogram.classes[label - histogram.valid().start] for label in histogram.valid()}
    present = sorted((x for x in labels if histogram.counts[x]), key=lambda x: -histogram.counts[x])
    shares = [f'{labels[label]} {histogram.share(label)}' for label in present[:SHOWN_CLASSES]]
    if len(present) > SHOWN_CLASSES:
        shares.append(f'{len(present) - SHOWN_CLASSES} more classes')
    ignored = sum(int(histogram.counts[label]) for label in histogram.ignored())
    shares.append(f'ignored {100 * ignored / max(histogram.counts.sum(), 1):.3g} %')
    findings = [Finding('note', folder, 'pixels', ', '.join(shares))]
    absent = [name for label, name in labels.items() if not histogram.counts[label]]
    if absent and complete:
        findings.append(Finding('note', folder, 'classes', 'without a pixel', **some(absent)))
    return findings


def _meaning(histogram: Histogram, label: int) -> str:
    if label not in histogram.valid():
        return ''
    return f'and is trained as class {histogram.classes[label - histogram.valid().start]!r}'


def in_files(
    severity: Severity, where: str, message: str, paths: list[Path], samples: bool = False
) -> Finding:
    """A finding in the first of some files, that names the others."""
    ordered = sorted(paths)
    others = some_of_several([path.name for path in ordered])
    return Finding(severity, ordered[0], where, message, **others, samples=samples)


def _rest(items: list, text: str, value: Callable) -> list[Finding]:
    """One finding for what has none of its own."""
    if not items:
        return []
    return [Finding('error', sorted(items[0][1])[0], 'labels', f'more {text}', **some(map(value, items)))]
