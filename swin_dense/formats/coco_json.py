"""Reading a COCO annotation file: its JSON, its three lists, and the keys and ids of their entries."""

import gc
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from swin_dense.console.findings import Finding, some
from swin_dense.formats.json_entries import (
    Fields,
    more_than_once,
    odd_names,
    odd_sizes,
    parse,
    read_fields,
    refuse_errors,
    state,
)

# what training cannot do without, the first to be looked for first
REQUIRED = {
    'categories': ('name', 'id'),
    'images': ('file_name', 'id', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
}
OPTIONAL = ('iscrowd', 'ignore', 'segmentation')  # of annotations
LARGE = 20_000_000  # characters


class Columns(NamedTuple):
    """The annotations of a file, a list for each field; None where one lacks it.

    A million entries lie all over the memory: each is fetched once here, and not again for every question.
    """

    ids: list
    image_ids: list
    category_ids: list
    bboxes: list
    areas: list
    crowd: list
    ignore: list
    masks: list


class Loaded(NamedTuple):
    """The content of a file, what is wrong with it, and if that is nothing grave its annotations.

    ``content`` lacks the categories whose ids are in ``repeats``, see ``unused_repeats``.
    """

    content: dict
    findings: tuple[Finding, ...]
    annotations: Columns | None = None
    repeats: tuple[int | str, ...] = ()


def read_annotations(path: Path) -> dict:
    """The content of an annotation file; a file that did not change is parsed once, until ``forget()``.

    Raises:
        UserError: it is missing, not JSON, or its lists, keys or ids are not those of COCO annotations.
    """
    content, findings = read_with_findings(path)
    refuse_errors(findings)
    return content


def read_with_findings(path: Path) -> tuple[dict, list[Finding]]:
    """As ``read_annotations``, with its problems as findings. After an error the content must not be used.

    Raises:
        UserError: the file is missing, or no regular file.
        UnsafeFileError: it is a pickle.
    """
    loaded = _cached(path)
    return loaded.content, list(loaded.findings)


def has_repeats(path: Path) -> bool:
    """Whether ``read_annotations`` leaves out categories of a file."""
    return bool(_cached(path).repeats)


def columns(path: Path) -> Columns:
    """The annotations of a file in which ``read_with_findings`` found no error."""
    annotations = _cached(path).annotations
    if annotations is None:
        raise ValueError(f'{path} has errors: it has no annotations to use')
    return annotations


def _cached(path: Path) -> Loaded:
    return _load(path, *state(path))


def forget() -> None:
    """Let go of what was read: gigabytes for a large set, of no use once it is checked."""
    _load.cache_clear()
    gc.unfreeze()


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection, which would go through the millions of lists of a file again and again."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@lru_cache(maxsize=2)  # a training and a validation file
@uncollected()
def _load(path: Path, time: int, size: int) -> Loaded:
    parsed = parse(path, 'COCO')
    if parsed.findings:
        return Loaded(parsed.content, parsed.findings)
    loaded = _entries(path, parsed.content)
    if parsed.length > LARGE:
        gc.freeze()  # nor does a later collection go through it: forget() ends that
    return loaded


def _entries(path: Path, content: dict) -> Loaded:
    """Keys and ids: what is wrong here makes every further question meaningless."""
    fields, problems = read_fields(path, content, REQUIRED, {'annotations': OPTIONAL})
    if problems:
        return Loaded(content, tuple(problems))
    annotations = Columns(*fields['annotations'].values())
    findings = _repeated(path, fields)
    repeats = () if findings else _ids(unused_repeats(content['categories'], set(annotations.category_ids)))
    if repeats:
        kept = [category for category in content['categories'] if category['id'] not in repeats]
        content = {**content, 'categories': kept}
        what = 'categories without an annotation that repeat the name of another are left out; ids'
        findings.append(Finding('warning', path, 'categories', what, **some(repeats)))
    findings += [*odd_names(path, content), *odd_sizes(path, content['images'])]
    return Loaded(content, tuple(findings), annotations, repeats)


def unused_repeats(categories: Sequence[dict], used: Collection[int | str]) -> list[dict]:
    """Categories without an annotation that have the name of another one.

    Roboflow exports them: its category 0 is the supercategory, which often bears the name of a class. Of
    several that all have no annotation the last is the class.

    Args:
        categories: of an annotation file.
        used: ids of those that have annotations.
    """
    by_name: dict[str, list[dict]] = {}
    for category in categories:
        by_name.setdefault(str(category['name']), []).append(category)
    repeats = []
    for group in by_name.values():
        unused = [category for category in group if category['id'] not in used]
        repeats += unused if len(unused) < len(group) else unused[:-1]
    return repeats


def _ids(entries: Sequence[dict]) -> tuple[int | str, ...]:
    return tuple(entry['id'] for entry in entries)


def _repeated(path: Path, fields: Fields) -> list[Finding]:
    problems = []
    for name in REQUIRED:
        repeated = more_than_once(fields[name]['id'])
        if repeated:
            what = 'ids that more than one entry has, so that one hides the other'
            problems.append(Finding('error', path, f'{name}.id', what, **some(repeated)))
    return problems
