"""Reading a COCO annotation file: its JSON, its three lists, and the keys and ids of their entries."""

import gc
import json
import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from swin_dense.console.findings import Finding, errors, some
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.storage.regular import other_kind

# what training cannot do without, the first to be looked for first
REQUIRED = {
    'categories': ('name', 'id'),
    'images': ('file_name', 'id', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
}
OPTIONAL = ('iscrowd', 'ignore', 'segmentation')  # of annotations
LISTS = ('images', 'annotations', 'categories')
IDS = ('id', 'image_id', 'category_id')
BOM = '\ufeff'
LARGE = 20_000_000  # characters
PICKLES = ('.pkl', '.pickle')
LONGEST = 2**63  # of whole numbers: NumPy holds none beyond, and no image or id needs it
CHUNK = 500  # entries that are read before the next are looked at: they stay in the cache


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
    problems = errors(findings)
    if problems:
        more = f' (and {len(problems) - 1} more: see tools/check_data.py)' if len(problems) > 1 else ''
        raise UserError(f'annotations {problems[0].line()}{more}')
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
    if path.suffix.lower() in PICKLES:
        raise UnsafeFileError(
            f'annotations {path} are refused: opening a pickle runs code that is in it; save them as JSON'
        )
    try:
        state = path.stat()
        if kind := other_kind(path):  # opening a named pipe would wait for ever
            raise UserError(f'annotations {path} cannot be read as JSON: they are {kind}')
    except (OSError, ValueError) as error:
        raise UserError(
            f'annotations {path} do not exist (looked for {path.absolute()}); try --data DIR'
        ) from error
    return _load(path, state.st_mtime_ns, state.st_size)


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
    try:
        # not json.loads(bytes), which would take UTF-16 too: pycocotools does not
        text = path.read_bytes().decode()
        if text.startswith(BOM):
            message = (
                'begins with a byte order mark, with which pycocotools does not read it; save it without'
            )
            return Loaded({}, (Finding('error', path, 'line 1, column 1', message),))
        content = json.loads(text)
    except (ValueError, RecursionError, OSError) as error:
        return Loaded({}, (Finding('error', path, '', f'cannot be read as JSON: {error}'),))
    if lacking := _lists(path, content):
        return Loaded(content, tuple(lacking))
    loaded = _entries(path, content)
    if len(text) > LARGE:
        gc.freeze()  # nor does a later collection go through it: forget() ends that
    return loaded


def _lists(path: Path, content: Any) -> list[Finding]:  # noqa: ANN401  whatever JSON holds
    is_object = isinstance(content, dict)
    lacking = [key for key in LISTS if not is_object or not isinstance(content.get(key), list)]
    if not lacking:
        return []
    kind = '' if is_object else f'the top level is no object but a {type(content).__name__}, and '
    return [
        Finding('error', path, lacking[0], f'{kind}the list {lacking[0]!r} is missing: no COCO annotations')
    ]


def _entries(path: Path, content: dict) -> Loaded:
    """Keys and ids: what is wrong here makes every further question meaningless."""
    fields: dict[str, dict[str, list]] = {}
    lacks: list[Finding] = []
    odd: list[Finding] = []
    for name, keys in REQUIRED.items():
        try:
            fields[name], kinds = _fields(content[name], keys, OPTIONAL if name == 'annotations' else ())
        except (TypeError, KeyError):
            if strangers := [i for i, entry in enumerate(content[name]) if type(entry) is not dict]:
                what = 'entries that are no objects; positions'
                return Loaded(content, (Finding('error', path, name, what, **some(strangers)),))
            lacks += _lacking(path, name, content[name])
        else:
            odd += _no_ids(path, name, fields[name], kinds)
    if problems := lacks or odd:
        return Loaded(content, tuple(problems))
    annotations = Columns(*fields['annotations'].values())
    findings = _repeated(path, fields)
    repeats = () if findings else _ids(unused_repeats(content['categories'], set(annotations.category_ids)))
    if repeats:
        kept = [category for category in content['categories'] if category['id'] not in repeats]
        content = {**content, 'categories': kept}
        what = 'categories without an annotation that repeat the name of another are left out; ids'
        findings.append(Finding('warning', path, 'categories', what, **some(repeats)))
    findings += [*_names(path, content), *_sizes(path, content['images'])]
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


def _fields(
    entries: list[dict], required: Sequence[str], optional: Sequence[str]
) -> tuple[dict[str, list], dict[str, set[type]]]:
    """The values of each field of N entries, N each, None where an optional one is not there; types of ids.

    Raises:
        TypeError: an entry is no object.
        KeyError: one lacks a required field.
    """
    fields: dict[str, list] = {key: [] for key in (*required, *optional)}
    kinds: dict[str, set[type]] = {key: set() for key in required if key in IDS}
    for begin in range(0, len(entries), CHUNK):
        chunk = entries[begin : begin + CHUNK]
        for key in required:
            values = [entry[key] for entry in chunk]
            fields[key] += values
            if key in kinds:
                kinds[key].update(map(type, values))
        for key in optional:
            fields[key] += [entry.get(key) for entry in chunk]
    return fields, kinds


def _lacking(path: Path, name: str, entries: list[dict]) -> Iterator[Finding]:
    for key in REQUIRED[name]:
        if positions := [i for i, entry in enumerate(entries) if key not in entry]:
            yield Finding('error', path, name, f'the field {key!r} is missing; positions', **some(positions))


def _no_ids(path: Path, name: str, fields: dict[str, list], kinds: dict[str, set[type]]) -> Iterator[Finding]:
    for key, types in kinds.items():
        if strange := types - {int, str, float}:
            wrong = some(i for i, value in enumerate(fields[key]) if type(value) in strange)
            yield Finding('error', path, f'{name}.{key}', 'no number and no text; positions', **wrong)
        elif odd := [i for i, value in enumerate(fields[key]) if _is_odd(value)] if types - {int} else ():
            what = 'NaN or infinite, which is equal to no other id; positions'
            yield Finding('error', path, f'{name}.{key}', what, **some(odd))


def _is_odd(value: object) -> bool:
    return type(value) is float and not math.isfinite(value)


def _repeated(path: Path, fields: dict[str, dict[str, list]]) -> list[Finding]:
    problems = []
    for name in REQUIRED:
        repeated = _more_than_once(fields[name]['id'])
        if repeated:
            what = 'ids that more than one entry has, so that one hides the other'
            problems.append(Finding('error', path, f'{name}.id', what, **some(repeated)))
    return problems


def _more_than_once(values: Sequence) -> list:
    if len(set(values)) == len(values):
        return []
    return [value for value, count in Counter(values).items() if count > 1]


def _names(path: Path, content: dict) -> list[Finding]:
    problems = []
    wrong = [entry['id'] for entry in content['images'] if not isinstance(entry['file_name'], str)]
    if wrong:
        problems.append(Finding('error', path, 'images.file_name', 'no text; image ids', **some(wrong)))
    names = [category['name'] for category in content['categories']]
    wrong = [entry['id'] for entry in content['categories'] if not isinstance(entry['name'], str)]
    if wrong:
        problems.append(Finding('error', path, 'categories.name', 'no text; category ids', **some(wrong)))
    if problems:
        return problems
    unwritable = [name for name in names if not _is_text(name)]
    if unwritable:
        what = 'half of a pair of surrogates, which no text can hold'
        problems.append(Finding('error', path, 'categories.name', what, **some(unwritable)))
    unwritable = [entry['id'] for entry in content['images'] if not _is_text(entry['file_name'])]
    if unwritable:
        what = 'half of a pair of surrogates, which no file name has; image ids'
        problems.append(Finding('error', path, 'images.file_name', what, **some(unwritable)))
    repeated = _more_than_once(names)
    if repeated:
        what = 'names that more than one category has: labels would be counted twice'
        problems.append(Finding('error', path, 'categories.name', what, **some(repeated)))
    outside = [entry for entry in content['images'] if _leaves_folder(entry['file_name'])]
    if outside:
        where = f'of image id {outside[0]["id"]}: '
        what = f'{where}not a path below the image folder (no address, nothing absolute, no ..)'
        shown = some(entry['file_name'] for entry in outside)
        problems.append(Finding('error', path, 'images.file_name', what, **shown))
    return problems


def _is_text(name: str) -> bool:
    """Whether a text can be written: JSON can state the halves of a pair of surrogates one by one."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _leaves_folder(name: str) -> bool:
    if name[:1] not in ('/', '\\', '') and '..' not in name and ':' not in name:
        return False  # nearly all
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return not name or '://' in name or '..' in windows.parts or posix.is_absolute() or bool(windows.anchor)


def _sizes(path: Path, images: list[dict]) -> list[Finding]:
    wrong = [
        image['id']
        for image in images
        if not (type(image['width']) is type(image['height']) is int and 0 < image['width'] < LONGEST)
        or not 0 < image['height'] < LONGEST
    ]
    if not wrong:
        return []
    what = 'no whole number of pixels above 0; image ids'
    return [Finding('error', path, 'images.width, height', what, **some(wrong))]
