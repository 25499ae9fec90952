"""Train a detector or segmentor and evaluate it.

    python tools/train.py configs/mask_rcnn_swin_t.py --data data/coco

Configs of swin_dense, mmdet and mmseg are all taken as they are.
"""

import argparse
import time
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector or segmentor and evaluate it.')
    add = parser.add_argument
    add('config', help='config file, of swin_dense, mmdet or mmseg')
    add('--backbone', metavar='NAME', help='our Swin in place of the backbone: swin_t, swinv2_b, ours, FILE')
    add('--swin-schedule', action='store_true', help='with --backbone: AdamW, warmup and images as for Swin')
    add('--data', type=Path, metavar='DIR', help='COCO, COCO-panoptic or ADE20K root, replaces every path')
    add('--classes', type=Path, metavar='FILE', help='class names, one a line (segmentation)')
    add('--zero-label', choices=('ignored', 'class'), help='label 0 of label maps (by the labels themselves)')
    add('--work-dir', metavar='DIR', help='where the run is saved (work_dirs/CONFIG)')
    add('--checkpoint', metavar='FILE', help='weights of any Swin, or of a whole model, to start from')
    add(
        '--resume',
        nargs='?',
        const='',
        metavar='PATH|auto',
        help='continue a run, bit for bit (newest of the work dir); auto: or start one if there is none',
    )
    add('--resume-anyway', action='store_true', help='continue with other settings, too')
    add('--max-time', metavar='TIME', help='save and stop before this long has passed: 2h50m')
    add('--skip-nan', type=int, default=0, metavar='N', help='go on after N iterations with NaN losses (0)')
    add('--skip-bad', action='store_true', help='leave out images that cannot be read, and count them')
    add('--amp', choices=('bf16', 'fp16'), help='mixed precision')
    add('--no-scale-lr', action='store_true', help="keep the config's learning rate, whatever the batch")
    add('--tensorboard', action='store_true', help='log to TensorBoard too')
    add('--seed', type=int, help='seed of every random generator')
    add('--device', help='cpu, cuda, cuda:N or mps (the best there is)')
    add('--dry-run', action='store_true', help='draw one batch, estimate time and memory, and stop')
    add('--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override the config')
    return parser.parse_args()


def main() -> None:
    started, args = time.time(), parse_args()
    hosts.use_device(args.device)
    hosts.prepare()
    from swin_dense.engine import prepare, runs, signals
    from swin_dense.engine.start import Start

    if args.swin_schedule and args.backbone is None:
        raise UserError('--swin-schedule goes with --backbone NAME')
    begin = Start(args.checkpoint, args.resume, args.resume_anyway)
    seconds = None if args.max_time is None else signals.parse_duration(args.max_time)
    command = prepare.Command(
        config=args.config,
        backbone=args.backbone,
        swin_schedule=args.swin_schedule,
        options=args.cfg_options,
        data=args.data,
        classes=args.classes,
        zero_label=args.zero_label,
        work_dir=args.work_dir,
        launcher=args.launcher,
        precision=args.amp,
        scale_rate=not args.no_scale_lr,
        tensorboard=args.tensorboard,
        seed=args.seed,
        begin=begin,
    )
    prepared = prepare.training(command)
    if args.dry_run:
        runs.dry_run(prepared, started)
    else:
        runs.train(prepared, runs.Limits(seconds, args.skip_nan, args.skip_bad))


if __name__ == '__main__':
    exit_on_user_error(main)
