"""Make one HTML page of a run, or of saved predictions: figures, curves and a gallery. No model is needed.

python tools/report.py work_dirs/mask_rcnn_swin_t
python tools/report.py results.json --data data/coco
python tools/report.py label_maps --data data/ade --out report.html
"""

import argparse
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import UserError, exit_on_user_error
from swin_dense.storage import folders


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Make one HTML page of a run, or of saved predictions.')
    add = parser.add_argument
    add('source', type=Path, help='work directory of a run, COCO results, or a folder of PNG label maps')
    add('--data', type=Path, metavar='DIR', help="COCO, COCO-panoptic or ADE20K root (the run's own)")
    add('--zero-label', choices=('ignored', 'class'), help='label 0 of label maps (by the labels themselves)')
    add('--out', type=Path, metavar='FILE', help='the page (report.html in the work directory)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        there, folder = args.source.exists(), args.source.is_dir()
    except OSError as error:  # no permission, or a name too long
        raise UserError(f'{args.source} cannot be read: {error.strerror or error}') from error
    if not there:
        raise UserError(f'{args.source} does not exist (looked for {args.source.absolute()})')
    hosts.prepare()
    from swin_dense.console import terminal
    from swin_dense.report import page

    run = page.is_run(args.source)
    if not run and args.data is None:
        raise UserError(f'{args.source} is no run (it holds no config): --data DIR names the ground truth')
    if run and args.zero_label is not None:
        raise UserError(f'{args.source} is a run, whose config says what label 0 is: leave --zero-label out')
    out = args.out or (args.source / 'report.html' if folder else args.source.with_suffix('.html'))
    folders.check_writable(out.absolute().parent, 'the folder of the report')  # before the work, not after it
    with terminal.quiet_hosts():
        if run:
            content = page.of_run(args.source, args.data)
        else:
            content = page.of_predictions(args.source, args.data, args.zero_label)
    terminal.say(f'report: {page.save(content, out)}')


if __name__ == '__main__':
    exit_on_user_error(main)
