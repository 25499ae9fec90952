"""COCO's panoptic annotations: JSON with the segments of each image, beside PNGs with their pixels.

The format: https://cocodataset.org/#format-data, section 4. ``panoptic_pngs`` reads the PNGs.
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from swin_dense.console.findings import Finding, errors, some
from swin_dense.formats.coco_json import uncollected
from swin_dense.formats.json_entries import (
    Fields,
    leaves_folder,
    more_than_once,
    odd_names,
    odd_sizes,
    parse,
    read_fields,
    refuse_errors,
    state,
)

REQUIRED = {
    'categories': ('name', 'id', 'isthing'),
    'images': ('file_name', 'id', 'height', 'width'),
    'annotations': ('image_id', 'file_name', 'segments_info'),
}
SEGMENT = ('id', 'category_id', 'bbox', 'area')  # fields of a segment; iscrowd may lack
IDS = 256**3  # of segments, 0 is none: what three bytes hold
MOST = 255  # classes: mmdet ignores pixels of the label 255


class Classes(NamedTuple):
    """The classes of a file. Labels number the things first, as the heads of the hosts do.

    Attributes:
        things: names of the classes whose objects are told apart, in the order of the file.
        stuff: names of the others.
    """

    things: tuple[str, ...]
    stuff: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each label."""
        return self.things + self.stuff


class Loaded(NamedTuple):
    """The content of a file and what is wrong with it."""

    content: dict
    findings: tuple[Finding, ...]


def read_panoptic(path: Path) -> dict:
    """The content of an annotation file; a file that did not change is parsed once, until ``forget()``.

    Raises:
        UserError: it is missing, not JSON, or its lists, fields or ids are not those of the format.
    """
    content, findings = read_with_findings(path)
    refuse_errors(findings)
    return content


def read_with_findings(path: Path) -> tuple[dict, list[Finding]]:
    """As ``read_panoptic``, with its problems as findings. After an error the content must not be used.

    Raises:
        UserError: the file is missing, or no regular file.
        UnsafeFileError: it is a pickle.
    """
    loaded = _load(path, *state(path))
    return loaded.content, list(loaded.findings)


def forget() -> None:
    """Let go of what was read."""
    _load.cache_clear()


def classes(content: Mapping) -> Classes:
    """The classes of a content in which nothing is wrong."""
    return Classes(
        tuple(category['name'] for category in content['categories'] if category['isthing']),
        tuple(category['name'] for category in content['categories'] if not category['isthing']),
    )


def labels(content: Mapping) -> dict[int | str, int]:
    """The label of each category id."""
    order = {name: label for label, name in enumerate(classes(content).names)}
    return {category['id']: order[category['name']] for category in content['categories']}


@lru_cache(maxsize=2)  # a training and a validation file
@uncollected()
def _load(path: Path, time: int, size: int) -> Loaded:
    content, _, problems = parse(path, 'panoptic')
    if problems:
        return Loaded(content, problems)
    fields, wrong = read_fields(path, content, REQUIRED, {})
    if not wrong:
        wrong = [*_entries(path, content, fields), *odd_names(path, content)]
        wrong += odd_sizes(path, content['images'])
    if not errors(wrong):
        wrong += _segments(path, content)
    return Loaded(content, tuple(wrong))


def _entries(path: Path, content: dict, fields: Fields) -> list[Finding]:
    """What is wrong with categories, images and annotations, less their segments."""
    findings = []

    def add(where: str, message: str, examples: list) -> None:
        if examples:
            findings.append(Finding('error', path, where, message, **some(examples)))

    for name in ('categories', 'images'):
        what = 'ids that more than one entry has, so that one hides the other'
        add(f'{name}.id', what, more_than_once(fields[name]['id']))
    strange = [entry['id'] for entry in content['categories'] if entry['isthing'] not in (0, 1)]
    add('categories.isthing', 'neither 0 (stuff) nor 1 (a thing); category ids', strange)
    if len(content['categories']) > MOST:
        add('categories', f'more than {MOST}, which is the label of pixels without a class', [MOST])
    images = fields['annotations']['image_id']
    add('annotations.image_id', 'images with more than one annotation; image ids', more_than_once(images))
    unknown = set(images) - set(fields['images']['id'])
    add('annotations.image_id', 'no image has it; image ids', sorted(unknown, key=str))
    lacking = set(fields['images']['id']) - set(images)
    add('images', 'images without an annotation; image ids', sorted(lacking, key=str))
    names = fields['annotations']['file_name']
    outside = [str(name) for name in names if not isinstance(name, str) or leaves_folder(name)]
    add('annotations.file_name', 'not a path below the folder of PNGs', outside)
    listless = [e['image_id'] for e in content['annotations'] if not isinstance(e['segments_info'], list)]
    add('annotations.segments_info', 'no list; image ids', listless)
    return findings


def _segments(path: Path, content: dict) -> list[Finding]:
    """What is wrong with the segments, by problem, with the ids of the images."""
    categories = {category['id'] for category in content['categories']}
    stuff = {category['id'] for category in content['categories'] if not category['isthing']}
    problems: dict[str, list] = {}
    repeated: list[int | str] = []
    for annotation in content['annotations']:
        segments = annotation['segments_info']
        for problem in {_problem(segment, categories) for segment in segments} - {''}:
            problems.setdefault(problem, []).append(annotation['image_id'])
        if problems:
            continue
        counts = Counter(segment['id'] for segment in segments)
        if len(counts) < len(segments):
            problem = 'segments with the same id: they would overlap'
            problems.setdefault(problem, []).append(annotation['image_id'])
        regions = Counter(s['category_id'] for s in segments if s['category_id'] in stuff)
        if regions and max(regions.values()) > 1:
            repeated.append(annotation['image_id'])
    field = 'annotations.segments_info'
    findings = [
        Finding('error', path, field, f'{problem}; image ids', **some(images))
        for problem, images in problems.items()
    ]
    if repeated:
        what = 'several segments of one stuff class, which a model predicts as one; image ids'
        findings.append(Finding('warning', path, field, what, **some(repeated)))
    return findings


def _problem(segment: Any, categories: set) -> str:  # noqa: ANN401  whatever JSON holds
    """The problem of a segment, empty if there is none."""
    if type(segment) is not dict:
        return 'a segment is no object'
    lacking = next((key for key in SEGMENT if key not in segment), None)
    if lacking is not None:
        return f'a segment lacks the field {lacking!r}'
    if type(segment['id']) is not int or not 0 < segment['id'] < IDS:
        return f'the id of a segment is no whole number from 1 to {IDS - 1}'
    if type(segment['category_id']) not in (int, str) or segment['category_id'] not in categories:
        return 'the category_id of a segment is that of no category'
    if segment.get('iscrowd', 0) not in (0, 1):
        return 'iscrowd of a segment is neither 0 nor 1'
    box = segment['bbox']
    if type(box) is not list or len(box) != 4 or not all(map(_is_number, box)):
        return 'bbox of a segment is not four numbers [x, y, width, height]'
    return '' if _is_number(segment['area']) else 'the area of a segment is no number'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -1e9 < value < 1e9
