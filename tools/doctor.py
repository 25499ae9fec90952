"""What is installed, what works, and the command that repairs the rest.

python tools/doctor.py
python tools/doctor.py --run work_dirs/mask_rcnn_swin_t
"""

import argparse
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from swin_dense import __version__
from swin_dense.errors import UserError, exit_on_user_error
from swin_dense.hosts import packages


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='What is installed, and whether a run can go on.')
    add = parser.add_argument
    add('--run', type=Path, metavar='DIR', help='a work directory: its checkpoints, and what going on takes')
    return parser.parse_args()


def show_run(work_dir: Path) -> None:
    """Which checkpoints are whole, which one would be resumed, what that takes, and who holds the folder."""
    packages.prepare()
    from swin_dense.console import terminal
    from swin_dense.engine import run_report

    checkpoints, chosen = run_report.look(work_dir)
    terminal.console.print(run_report.checkpoint_table(checkpoints, chosen))
    terminal.show_header(run_report.needs(work_dir, chosen))
    if chosen is None:
        raise UserError(f'--run {work_dir}: no checkpoint is whole: there is nothing to resume')


def main() -> None:
    args = parse_args()
    if args.run is not None:
        show_run(args.run)
        return
    show_installation()


def show_installation() -> None:
    """What is installed, what works, and the command that repairs the rest."""
    table = Table(title=f'swin_dense {__version__}', title_justify='left')
    for column in ('what', 'found', 'needed', 'fix'):
        table.add_column(column, overflow='fold')
    table.add_row('python', platform.python_version(), '>=3.10,<3.14', '')
    for requirement in (*packages.REQUIREMENTS, packages.mmcv_flavour()):
        wrong = requirement.problem()
        installed = packages.installed_version(requirement.name) or '-'
        colour = 'red' if wrong else 'green'
        fix = requirement.fix if wrong else ''
        table.add_row(requirement.name, f'[{colour}]{installed}', requirement.versions, fix)
    wrong = packages.problems()
    if not wrong:
        backend = packages.prepare()
        speed = '' if backend == 'mmcv' else "compiled ops, if you want them: pip install 'swin_dense[full]'"
        table.add_row('NMS, RoIAlign', f'[green]{backend}', 'mmcv or torchvision', escape(speed))
        table.add_row('device', f'[green]{_device()}', '', '')
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if wrong:
        raise UserError('; '.join(wrong))


def _device() -> str:
    import torch
    from mmengine.device import get_device

    device = get_device()
    return f'cuda: {torch.cuda.get_device_name()}' if device == 'cuda' else device


if __name__ == '__main__':
    exit_on_user_error(main)
