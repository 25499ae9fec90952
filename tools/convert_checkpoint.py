"""Recognise a Swin's checkpoint from any library, report what it holds, and write it for another library.

    python tools/convert_checkpoint.py swin_tiny_patch4_window7_224.pth --report
    python tools/convert_checkpoint.py model.safetensors backbone.pth --to mmdet

If OUT ends in .safetensors, that is its format. Otherwise torch.save writes it.
"""

import argparse
import json
from pathlib import Path

from swin_dense.errors import UserError, exit_on_user_error
from swin_dense.printable import printable

FAMILIES = ('swin_dense', 'microsoft', 'timm', 'torchvision', 'hf', 'mmpretrain', 'mmdet', 'mmseg')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Recognise any Swin's file and write it for another library."
    )
    add = parser.add_argument
    add('source', metavar='IN', help='checkpoint of any library, a path or an address')
    add('out', metavar='OUT', nargs='?', type=Path, help='file to write')
    add('--to', choices=FAMILIES, default='swin_dense', help='library to write for (swin_dense)')
    add('--report', nargs='?', const='human', choices=('human', 'json'), help='say what the file holds')
    sides = dict(type=int, nargs='+', default=[], metavar='SIDE')
    add('--window', **sides, help='window of a v2 whose file does not tell it; one, or one for each stage')
    add('--pretrained-window', **sides, help='window in its pretraining, if that was another')
    return parser.parse_args()


def per_stage(sides: list[int], stages: int) -> list[int]:
    """The window side of each stage; a single side is that of all stages."""
    if sides and (min(sides) < 1 or len(sides) not in (1, stages)):
        given = ' '.join(map(str, sides))
        raise UserError(f'a window of {given}: give one side, or one for each of the {stages} stages')
    return sides * stages if len(sides) == 1 else sides


def main() -> None:
    args = parse_args()
    if args.out is None and args.report is None:
        raise UserError('name a file to write, or --report to see what the checkpoint holds')
    from swin_dense.checkpoints import files
    from swin_dense.checkpoints.architecture import architecture, examine
    from swin_dense.checkpoints.convert import TARGETS, export, open_swin

    swin = open_swin(args.source)
    report = examine(swin, args.source)
    if args.report == 'json':
        print(json.dumps(report.as_dict(), indent=1))
    else:
        print('\n'.join(map(printable, report.lines())))  # with names from the file
    if args.out is not None:
        stages = len(architecture(swin).depths)
        sides = [per_stage(given, stages) for given in (args.window, args.pretrained_window)]
        tensors = export(swin, args.to, *sides)
        files.write_tensors(args.out, tensors, TARGETS[args.to])
        if args.report != 'json':
            print(f'written: {printable(str(args.out))} ({args.to}, {len(tensors)} tensors)')


if __name__ == '__main__':
    exit_on_user_error(main)
