"""The entries of a COCO file: JSON whose lists hold objects with fields, ids, names and sizes."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from swin_dense.console.findings import Finding, errors, some
from swin_dense.errors import UnsafeFileError, UserError
from swin_dense.storage.regular import other_kind

LISTS = ('images', 'annotations', 'categories')
IDS = ('id', 'image_id', 'category_id')
BOM = '\ufeff'
PICKLES = ('.pkl', '.pickle')
LONGEST = 2**63  # of whole numbers: NumPy holds none beyond, and no image or id needs it
CHUNK = 500  # entries that are read before the next are looked at: they stay in the cache

Fields = dict[str, dict[str, list]]  # of each list the values of each field, None where one lacks it


class Parsed(NamedTuple):
    """The content of a file, the number of its characters, and what is wrong with it."""

    content: Any
    length: int
    findings: tuple[Finding, ...] = ()


def state(path: Path) -> tuple[int, int]:
    """Time of change in ns and size in bytes of an annotation file.

    Raises:
        UserError: it is missing, or no regular file.
        UnsafeFileError: it is a pickle.
    """
    if path.suffix.lower() in PICKLES:
        raise UnsafeFileError(
            f'annotations {path} are refused: opening a pickle runs code that is in it; save them as JSON'
        )
    try:
        status = path.stat()
        if kind := other_kind(path):  # opening a named pipe would wait for ever
            raise UserError(f'annotations {path} cannot be read as JSON: they are {kind}')
    except (OSError, ValueError) as error:
        raise UserError(
            f'annotations {path} do not exist (looked for {path.absolute()}); try --data DIR'
        ) from error
    return status.st_mtime_ns, status.st_size


def refuse_errors(findings: Sequence[Finding]) -> None:
    """Raise the first error as a ``UserError`` that says how many more there are."""
    if problems := errors(findings):
        more = f' (and {len(problems) - 1} more: see tools/check_data.py)' if len(problems) > 1 else ''
        raise UserError(f'annotations {problems[0].line()}{more}')


def parse(path: Path, kind: str) -> Parsed:
    """Read a file as JSON with the three lists of COCO's files.

    Args:
        path: the file.
        kind: of annotations, for the message: ``'COCO'``.
    """
    try:
        # not json.loads(bytes), which would take UTF-16 too: pycocotools does not
        text = path.read_bytes().decode()
        if text.startswith(BOM):
            message = (
                'begins with a byte order mark, with which pycocotools does not read it; save it without'
            )
            return Parsed({}, len(text), (Finding('error', path, 'line 1, column 1', message),))
        content = json.loads(text)
    except (ValueError, RecursionError, OSError) as error:
        return Parsed({}, 0, (Finding('error', path, '', f'cannot be read as JSON: {error}'),))
    return Parsed(content, len(text), tuple(_lists(path, content, kind)))


def _lists(path: Path, content: Any, kind: str) -> list[Finding]:  # noqa: ANN401  whatever JSON holds
    is_object = isinstance(content, dict)
    lacks = [key for key in LISTS if not is_object or not isinstance(content.get(key), list)]
    if not lacks:
        return []
    top = '' if is_object else f'the top level is no object but a {type(content).__name__}, and '
    return [Finding('error', path, lacks[0], f'{top}the list {lacks[0]!r} is missing: no {kind} annotations')]


def read_fields(
    path: Path,
    content: Mapping[str, list],
    required: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]],
) -> tuple[Fields, list[Finding]]:
    """The fields of the entries of each list, and what is wrong with them; with an error they are of no use.

    Args:
        path: the file, for the findings.
        content: lists by name.
        required: fields that every entry of a list has; ``IDS`` among them are numbers or texts.
        optional: fields that it may have.
    """
    fields: Fields = {}
    lacks: list[Finding] = []
    odd: list[Finding] = []
    for name, keys in required.items():
        try:
            fields[name], kinds = _values(content[name], keys, optional.get(name, ()))
        except (TypeError, KeyError):
            if strangers := [i for i, entry in enumerate(content[name]) if type(entry) is not dict]:
                what = 'entries that are no objects; positions'
                return fields, [Finding('error', path, name, what, **some(strangers))]
            lacks += _lacking(path, name, content[name], keys)
        else:
            odd += _odd_ids(path, name, fields[name], kinds)
    return fields, lacks or odd


def _values(
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


def _lacking(path: Path, name: str, entries: list[dict], keys: Sequence[str]) -> Iterator[Finding]:
    for key in keys:
        if positions := [i for i, entry in enumerate(entries) if key not in entry]:
            yield Finding('error', path, name, f'the field {key!r} is missing; positions', **some(positions))


def _odd_ids(
    path: Path, name: str, fields: dict[str, list], kinds: dict[str, set[type]]
) -> Iterator[Finding]:
    for key, types in kinds.items():
        if strange := types - {int, str, float}:
            wrong = some(i for i, value in enumerate(fields[key]) if type(value) in strange)
            yield Finding('error', path, f'{name}.{key}', 'no number and no text; positions', **wrong)
        elif odd := [i for i, value in enumerate(fields[key]) if _is_odd(value)] if types - {int} else ():
            what = 'NaN or infinite, which is equal to no other id; positions'
            yield Finding('error', path, f'{name}.{key}', what, **some(odd))


def _is_odd(value: object) -> bool:
    return type(value) is float and not math.isfinite(value)


def more_than_once(values: Sequence) -> list:
    """The values that occur more than once."""
    if len(set(values)) == len(values):
        return []
    return [value for value, count in Counter(values).items() if count > 1]


def odd_names(path: Path, content: dict) -> list[Finding]:
    """Names of images and categories that are no text, leave the folder, or occur twice."""
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
    repeated = more_than_once(names)
    if repeated:
        what = 'names that more than one category has: labels would be counted twice'
        problems.append(Finding('error', path, 'categories.name', what, **some(repeated)))
    outside = [entry for entry in content['images'] if leaves_folder(entry['file_name'])]
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


def leaves_folder(name: str) -> bool:
    """Whether a file name is none of a file below a folder."""
    if name[:1] not in ('/', '\\', '') and '..' not in name and ':' not in name:
        return False  # nearly all
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return not name or '://' in name or '..' in windows.parts or posix.is_absolute() or bool(windows.anchor)


def odd_sizes(path: Path, images: list[dict]) -> list[Finding]:
    """Images whose width or height is no number of pixels."""
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
