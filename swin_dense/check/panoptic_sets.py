"""What is wrong with a COCO-panoptic data set: the annotation file, the images, and the PNGs of segments."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config
from rich.progress import track

from swin_dense.check.image_files import check_files
from swin_dense.console.findings import Finding, errors, skippable, some
from swin_dense.data import coco
from swin_dense.data.fields import inner_datasets, loaders, refuse_code
from swin_dense.data.panoptic import Split, annotation_file, find_annotations, find_split, png_folder
from swin_dense.errors import UserError
from swin_dense.formats import panoptic_json
from swin_dense.formats.images import BadImageError
from swin_dense.formats.panoptic_pngs import read_ids

SAMPLED = 20  # PNGs whose pixels are compared with the annotations, without --decode
TOLERANCE = 1.0  # pixels by which a box may differ


@dataclass(frozen=True)
class Problem:
    """A disagreement of pixels and annotations: the field, the message, and whether it is an error."""

    field: str
    message: str
    grave: bool = True


def check_config(config: Config, decode: bool, splits: Sequence[str], skip_bad: bool) -> list[Finding]:
    """Check the panoptic data sets of a config, each once; arguments and errors as ``check_objects``."""
    refuse_code(config)
    findings: list[Finding] = []
    uses: dict[Split, bool] = {}
    for name, loader in loaders(config).items():
        for dataset in inner_datasets(loader['dataset']) if name in splits else ():
            root = Path(dataset.get('data_root') or '')
            images = root / ((dataset.get('data_prefix') or {}).get('img') or '')
            split = Split(annotation_file(dataset), images, png_folder(dataset))
            uses[split] = uses.get(split, False) or name != 'train'
    for split, scored in uses.items():
        of_split = check_split(split, decode)
        findings += skippable(of_split) if skip_bad and not scored else of_split
    return findings


def check_folder(root: Path, decode: bool) -> list[Finding]:
    """Check the training and validation data of a folder.

    Raises:
        UserError: it has none.
    """
    findings: list[Finding] = []
    for split in splits_of(root):
        problems = panoptic_json.read_with_findings(find_annotations(root, split))[1]
        if errors(problems):
            findings += problems
            continue
        try:
            findings += check_split(find_split(root, split), decode)
        except UserError as error:
            findings.append(Finding('error', find_annotations(root, split), '', str(error)))
    return findings


def splits_of(root: Path) -> list[str]:
    """The splits of which a folder has panoptic annotations."""
    splits = []
    for split in ('train', 'val'):
        try:
            find_annotations(root, split)
        except UserError as error:
            if 'no panoptic' not in str(error):
                raise
        else:
            splits.append(split)
    return splits


def check_split(split: Split, decode: bool) -> list[Finding]:
    """Check one annotation file with its images and PNGs.

    Args:
        split: the files.
        decode: decode every image and PNG, rather than reading headers and decoding a few.

    Raises:
        UserError: the annotation file is missing.
    """
    path = split.annotations
    content, findings = panoptic_json.read_with_findings(path)
    if errors(findings):
        return findings
    for name in ('categories', 'images'):
        if not content[name]:
            findings.append(Finding('error', path, name, 'the list is empty'))
    if errors(findings):
        return findings
    findings += _notes(path, content)
    findings += check_files(coco.Split(path, split.images), content['images'], decode)
    files = {annotation['image_id']: annotation['file_name'] for annotation in content['annotations']}
    pngs = [{**image, 'file_name': files[image['id']]} for image in content['images']]
    of_pngs = check_files(coco.Split(path, split.pngs), pngs, decode)
    findings += of_pngs
    bad = {name for finding in errors(of_pngs) for name in finding.examples}
    sizes = {image['id']: (image['height'], image['width']) for image in content['images']}
    whole = [a for a in content['annotations'] if a['file_name'] not in bad and a['image_id'] not in bad]
    chosen: Iterable[dict] = whole
    if not decode:
        places = np.linspace(0, len(whole) - 1, min(SAMPLED, len(whole))).astype(int)
        chosen = [whole[place] for place in dict.fromkeys(places.tolist())]
    else:
        chosen = track(whole, 'comparing PNGs with annotations', transient=True)
    return findings + _check_pixels(split, chosen, sizes, {c['id']: c for c in content['categories']})


def count_segments(path: Path) -> dict[str, int]:
    """Segments of each class, crowds left out, in the order of the labels."""
    content = panoptic_json.read_panoptic(path)
    labels = panoptic_json.labels(content)
    counts = Counter(
        labels[segment['category_id']]
        for annotation in content['annotations']
        for segment in annotation['segments_info']
        if not segment.get('iscrowd')
    )
    return {name: counts[label] for label, name in enumerate(panoptic_json.classes(content).names)}


def _notes(path: Path, content: dict) -> list[Finding]:
    findings = []
    present = panoptic_json.classes(content)
    for kind, names in (('things', present.things), ('stuff', present.stuff)):
        if not names:
            what = f'no category is {"a thing" if kind == "things" else "stuff"}: is isthing right?'
            findings.append(Finding('warning', path, 'categories.isthing', what))
    counts = count_segments(path)
    if absent := [name for name, count in counts.items() if not count]:
        what = f'classes of {len(counts)} without any segment'
        findings.append(Finding('note', path, 'categories', what, **some(absent)))
    if not any(counts.values()):
        what = '0 usable of 0: a model would learn that there is nothing'
        findings.append(Finding('error', path, 'annotations.segments_info', what))
    stuff = {c['id'] for c in content['categories'] if not c['isthing']}
    crowds = [
        annotation['image_id']
        for annotation in content['annotations']
        if any(s.get('iscrowd') and s['category_id'] in stuff for s in annotation['segments_info'])
    ]
    if crowds:
        what = 'crowds of stuff, which is not told apart anyway; image ids'
        findings.append(Finding('warning', path, 'annotations.segments_info', what, **some(crowds)))
    return findings


def _check_pixels(
    split: Split, annotations: Iterable[dict], sizes: dict, categories: dict[int | str, dict]
) -> list[Finding]:
    """Compare the pixels of PNGs with their annotations, by problem."""
    problems: dict[Problem, list[str]] = {}
    for annotation in annotations:
        try:
            ids = read_ids(split.pngs / annotation['file_name'])
        except BadImageError as error:
            problems.setdefault(Problem('', str(error)), []).append(annotation['file_name'])
            continue
        if ids.shape != sizes[annotation['image_id']]:
            continue  # a finding of its own
        for problem in _problems(ids, annotation['segments_info'], categories):
            problems.setdefault(problem, []).append(annotation['file_name'])
    return [
        Finding(
            'error' if problem.grave else 'warning',
            split.pngs,
            problem.field,
            f'{problem.message}; PNGs',
            **some(names),
            samples=problem.grave,
        )
        for problem, names in problems.items()
    ]


def _problems(ids: np.ndarray, segments: list[dict], categories: dict[int | str, dict]) -> set[Problem]:
    """What the pixels of a PNG say against its segments."""
    present, counts = np.unique(ids, return_counts=True)
    areas = dict(zip(present.tolist(), counts.tolist(), strict=True))
    problems = set()
    if set(areas) - {0, *(segment['id'] for segment in segments)}:
        problems.add(Problem('colours', 'pixels whose id R + 256 G + 65536 B no segment has'))
    for segment in segments:
        area = areas.get(segment['id'], 0)
        if not area:
            problems.add(Problem('segments_info.id', 'a segment without a pixel in the PNG'))
            continue
        if area != segment['area']:
            what = 'area is not the number of pixels in the PNG'
            problems.add(Problem('segments_info.area', what, segment['area'] <= 0))
        if categories[segment['category_id']]['isthing'] and _box_differs(ids == segment['id'], segment):
            what = 'bbox [x, y, width, height] is not that of the pixels in the PNG'
            problems.add(Problem('segments_info.bbox', what, False))
    return problems


def _box_differs(mask: np.ndarray, segment: dict) -> bool:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = columns[0], rows[0]
    box = np.array([x, y, columns[-1] + 1 - x, rows[-1] + 1 - y])
    return bool(np.abs(box - segment['bbox']).max() > TOLERANCE)
