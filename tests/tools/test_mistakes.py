"""What a person gets wrong is one line and exit status 2."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.tools.runs import DETECTION, ROOT, SEGMENTATION, one_line, run


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['configs/demo/mask_rcnn.py'], 'config configs/demo/mask_rcnn.py does not exist'),
        (
            [DETECTION, '--cfg-options', 'model.backbone.embed_dim=8'],
            'did you mean model.backbone.embed_dims?',
        ),
    ],
    ids=['missing config', 'unknown option'],
)
def test_a_mistake_ends_the_process_with_one_line_and_status_2(arguments: list[str], expected: str):
    done = run('tools/train.py', *arguments, status=2)
    assert expected in one_line(done.stderr)
    assert done.stdout == ''


# what a person may get wrong: the command, in the words of prepare_mistakes(), and a part of the answer
MISTAKES = {
    'syntax error': ('train {tmp}/syntax.py', 'config {tmp}/syntax.py, line '),
    'no data folder': ('train {detection} --data {tmp}/absent', 'data folder {tmp}/absent does not exist'),
    'no label maps': ('train {segmentation} --data {tmp}', 'no images with label maps'),
    'data of the other task': ('train {detection} --data {ade}', 'no train annotations'),
    'no JSON': ('train {detection} --data {tmp}/no_json', 'cannot be read as JSON'),
    'two files': ('train {detection} --data {tmp}/two', 'several train annotations'),
    'a class that the JSON lacks': (
        'train {tmp}/class.py --data {coco}',
        "metainfo.classes: 'tringle' is not among the 5 categories of",
    ),
    'classes of a detector': (
        'train {detection} --data {coco} --classes {tmp}/two',
        '--classes is for segmentation',
    ),
    'fp16 on the CPU': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --amp fp16',
        '--amp fp16 needs a GPU',
    ),
    'nothing to resume': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume',
        '--resume: no run to continue in {tmp}/run',
    ),
    'resume an absent file': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume {tmp}/absent.pth',
        'checkpoint {tmp}/absent.pth does not exist',
    ),
    'resume weights alone': (
        'train {detection} --data {coco} --work-dir {tmp}/run --resume {tmp}/other.pth',
        'holds weights alone, not a run to resume',
    ),
    'launcher without torchrun': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --launcher pytorch',
        'start with torchrun',
    ),
    'launcher for GPUs': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu --launcher slurm',
        '--launcher slurm needs GPUs',
    ),
    'no such device': ('train {detection} --data {coco} --device gpu', '--device gpu: choose cpu'),
    'option without a value': ('train {detection} --cfg-options load_from', 'write KEY=VALUE'),
    'channels that do not fit': (
        'train {detection} --data {coco} --work-dir {tmp}/run --cfg-options model.backbone.embed_dims=16',
        'model.neck.in_channels=[32, 64, 128, 256]',
    ),
    'one image and BatchNorm': (
        'train {segmentation} --data {ade} --work-dir {tmp}/run --device cpu '
        '--cfg-options train_dataloader.batch_size=1',
        'train_dataloader.batch_size=1: SyncBN behind the pooling to 1 x 1 in model.decode_head',
    ),
    'an epoch longer than the data': (
        'train {detection} --data {coco} --work-dir {tmp}/run --device cpu '
        '--cfg-options train_dataloader.num_batch_per_epoch=5',
        'num_batch_per_epoch=5 takes 10 images, and the data set of the loader has 8',
    ),
    'absent checkpoint': (
        'test {detection} {tmp}/absent.pth --data {coco} --work-dir {tmp}/run',
        'checkpoint {tmp}/absent.pth does not exist',
    ),
    'truncated checkpoint': (
        'test {detection} {tmp}/cut.pth --data {coco} --work-dir {tmp}/run',
        'checkpoint {tmp}/cut.pth cannot be read safely',
    ),
    'checkpoint of another model': (
        'test {detection} {tmp}/other.pth --data {coco} --work-dir {tmp}/run',
        'none of its 1 tensors belongs to the model',
    ),
    'nothing to test': ('test {detection} --data {coco}', 'name either a checkpoint'),
    'two things to test': ('test {detection} a.pth --predictions a.json', 'name either a checkpoint'),
    'predictions without data': ('test {detection} --predictions a.json', '--predictions needs --data DIR'),
    'no predictions': (
        'test {detection} --predictions {tmp} --data {coco}',
        'predictions {tmp}: the folder has neither {tmp}/predictions.bbox.json nor',
    ),
    'predictions of the other task': (
        'test {segmentation} --predictions {tmp}/empty.json --data {ade}',
        'predictions {tmp}/empty.json: no folder of PNG label maps',
    ),
    'a report of nothing': ('report {tmp}/absent', '{tmp}/absent does not exist'),
    'a report without data': ('report {tmp}/empty.json', '--data DIR names the ground truth'),
}


def prepare_mistakes(data: Path, tmp: Path) -> dict[str, str]:
    """Write the files that the mistakes need; returns what the names in their commands stand for."""
    for name, years in (('no_json', [2017]), ('two', [2014, 2017])):
        (tmp / name / 'annotations').mkdir(parents=True)
        for year in years:
            (tmp / name / 'annotations' / f'instances_train{year}.json').write_text('<html>')
    (tmp / 'class.py').write_text(
        f"_base_ = '{ROOT / DETECTION}'\n"
        "metainfo = dict(classes=('circle', 'tringle', 'star', 'ring'))\n"
        'train_dataloader = dict(dataset=dict(metainfo=metainfo))\n'
    )
    (tmp / 'syntax.py').write_text('model = dict(\n')
    (tmp / 'empty.json').write_text('[]')
    torch.save({'state_dict': {'other.weight': torch.zeros(3)}}, tmp / 'other.pth')
    (tmp / 'cut.pth').write_bytes((tmp / 'other.pth').read_bytes()[:500])
    recipes = {'detection': DETECTION, 'segmentation': SEGMENTATION}
    return {'tmp': str(tmp), 'coco': str(data / 'coco'), 'ade': str(data / 'ade'), **recipes}


@pytest.mark.parametrize('mistake', MISTAKES)
def test_what_a_person_gets_wrong(
    mistake: str, data: Path, tmp_path: Path, in_process: Callable, capfd: pytest.CaptureFixture
):
    names = prepare_mistakes(data, tmp_path)
    command, expected = MISTAKES[mistake]
    with pytest.raises(SystemExit) as ended:
        in_process(*(part.format(**names) for part in command.split()))
    assert ended.value.code == 2
    assert expected.format(**names) in one_line(capfd.readouterr().err)
