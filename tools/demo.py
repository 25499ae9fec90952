"""Draw the built-in data set, train a detector and a segmentor on it, and show what they see.

    python tools/demo.py

Everything goes to ``work_dirs/demo``: the data, a run for each task, ``metrics.json`` and
``detection.png``, ``segmentation.png``. Two CPU cores take about ten minutes.
"""

import argparse
import json
import shutil
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import exit_on_user_error

RECIPES = {
    'detection': ('configs/demo/mask_rcnn_swin_nano.py', 'coco'),
    'segmentation': ('configs/demo/upernet_swin_nano.py', 'ade'),
}
SHOWN = ('bbox_mAP', 'segm_mAP', 'mIoU')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train and evaluate both tasks on the built-in data set.')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'), help='folder (work_dirs/demo)')
    parser.add_argument('--device', help='cpu, cuda, cuda:N or mps (the best there is)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    hosts.use_device(args.device)
    hosts.prepare()
    from swin_dense.data import shapes
    from swin_dense.engine import runs
    from swin_dense.report import terminal
    from swin_dense.report.metrics import save

    shapes.write(args.out / 'shapes')
    results = {}
    for task, (config, data) in RECIPES.items():
        terminal.say(f'\n== {task}')
        recipe = runs.ready_config(config, data=args.out / 'shapes' / data, work_dir=str(args.out / task))
        recipe.randomness = dict(seed=0)
        runs.train(recipe)
        results.update(json.loads((args.out / task / 'metrics.json').read_text()))
        shutil.copyfile(args.out / task / 'predictions.png', args.out / f'{task}.png')
    save(results, args.out)
    terminal.show_metrics('demo', {name: results[name] for name in SHOWN})
    terminal.say(f'look at {args.out}/detection.png and {args.out}/segmentation.png')


if __name__ == '__main__':
    exit_on_user_error(main)
