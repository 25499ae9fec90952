"""Names of strangers reach a terminal escaped."""

import io
import unicodedata

import pytest

from swin_dense.printable import printable, printable_lines


def test_ordinary_text_stays():
    for text in ('', 'a b', 'Straße 東京 🙂', "it's [bold] 'x' \\x", 'عربى\u200fعربى'):
        assert printable(text) == text


@pytest.mark.parametrize('encoding', ['utf-8', 'ascii', 'latin-1'])
def test_every_character_can_be_printed_and_none_acts(encoding: str):
    """Of the first plane, lone surrogates too, through a strict stream of that encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors='strict', newline='')
    for code in range(0x10000):
        shown = printable(chr(code), encoding)
        stream.write(shown)
        assert shown.isprintable() or unicodedata.category(chr(code)) not in ('Cc', 'Cs', 'Zl', 'Zp')
    stream.flush()
    written = stream.buffer.getvalue()
    assert not {*range(32), 127} & {*written}


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('\x1b[31mred', r'\x1b[31mred'),
        ('\x9b2J', r'\x9b2J'),
        ('a\rb\x00\x07\x7f', r'a\rb\x00\x07\x7f'),
        ('\udc80\ud800', r'\udc80\ud800'),
        ('a\u202egpj.exe', r'a\u202egpj.exe'),
    ],
)
def test_what_a_terminal_acts_on_is_escaped(text: str, expected: str):
    assert printable(text) == expected


def test_line_breaks():
    assert printable('a\nb') == r'a\nb'
    assert printable_lines('a\x1b\nb\r') == 'a\\x1b\nb\\r'
