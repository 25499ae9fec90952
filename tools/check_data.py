"""Say what is wrong with a data set, before a model is trained on it.

    python tools/check_data.py configs/mask_rcnn_swin_t.py --data data/coco
    python tools/check_data.py data/coco --decode
    python tools/check_data.py configs/demo/upernet_swin_nano_4band.py --stats

Exit status 2 if there are errors, with which training would not start.
"""

import argparse
import json
from functools import partial
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Say what is wrong with a data set.')
    add = parser.add_argument
    add(
        'what', type=Path, metavar='CONFIG|DIR', help='config file, or a COCO, COCO-panoptic or ADE20K folder'
    )
    add(
        '--data',
        type=Path,
        metavar='DIR',
        help='COCO, COCO-panoptic or ADE20K root, replaces every path of the config',
    )
    add('--classes', type=Path, metavar='FILE', help='class names, one a line (segmentation)')
    add('--zero-label', choices=('ignored', 'class'), help='label 0 of label maps (by the labels themselves)')
    add('--decode', action='store_true', help='decode every image, rather than reading headers')
    add('--stats', action='store_true', help='mean and std of the channels, as lines for the config')
    add('--json', action='store_true', help='findings and instances as JSON, and nothing else')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.what.is_dir() and (args.data is not None or args.cfg_options):
        raise UserError(f'--data and --cfg-options go with a config, and {args.what} is a folder')
    if args.stats and (args.what.is_dir() or args.json):
        raise UserError('--stats goes with a config, whose first step loads the images, and without --json')
    hosts.prepare()
    from swin_dense import tasks
    from swin_dense.check import data_sets, statistics
    from swin_dense.console import findings, terminal
    from swin_dense.engine import prepare

    command = prepare.Command(str(args.what), args.cfg_options, args.data, args.classes, args.zero_label)
    ready = partial(prepare.of_data, command)
    if args.what.is_dir():
        result = data_sets.try_folder(args.what, args.decode, args.classes, args.zero_label)
    else:
        result = data_sets.try_config(ready, tasks.check, args.what, args.decode)
    if args.json:
        print(json.dumps(result.as_json()))
    else:
        for table in result.tables():
            terminal.console.print(table)
    if args.stats:
        terminal.say('\n'.join(statistics.config_statistics(ready())))
    if wrong := len(findings.errors(result.findings)):
        raise UserError(f'{args.what}: {wrong} kinds of errors' if wrong > 1 else f'{args.what}: one error')


if __name__ == '__main__':
    exit_on_user_error(main)
