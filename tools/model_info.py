"""Parameters and FLOPs of a model: stages of the backbone, neck and heads. Nothing is downloaded.

python tools/model_info.py configs/mask_rcnn_swin_t.py
python tools/model_info.py configs/upernet_swin_l.py --size 640 2560
python tools/model_info.py --table README.md
"""

import argparse
from pathlib import Path

from swin_dense import hosts
from swin_dense.errors import UserError, exit_on_user_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Parameters and FLOPs of a model.')
    add = parser.add_argument
    add('config', nargs='?', help='config file, of swin_dense, mmdet or mmseg')
    add('--size', nargs=2, type=int, metavar=('H', 'W'), help="image (the papers': 800 1280 or 512 2048)")
    add('--table', type=Path, metavar='FILE', help='write the table of all recipes into a Markdown file')
    add('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if (args.config is None) == (args.table is None):
        raise UserError('name either a config or --table FILE')
    hosts.prepare()
    from swin_dense.engine import config
    from swin_dense.report import model_info, papers

    if args.table is not None:
        papers.write_table(args.table)
        return
    model_info.show(config.load_config(args.config, args.cfg_options), args.size)


if __name__ == '__main__':
    exit_on_user_error(main)
