"""The README's table of parameters and FLOPs is what the code counts, and what Microsoft publishes."""

from functools import cache
from pathlib import Path

import pytest
from torch import Tensor, nn

from swin_dense.errors import UserError
from swin_dense.report import model_info, papers
from tests.recipes import CONFIGS, built, ours
from tests.test_recipes_more import OTHER_BACKBONES, RECIPES

README = (CONFIGS.parent / 'README.md').read_text(encoding='utf-8')
PUBLISHED = [row for row in papers.ROWS if row.flops is not None]
# counting takes a second each
ROWS = [row if row.flops else pytest.param(row, marks=pytest.mark.slow) for row in papers.ROWS]
NORMS = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm, nn.ReLU)


@cache
def counted(row: papers.Row) -> tuple[int, int, int]:
    """Parameters, FLOPs, and the operations of norms and ReLUs: 2 a value in batch norms, else 1."""
    model = built(ours(row.recipe))
    small = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        nonlocal small
        small += inputs[0].numel() * (2 if isinstance(module, nn.modules.batchnorm._BatchNorm) else 1)

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, NORMS)]
    whole = model_info.total(model, model_info.parts(model, *row.size))
    for hook in hooks:
        hook.remove()
    return whole.parameters, whole.flops, small


def written() -> list[str]:
    """The lines of the README's table. If they are wrong: python tools/model_info.py --table README.md."""
    _, _, rest = README.partition(papers.BEGIN)
    return rest.partition(papers.END)[0].strip().splitlines()


def test_the_readme_has_all_rows_and_their_parameters():
    found = written()
    assert found[:2] == list(papers.HEADER)
    assert len(found) == 2 + len(papers.ROWS)
    for row, line in zip(papers.ROWS, found[2:], strict=True):
        expected = papers.line(row, model_info.parameters(built(ours(row.recipe))), 0).split(' | ')
        cells = line.split(' | ')
        assert cells[:4] + cells[5:] == expected[:4] + expected[5:]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.recipe)
def test_the_readmes_line_is_what_the_code_counts(row: papers.Row):
    parameters, flops, _ = counted(row)
    assert papers.line(row, parameters, flops) in written()


def test_every_recipe_of_the_readme_is_in_the_table():
    """But for those that train a model which is there already, and heads whose FLOPs are not counted."""
    rows = {row.recipe for row in papers.ROWS}
    assert len(rows) == len(papers.ROWS)
    left_out = {path.stem for path in CONFIGS.glob('*.py')} - rows - {*RECIPES, *OTHER_BACKBONES}
    assert left_out == {'mask_rcnn_swin_t_3x', 'upernet_swin_b_w12_in22k'}
    for path in CONFIGS.glob('*.py'):
        assert f'`configs/{path.name}`' in README, path.name


@pytest.mark.parametrize('row', PUBLISHED, ids=lambda row: row.recipe)
def test_parameters_are_the_published(row: papers.Row):
    assert round(counted(row)[0] / 1e6) == row.parameters


@pytest.mark.parametrize('row', PUBLISHED, ids=lambda row: row.recipe)
def test_flops_are_the_published_but_for_norms(row: papers.Row):
    """What the README says below the table."""
    _, flops, small = counted(row)
    if row.recipe == 'upernet_swin_l':
        assert flops / 1e9 == pytest.approx(2482.3, abs=0.05)
        assert row.flops == 3230
        return
    rounded = round((flops + small) / 1e9)
    assert rounded == (1840 if row.flops == 1841 else row.flops)


def test_swin_l_is_convnexts_figure_without_attention_products():
    (row,) = [row for row in PUBLISHED if row.recipe == 'upernet_swin_l']
    _, flops, small = counted(row)
    backbone = built(ours(row.recipe)).backbone
    products = 0
    for stage in model_info.stages(backbone, *row.size):
        padded = [-(-side // stage.window) * stage.window for side in stage.map]
        products += stage.blocks * 2 * stage.window**2 * padded[0] * padded[1] * stage.channels
    assert round((flops + small - products) / 1e9) == 2468


def test_the_table_is_written_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(papers, 'ROWS', papers.ROWS[:1])
    (tmp_path / 'configs').symlink_to(CONFIGS)
    file = tmp_path / 'notes.md'
    file.write_text(f'before\n{papers.BEGIN}\nold\n{papers.END}\nafter ü\n', encoding='utf-8')
    for _ in range(2):
        papers.write_table(file)
        before, begin, header, rule, row, end, after = file.read_text(encoding='utf-8').splitlines()
        assert (before, begin, end, after) == ('before', papers.BEGIN, papers.END, 'after ü')
        assert row == '| `mask_rcnn_swin_t` | 800x1280 | 47.8 M | 48 M | 266.6 G | 267 G |'
        assert header.count('|') == rule.count('|') == row.count('|')


@pytest.mark.parametrize('text', ['', f'{papers.BEGIN}\n', f'{papers.END}\n{papers.BEGIN}\n'])
def test_a_file_without_the_marks_is_left_alone(tmp_path: Path, text: str):
    file = tmp_path / 'notes.md'
    file.write_text(text)
    with pytest.raises(UserError, match='one is missing'):
        papers.write_table(file)
    assert file.read_text() == text


def test_a_missing_file_or_recipe_is_the_users_mistake(tmp_path: Path):
    file = tmp_path / 'notes.md'
    with pytest.raises(UserError, match='there is no such file'):
        papers.write_table(file)
    text = f'{papers.BEGIN}\n{papers.END}\n'
    file.write_text(text)
    with pytest.raises(UserError, match=r'mask_rcnn_swin_t\.py does not exist'):
        papers.write_table(file)
    assert file.read_text() == text
