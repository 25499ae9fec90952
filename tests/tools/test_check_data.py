"""tools/check_data.py, and the same check before training and testing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from swin_dense import tasks
from swin_dense.console import terminal
from swin_dense.console.findings import errors
from swin_dense.demo import shapes
from swin_dense.engine import data_check, prepare
from swin_dense.errors import UserError
from swin_dense.formats import coco_json, json_entries
from tests.tools.running import Ended, in_process

ROOT = Path(__file__).parents[2]
DETECTION = ROOT / 'configs/demo/mask_rcnn_swin_nano.py'


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> Callable[..., Ended]:
    return in_process(monkeypatch, capfd)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data')
    shapes.write(root, train=5, val=3)
    return root / 'coco'


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return shutil.copytree(drawn, tmp_path / 'coco')


def annotations(data: Path, split: str = 'train') -> Path:
    return data / 'annotations' / f'instances_{split}2017.json'


def break_box(data: Path, split: str = 'train') -> int:
    """A box of five numbers; returns the id of its annotation."""
    path = annotations(data, split)
    content = json.loads(path.read_text())
    content['annotations'][2]['bbox'].append(1)
    path.write_text(json.dumps(content))
    return content['annotations'][2]['id']


def shrink_box(data: Path, split: str = 'train') -> int:
    """A box without a width; returns the id of its annotation."""
    path = annotations(data, split)
    content = json.loads(path.read_text())
    content['annotations'][2]['bbox'][2] = 0
    path.write_text(json.dumps(content))
    return content['annotations'][2]['id']


@pytest.mark.parametrize('decode', [False, True])
@pytest.mark.parametrize('with_config', [False, True])
def test_a_good_set(tool: Callable, data: Path, with_config: bool, decode: bool):
    what = (DETECTION, '--data', data) if with_config else (data,)
    done = tool('check_data', *what, *(['--decode'] if decode else []))
    assert done.status == 0
    assert 'instances_train2017.json' in done.out
    assert 'error' not in done.out
    counts = dict.fromkeys(shapes.CLASSES, 0)
    content = json.loads(annotations(data).read_text())
    for annotation in content['annotations']:
        counts[shapes.CLASSES[annotation['category_id'] - 1]] += not annotation['iscrowd']
    for name, count in counts.items():
        (row,) = (line.split('│')[1:] for line in done.out.splitlines() if f' {name} ' in line)
        assert int(row[1]) == count


@pytest.mark.parametrize('with_config', [False, True])
def test_errors_are_a_table_and_status_2(tool: Callable, data: Path, with_config: bool):
    wrong, small = break_box(data), shrink_box(data, 'val')
    done = tool('check_data', *((DETECTION, '--data', data) if with_config else (data,)))
    assert 'one error' in done.error()
    plain = ' '.join(done.out.replace('│', ' ').split())
    assert 'not four numbers' in plain
    assert f'({wrong})' in plain
    assert f'({small})' in plain
    assert plain.index('not four numbers') < plain.index('below one pixel')


def test_json_and_nothing_else(tool: Callable, data: Path):
    wrong = break_box(data)
    done = tool('check_data', data, '--json', '--decode')
    assert done.status == 2
    result = json.loads(done.out)
    (error,) = (finding for finding in result['findings'] if finding['severity'] == 'error')
    assert error['examples'] == [wrong]
    assert error['field'] == 'annotations.bbox'
    assert error['file'] == str(annotations(data))
    assert set(result['instances']) == {str(annotations(data, split)) for split in ('train', 'val')}


@pytest.mark.parametrize('with_config', [False, True])
def test_json_of_a_file_that_is_none(tool: Callable, data: Path, with_config: bool):
    annotations(data, 'val').write_text('{"images": [')
    done = tool('check_data', *((DETECTION, '--data', data) if with_config else (data,)), '--json')
    assert done.status == 2
    (error,) = json.loads(done.out)['findings']
    assert 'line 1 column 13' in error['message']
    assert 'instances_val2017.json' in error['file'] + error['message']


MISTAKES = {
    'no folder': (['{tmp}/absent'], 'config {tmp}/absent does not exist'),
    'an empty folder': (['{tmp}/empty'], 'no COCO annotations either'),
    'data for a folder': (['{tmp}/empty', '--data', '{tmp}'], '--data and --cfg-options go with a config'),
}


@pytest.mark.parametrize('what', MISTAKES)
def test_mistakes(tool: Callable, tmp_path: Path, what: str):
    (tmp_path / 'empty').mkdir()
    arguments, expected = MISTAKES[what]
    done = tool('check_data', *(part.format(tmp=tmp_path) for part in arguments), '--json')
    assert done.status == 2
    findings = json.loads(done.out)['findings'] if done.out else []
    text = done.err + ''.join(finding['message'] for finding in findings)
    assert expected.format(tmp=tmp_path) in text


def test_training_stops_before_it_starts(tool: Callable, data: Path, tmp_path: Path):
    wrong = break_box(data)
    done = tool('train', DETECTION, '--data', data, '--work-dir', tmp_path / 'run', '--device', 'cpu')
    assert f'not four numbers [x, y, width, height]; annotation ids ({wrong})' in done.error()
    assert str(annotations(data)) in done.err
    assert done.out == ''


def test_testing_checks_what_it_reads(tool: Callable, data: Path, tmp_path: Path):
    break_box(data)  # of the training split: no matter
    torch.save({'state_dict': {}}, tmp_path / 'empty.pth')
    arguments = ['--data', data, '--work-dir', tmp_path / 'run', '--device', 'cpu']
    done = tool('test', DETECTION, tmp_path / 'empty.pth', *arguments)
    assert 'empty.pth' in done.error()
    wrong = break_box(data, 'val')
    done = tool('test', DETECTION, tmp_path / 'empty.pth', *arguments)
    assert f'({wrong})' in done.error()


@pytest.fixture
def ready(data: Path) -> Callable[[], Config]:
    return lambda: prepare.of_data(prepare.Command(str(DETECTION), data=data))


def test_warnings_are_lines_and_no_error(data: Path, ready: Callable, monkeypatch: pytest.MonkeyPatch):
    small = shrink_box(data)
    said: list[str] = []
    monkeypatch.setattr(terminal, 'say', said.append)
    data_check.check_before(ready(), ('val',))
    assert said == []
    data_check.check_before(ready(), ('train', 'val'))
    (line,) = said
    assert line.startswith(f'warning: {annotations(data)}: annotations.bbox: width or height below one pixel')
    assert f'({small})' in line
    monkeypatch.setattr(data_check, 'WARNINGS', 0)
    data_check.check_before(ready(), ('train', 'val'))
    assert said[1:] == ['warning: and 1 more kinds: see tools/check_data.py']


def glue_an_end_on(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b'\xff\xd9')


def test_a_bad_image_is_an_error_or_left_out(data: Path, ready: Callable, monkeypatch: pytest.MonkeyPatch):
    """Training can go on without one; an evaluation would be another."""
    said: list[str] = []
    monkeypatch.setattr(terminal, 'say', said.append)
    path = sorted((data / 'train2017').iterdir())[2]
    glue_an_end_on(path)
    with pytest.raises(UserError, match=rf'cut off.*\({path.name}\)'):
        data_check.check_before(ready(), ('train', 'val'))
    data_check.check_before(ready(), ('train', 'val'), skip_bad=True)
    (line,) = said
    assert line.startswith('warning: ')
    assert line.endswith(f'; left out ({path.name})')
    path = sorted((data / 'val2017').iterdir())[0]
    glue_an_end_on(path)
    with pytest.raises(UserError, match=rf'cut off.*\({path.name}\)'):
        data_check.check_before(ready(), ('train', 'val'), skip_bad=True)


def test_what_filter_and_resize_leave(data: Path, ready: Callable):
    config = ready()
    config.train_dataloader.dataset.filter_cfg = dict(min_size=5000)
    with pytest.raises(UserError, match=r'filter_cfg\.min_size=5000 drops all of the 5 images'):
        data_check.check_before(config, ('train', 'val'))
    data_check.check_before(config, ('val',))
    config = ready()
    config.val_dataloader.dataset.pipeline[1].scale = (0, 4000)
    with pytest.raises(UserError, match='the resize to 0 x 4000 leaves its shorter side no pixel'):
        data_check.check_before(config, ('train', 'val'))


def test_each_annotation_file_is_parsed_once(ready: Callable, monkeypatch: pytest.MonkeyPatch):
    coco_json.forget()
    parsed = []
    real = json.loads
    monkeypatch.setattr(json_entries.json, 'loads', lambda text: parsed.append(len(text)) or real(text))
    data_check.check_before(ready(), ('train', 'val'))
    assert len(parsed) == 2


@pytest.mark.parametrize('rank', [0, 1])
def test_every_process_stops(data: Path, ready: Callable, rank: int, monkeypatch: pytest.MonkeyPatch):
    """The second one knows what the first found from the broadcast alone."""
    config = ready()
    break_box(data)
    found = tasks.check(config, decode=False)

    def broadcast(box: list) -> None:
        assert (box == [None]) == (rank == 1)
        box[:] = [found]

    monkeypatch.setattr(data_check, 'is_main_process', lambda: rank == 0)
    monkeypatch.setattr(data_check, 'broadcast_object_list', broadcast)
    with pytest.raises(UserError, match='not four numbers'):
        data_check.check_before(config, ('train',))


def test_heads_with_another_number_of_classes(ready: Callable):
    config = ready()
    assert tasks.check(config, decode=False, splits=()) == []
    config.model.roi_head.mask_head.num_classes = 80
    (found,) = tasks.check(config, decode=False, splits=())
    assert found.severity == 'error'
    assert found.field == 'model: num_classes'
    assert found.message == '80, but the data sets have 5 classes'


def test_masks_matter_where_they_are_trained(data: Path, ready: Callable):
    path = annotations(data)
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = [[1, 1, 2, 2]]
    path.write_text(json.dumps(content))
    config = ready()
    assert [finding.severity for finding in tasks.check(config, False, ('train',))] == ['error']
    for step in config.train_dataloader.dataset.pipeline:
        if 'with_mask' in step:
            step.with_mask = False
    assert [finding.severity for finding in tasks.check(config, False, ('train',))] == ['warning']


def test_a_config_that_names_other_classes(tool: Callable, data: Path, tmp_path: Path):
    path = tmp_path / 'config.py'
    path.write_text(
        f"_base_ = '{DETECTION}'\nmetainfo = dict(classes=('circle', 'tringle'))\n"
        'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
    )
    done = tool('check_data', path, '--data', data, '--json')
    assert done.status == 2
    (error,) = json.loads(done.out)['findings']
    assert "'tringle' is not among the 5 categories" in error['message']
    assert "did you mean 'triangle'?" in error['message']


def test_a_config_with_classes_in_another_order_takes_the_files(data: Path, tmp_path: Path):
    """mmdet numbers labels in the file's order: the names must go with the numbers."""
    path = tmp_path / 'config.py'
    names = tuple(reversed(shapes.CLASSES))
    path.write_text(
        f"_base_ = '{DETECTION}'\n"
        + '\n'.join(
            f'{split}_dataloader = dict(dataset=dict(metainfo=dict(classes={names!r})))'
            for split in ('train', 'val', 'test')
        )
    )
    config = prepare.of_data(prepare.Command(str(path), data=data))
    assert config.train_dataloader.dataset.metainfo['classes'] == shapes.CLASSES
    assert errors(tasks.check(config, decode=False)) == []
