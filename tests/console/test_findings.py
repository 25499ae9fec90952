"""Findings of a data check, told in three ways."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from swin_dense.console import findings
from swin_dense.console.findings import Finding
from swin_dense.errors import UserError

FILE = Path('data/instances_val.json')
NOTE = Finding('note', FILE, '', 'images without objects', **findings.some(range(30)))
WARNING = Finding('warning', FILE, 'annotations.bbox', 'outside of the image', **findings.some([7]))
ERROR = Finding('error', FILE, 'categories', "no class [cat]; did you mean 'cats'?")


def test_line_names_file_field_and_examples():
    assert NOTE.line() == f'{FILE}: images without objects (30 of them: 0, 1, 2, 3, 4, ...)'
    assert WARNING.line() == f'{FILE}: annotations.bbox: outside of the image (7)'
    assert ERROR.line() == f"{FILE}: categories: no class [cat]; did you mean 'cats'?"


def test_errors_stop_and_the_rest_does_not():
    findings.stop_on_errors([NOTE, WARNING])
    with pytest.raises(UserError, match=r'no class \[cat\].*\(and 1 more: see tools/check_data.py\)'):
        findings.stop_on_errors([NOTE, ERROR, ERROR])


def test_table_has_the_gravest_first_and_shows_brackets():
    console = Console(width=160, record=True)
    console.print(findings.table([NOTE, WARNING, ERROR]))
    text = console.export_text()
    assert text.index('error') < text.index('warning') < text.index('note')
    assert '[cat]' in text


def test_json():
    (found,) = json.loads(json.dumps(findings.as_json([WARNING])))
    assert found == dict(
        severity='warning',
        file=str(FILE),
        field='annotations.bbox',
        message='outside of the image',
        examples=[7],
        count=1,
    )
