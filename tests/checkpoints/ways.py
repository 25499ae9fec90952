"""Every way from a command line to a checkpoint."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs' / 'demo'
DETECTION = ROOT / 'configs' / 'demo' / 'mask_rcnn_swin_nano.py'


def commands(path: object, data: Path, folder: Path) -> dict[str, list[object]]:
    """A tool and its arguments, by name."""
    run = [DETECTION, '--data', data / 'coco', '--work-dir', folder / 'run', '--device', 'cpu']
    recipe = [ROOT / 'configs' / 'mask_rcnn_swin_t.py', *run[1:]]
    return {
        'train --checkpoint': ['train', *run, '--checkpoint', path],
        'train --resume': ['train', *run, '--resume', path],
        'train init_cfg': ['train', *recipe, '--cfg-options', f'model.backbone.init_cfg.checkpoint={path}'],
        'test': ['test', run[0], path, *run[1:]],
        'convert': ['convert_checkpoint', path, folder / 'out.pth'],
        'report': ['convert_checkpoint', path, '--report', 'json'],
    }


COMMANDS = list(commands('', Path(), Path()))
