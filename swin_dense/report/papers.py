"""Parameters and FLOPs of our recipes beside the published ones: the table of README.md.

``python tools/model_info.py --table README.md`` writes it between the two marks.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from swin_dense.errors import UserError
from swin_dense.report.model_info import SIZES, build, parts, total

BEGIN = '<!-- written by: python tools/model_info.py --table README.md -->'
END = '<!-- end of what is written -->'
HEADER = (
    '| config | image | parameters | published | FLOPs | published |',
    '|---|---|---|---|---|---|',
)


class Row(NamedTuple):
    """A model, the size it is counted at, and what is published of it: millions, and 1e9 multiply-adds."""

    recipe: str
    size: tuple[int, int]
    parameters: int | None = None
    flops: int | None = None


DETECTION, SEGMENTATION = SIZES['mmdet'], SIZES['mmseg']
CROPS_640 = (640, 2560)
# Published: the tables in README.md of github.com/microsoft/Swin-Transformer, where those with ImageNet-22k
# weights are for crops of 640 pixels; its sister repositories for detection and segmentation repeat the rest.
ROWS = (
    Row('mask_rcnn_swin_t', DETECTION, 48, 267),
    Row('mask_rcnn_swin_s', DETECTION, 69, 359),
    Row('cascade_mask_rcnn_swin_t', DETECTION, 86, 745),
    Row('cascade_mask_rcnn_swin_s', DETECTION, 107, 838),
    Row('cascade_mask_rcnn_swin_b', DETECTION, 145, 982),
    Row('mask_rcnn_swinv2_t', DETECTION),
    Row('mask_rcnn_swinv2_s', DETECTION),
    Row('upernet_swin_t', SEGMENTATION, 60, 945),
    Row('upernet_swin_s', SEGMENTATION, 81, 1038),
    Row('upernet_swin_b', SEGMENTATION, 121, 1188),
    Row('upernet_swin_b_in22k', CROPS_640, 121, 1841),
    Row('upernet_swin_b_w12', SEGMENTATION),
    Row('upernet_swin_l', CROPS_640, 234, 3230),
    Row('upernet_swin_l_w12', SEGMENTATION),
    Row('upernet_swinv2_t', SEGMENTATION),
    Row('upernet_swinv2_s', SEGMENTATION),
    Row('upernet_swinv2_b', SEGMENTATION),
    Row('upernet_swinv2_b_w16_in22k', SEGMENTATION),
    Row('upernet_swinv2_l', SEGMENTATION),
)


def line(row: Row, parameters: int, flops: int) -> str:
    """The table's line for a model, from what was counted."""
    cells = [
        f'`{row.recipe}`',
        f'{row.size[0]}x{row.size[1]}',
        f'{parameters / 1e6:.1f} M',
        f'{row.parameters} M' if row.parameters else '-',
        f'{flops / 1e9:.1f} G',
        f'{row.flops} G' if row.flops else '-',
    ]
    return f'| {" | ".join(cells)} |'


def lines(configs: Path) -> Iterator[str]:
    """The lines of the Markdown table, counted anew.

    Args:
        configs: the folder of the recipes.
    """
    yield from HEADER
    for row in ROWS:
        file = configs / f'{row.recipe}.py'
        if not file.is_file():
            raise UserError(f'recipe {file} does not exist')
        model = build(Config.fromfile(file))
        whole = total(model, parts(model, *row.size))
        yield line(row, whole.parameters, whole.flops or 0)


def write_table(file: Path) -> None:
    """Put the table between the marks of a Markdown file that lies beside the folder ``configs``.

    Raises:
        UserError: the file, its marks or a recipe is missing.
    """
    if not file.is_file():
        raise UserError(f'--table {file}: there is no such file')
    before, begin, rest = file.read_text(encoding='utf-8').partition(f'{BEGIN}\n')
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(
            f'--table {file}: the table goes between the lines {BEGIN!r} and {END!r}; one is missing'
        )
    table = '\n'.join(lines(file.parent / 'configs'))
    file.write_text(f'{before}{begin}{table}\n{end}{after}', encoding='utf-8')
