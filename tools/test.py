"""Evaluate a checkpoint, or score saved predictions.

python tools/test.py configs/mask_rcnn_swin_t.py work_dirs/mask_rcnn_swin_t/epoch_12.pth --data data/coco
python tools/test.py configs/mask_rcnn_swin_t.py --predictions results.json --data data/coco
python tools/test.py configs/upernet_swin_t.py --predictions label_maps --data data/ade
"""

import argparse
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import UserError, exit_on_user_error
from swin_dense.storage import folders


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint, or score saved predictions.')
    add = parser.add_argument
    add('config', help='config file, of swin_dense, mmdet or mmseg')
    add('checkpoint', nargs='?', help='weights to evaluate')
    add('--predictions', type=Path, metavar='PATH', help='score these, with no model: as --out writes')
    add('--backbone', metavar='NAME', help='our Swin in place of the backbone: swin_t, swinv2_b, ours, FILE')
    add('--data', type=Path, metavar='DIR', help='COCO, COCO-panoptic or ADE20K root, replaces every path')
    add('--classes', type=Path, metavar='FILE', help='class names, one a line (segmentation)')
    add('--zero-label', choices=('ignored', 'class'), help='label 0 of label maps (by the labels themselves)')
    add('--work-dir', metavar='DIR', help='where metrics go (work_dirs/CONFIG)')
    add('--out', type=Path, metavar='FILE', help='write predictions: COCO JSON, or a folder of PNGs')
    add('--device', help='cpu, cuda, cuda:N or mps (the best there is)')
    add('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if (args.checkpoint is None) == (args.predictions is None):
        raise UserError('name either a checkpoint to evaluate or --predictions FILE to score')
    if args.predictions is not None and args.data is None:
        raise UserError('--predictions needs --data DIR: the folder with the annotations to score against')
    hosts.use_device(args.device)
    hosts.prepare()
    from swin_dense.engine import prepare, runs

    if args.out is not None:  # before the evaluation, not after it
        folders.check_writable(args.out.absolute().parent, '--out: the folder')
    command = prepare.Command(
        config=args.config,
        backbone=args.backbone,
        options=args.cfg_options,
        data=args.data,
        classes=args.classes,
        zero_label=args.zero_label,
        work_dir=args.work_dir,
        launcher=args.launcher,
    )
    if args.predictions is None:
        runs.test(prepare.evaluation(command, args.checkpoint), args.out)
        return
    recipe = prepare.scoring(command)
    folders.check_writable(Path(recipe.work_dir), 'work directory')
    runs.score(recipe, args.predictions, args.data)


if __name__ == '__main__':
    exit_on_user_error(main)
