"""Predict for images, folders, globs and videos, with a checkpoint alone.

python tools/predict.py work_dirs/mask_rcnn_swin_t/epoch_12.pth photos --out found
python tools/predict.py configs/mask_rcnn_swin_t.py --checkpoint epoch_12.pth 'photos/*.jpg' --score 0.6
python tools/predict.py work_dirs/upernet_swin_t/iter_160000.pth map.tif --tile 1024 --overlap 0.25

What is done is kept at once: the same command after Ctrl-C, a kill or a full disk goes on with what is left.
"""

import argparse
from pathlib import Path

from swin_dense import hosts
from swin_dense.console.stopping import Watch, watched
from swin_dense.errors import exit_on_user_error
from swin_dense.storage import folders


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Predict for images, folders, globs and videos.')
    add = parser.add_argument
    add('model', metavar='CONFIG|CHECKPOINT', help='a checkpoint, or a config (.py) with --checkpoint')
    add('sources', nargs='+', metavar='IMAGE|DIR|GLOB|VIDEO', help='folders are searched with all below them')
    add('--checkpoint', metavar='FILE', help="weights of a config (newest of the config's work dir)")
    add('--backbone', metavar='NAME', help='our Swin in place of the backbone: swin_t, swinv2_b, ours, FILE')
    add('--out', type=Path, metavar='DIR', default=Path('predictions'), help='folder (predictions)')
    add('--score', type=float, help='least score of an object (all are written, those from 0.5 drawn)')
    add('--classes', nargs='+', metavar='NAME', help='only these classes')
    add('--batch', type=int, default=1, help='images, frames or tiles predicted together (1)')
    add('--tile', type=int, metavar='SIZE', help='predict large images in tiles of this side')
    add('--overlap', type=float, default=0.25, help='fraction of a tile that neighbours share (0.25)')
    add('--ids', type=Path, metavar='FILE', help='COCO annotations whose image and category ids are used')
    add('--device', help='cpu, cuda, cuda:N or mps (the best there is)')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override the config')
    return parser.parse_args()


def predict(args: argparse.Namespace, watch: Watch) -> None:
    hosts.use_device(args.device)
    hosts.prepare()
    from swin_dense.checkpoints import files
    from swin_dense.console import terminal
    from swin_dense.predict import model, run, sources
    from swin_dense.predict.predictor import Predictor

    given = sources.find(args.sources, args.out)
    config, checkpoint = model.choose(args.model, args.checkpoint, args.cfg_options, args.backbone)
    weights = run.weights_key(files.fetch(checkpoint), config)  # of the file before it is read
    folders.check_writable(args.out, '--out')
    predictor = Predictor(checkpoint, config)
    for line in predictor.report.lines():
        terminal.say(line)
    labels = None if args.classes is None else run.labels_of(args.classes, predictor.classes)
    settings = run.Settings(args.score, labels, args.batch, args.tile, args.overlap)
    run.predict_all(predictor, given, args.out, settings, args.ids, weights, watch)


def main() -> None:
    args = parse_args()
    with watched('nothing was predicted yet') as watch:
        predict(args, watch)


if __name__ == '__main__':
    exit_on_user_error(main)
