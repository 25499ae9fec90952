"""Draw the built-in data set, train a detector and a segmentor on it, and show what they see.

    python tools/demo.py

Everything goes to ``work_dirs/demo``: the data, a run for each task, ``metrics.json`` and the pictures
``detection.png`` and ``segmentation.png``. Two CPU cores take some twelve minutes.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
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
    return parser.parse_args()


def train(task: str, out: Path) -> dict[str, float]:
    """Run tools/train.py as a person would; returns the metrics that it leaves."""
    config, data = RECIPES[task]
    arguments = [
        'tools/train.py',
        config,
        '--data',
        str(out / 'shapes' / data),
        '--work-dir',
        str(out / task),
    ]
    print(f'\n$ python {shlex.join(arguments)} --seed 0', flush=True)
    done = subprocess.run([sys.executable, *arguments, '--seed', '0'])
    if done.returncode:
        sys.exit(done.returncode)
    shutil.copyfile(out / task / 'predictions.png', out / f'{task}.png')
    return json.loads((out / task / 'metrics.json').read_text())


def main() -> None:
    out = parse_args().out
    hosts.prepare()
    from swin_dense.console import terminal
    from swin_dense.demo import shapes
    from swin_dense.evaluate import metrics

    shapes.write(out / 'shapes')
    results = {name: value for task in RECIPES for name, value in train(task, out).items()}
    path = metrics.save(results, out)
    terminal.show_metrics('demo', {name: results[name] for name in SHOWN})
    terminal.say(f'metrics: {path}\npictures: {out}/detection.png, {out}/segmentation.png')


if __name__ == '__main__':
    exit_on_user_error(main)
