"""Real sets, broken in one place each: the quick check names the file, and the id or the field."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from swin_dense.check import data_sets
from swin_dense.console.findings import Finding, errors, stop_on_errors
from swin_dense.errors import UserError

# set: annotation file of its validation split, and the folder of the images
SETS = {
    'nuclei': ('instances_val.json', 'val'),
    'coco-mini': ('annotations/instances_val2017.json', 'val2017'),
}


class Broken:
    """A copy of a real set's validation split: its JSON to be changed, its images as links."""

    def __init__(self, source: Path, name: str, root: Path) -> None:
        self.root = root
        self.path, self.images = (root / part for part in SETS[name])
        self.content: dict[str, Any] = json.loads((source / SETS[name][0]).read_text())
        self.path.parent.mkdir(exist_ok=True)
        self.images.mkdir()
        for image in (source / SETS[name][1]).iterdir():
            (self.images / image.name).symlink_to(image)

    def write(self, text: str | None = None) -> None:
        self.path.write_text(json.dumps(self.content) if text is None else text)

    def image(self, number: int) -> Path:
        return self.images / self.content['images'][number]['file_name']

    def replace(self, number: int, content: bytes) -> str:
        path = self.image(number)
        path.unlink()
        path.write_bytes(content)
        return path.name

    def check(self) -> list[Finding]:
        return data_sets.check_folder(self.root, decode=False)


@pytest.fixture(params=SETS)
def broken(request: pytest.FixtureRequest, shared: Callable[[str], Path], tmp_path: Path) -> Broken:
    return Broken(shared(request.param), request.param, tmp_path)


def last(broken: Broken) -> dict:
    return broken.content['annotations'][-1]


def cut_json(broken: Broken) -> tuple[str, str]:
    broken.write(json.dumps(broken.content)[:-1000])
    return broken.path.name, 'column'


def byte_order_mark(broken: Broken) -> tuple[str, str]:
    broken.write('\ufeff' + json.dumps(broken.content))
    return broken.path.name, 'byte order mark'


def only_the_annotations(broken: Broken) -> tuple[str, str]:
    broken.write(json.dumps(broken.content['annotations']))
    return broken.path.name, 'list'


def no_area(broken: Broken) -> tuple[str, str]:
    del last(broken)['area']
    return 'annotations', "'area'"


def the_same_id_twice(broken: Broken) -> tuple[str, str]:
    last(broken)['id'] = first = broken.content['annotations'][0]['id']
    return 'annotations.id', str(first)


def the_same_image_id_twice(broken: Broken) -> tuple[str, str]:
    broken.content['images'][-1]['id'] = first = broken.content['images'][0]['id']
    return 'images.id', str(first)


def unknown_category(broken: Broken) -> tuple[str, str]:
    last(broken)['category_id'] = 4711
    return 'annotations.category_id', str(last(broken)['id'])


def box_of_text(broken: Broken) -> tuple[str, str]:
    last(broken)['bbox'] = [str(x) for x in last(broken)['bbox']]
    return 'annotations.bbox', str(last(broken)['id'])


def box_of_five(broken: Broken) -> tuple[str, str]:
    last(broken)['bbox'].append(1.0)
    return 'annotations.bbox', str(last(broken)['id'])


def box_with_nan(broken: Broken) -> tuple[str, str]:
    last(broken)['bbox'][2] = float('nan')
    return 'annotations.bbox', str(last(broken)['id'])


def all_boxes_empty(broken: Broken) -> tuple[str, str]:
    for annotation in broken.content['annotations']:
        annotation['bbox'][2:] = [0, 0]
    return 'annotations', f'0 usable of {len(broken.content["annotations"])}'


def no_annotations(broken: Broken) -> tuple[str, str]:
    broken.content['annotations'] = []
    return 'annotations', '0 usable of 0'


def far_polygon(broken: Broken) -> tuple[str, str]:
    last(broken)['segmentation'] = [[10, 10, 1e9, 10, 20, 20]]
    return 'annotations.segmentation', str(last(broken)['id'])


def garbage_rle(broken: Broken) -> tuple[str, str]:
    sizes = {image['id']: [image['height'], image['width']] for image in broken.content['images']}
    last(broken)['segmentation'] = {'size': sizes[last(broken)['image_id']], 'counts': 'garbage' * 9}
    return 'annotations.segmentation', str(last(broken)['id'])


def vast_rle(broken: Broken) -> tuple[str, str]:
    last(broken)['segmentation'] = {'size': [200_000, 200_000], 'counts': [200_000**2]}
    return 'annotations.segmentation', str(last(broken)['id'])


def height_and_width_exchanged(broken: Broken) -> tuple[str, str]:
    image = next(image for image in broken.content['images'] if image['height'] != image['width'])
    image['height'], image['width'] = image['width'], image['height']
    return 'images.width, height', str(image['id'])


def up_and_out(broken: Broken) -> tuple[str, str]:
    image = broken.content['images'][-1]
    image['file_name'] = f'../{broken.images.name}/{image["file_name"]}'
    return 'images.file_name', image['file_name']


def address(broken: Broken) -> tuple[str, str]:
    image = broken.content['images'][-1]
    image['file_name'] = f'http://images.example/{image["file_name"]}'
    return 'images.file_name', image['file_name']


def missing_image(broken: Broken) -> tuple[str, str]:
    broken.image(-1).unlink()
    return 'images.file_name', broken.image(-1).name


def first_image_missing(broken: Broken) -> tuple[str, str]:
    broken.image(0).unlink()
    return 'images.file_name', broken.image(0).name


def truncated_image(broken: Broken) -> tuple[str, str]:
    whole = broken.image(-1).read_bytes()
    return str(broken.images), broken.replace(-1, whole[: len(whole) // 2])


def empty_image(broken: Broken) -> tuple[str, str]:
    return str(broken.images), broken.replace(-1, b'')


def html_image(broken: Broken) -> tuple[str, str]:
    return str(broken.images), broken.replace(-1, b'<!DOCTYPE html><html>404</html>')


def turned_image(broken: Broken) -> tuple[str, str]:
    """Pixels stored on their side with EXIF's word for it, annotated as stored."""
    number = next(i for i, image in enumerate(broken.content['images']) if image['height'] != image['width'])
    exif, path = Image.Exif(), broken.image(number)
    exif[0x0112] = 6
    with Image.open(path) as image:
        path.unlink()
        image.save(path, exif=exif)
    return 'images.width, height', str(broken.content['images'][number]['id'])


FAULTS = (
    *(cut_json, byte_order_mark, only_the_annotations, no_area, the_same_id_twice, the_same_image_id_twice),
    *(unknown_category, box_of_text, box_of_five, box_with_nan, all_boxes_empty, no_annotations),
    *(far_polygon, garbage_rle, vast_rle, height_and_width_exchanged, up_and_out, address),
    *(missing_image, first_image_missing, truncated_image, empty_image, html_image, turned_image),
)


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_named(broken: Broken, fault: Callable[[Broken], tuple[str, str]]):
    expected = fault(broken)
    if not broken.path.exists():
        broken.write()
    found = broken.check()
    # an exchanged size fits the run lengths of its masks as little as the file
    lines = [error.line() for error in errors(found)]
    assert any(all(part in line for part in (str(broken.root), *expected)) for line in lines), lines
    assert len(lines) == 1 or fault in (height_and_width_exchanged, all_boxes_empty)
    with pytest.raises(UserError) as caught:
        stop_on_errors(found)
    assert '\n' not in str(caught.value)


def test_the_copies_are_found_as_good_as_the_sets(broken: Broken):
    broken.write()
    found = broken.check()
    assert {finding.severity for finding in found if finding.field != 'links'} <= {'note'}
    assert [finding.severity for finding in found if finding.field == 'links'] == ['warning']


@pytest.mark.parametrize(('name', 'expected'), [('nuclei', []), ('coco-mini', ['note'] * 3)])
def test_the_real_sets(shared: Callable[[str], Path], name: str, expected: list[str]):
    """Two images of coco-mini have no objects, and some of its 80 classes no instance: that is so."""
    found = data_sets.check_folder(shared(name), decode=True)
    assert [finding.severity for finding in found] == expected


@pytest.fixture
def both(shared: Callable[[str], Path], tmp_path: Path) -> Path:
    """coco-mini with both splits, whose JSON may be written."""
    (tmp_path / 'annotations').mkdir()
    for split in ('train', 'val'):
        (tmp_path / f'{split}2017').symlink_to(shared('coco-mini') / f'{split}2017')
        name = f'annotations/instances_{split}2017.json'
        shutil.copyfile(shared('coco-mini') / name, tmp_path / name)
    return tmp_path


def change_categories(root: Path, change: Callable[[list[dict]], object]) -> None:
    path = root / 'annotations/instances_val2017.json'
    path.chmod(0o644)
    content = json.loads(path.read_text())
    change(content['categories'])
    path.write_text(json.dumps(content))


def test_a_class_with_another_name_in_validation(both: Path):
    change_categories(both, lambda categories: categories[0].update(name='persom'))
    (error,) = errors(data_sets.check_folder(both, decode=False))
    assert 'instances_val2017.json' in error.line()
    assert "'person' is not among the 80 categories" in error.message
    assert "did you mean 'persom'?" in error.message


def test_classes_in_another_order_in_validation(both: Path):
    """mmdet would number them differently in training and in validation."""
    change_categories(both, lambda categories: categories.reverse())
    (error,) = errors(data_sets.check_folder(both, decode=False))
    assert 'instances_val2017.json: categories: in another order' in error.line()
