"""Files of class names."""

from pathlib import Path

import pytest

from swin_dense.errors import UserError
from swin_dense.formats.class_names import read_class_names

GOOD = {
    'plain': b'cat\ndog\n',
    'a byte order mark': b'\xef\xbb\xbfcat\ndog\n',
    'Windows': b'cat\r\ndog\r\n\r\n',
    'spaces': b'  cat \n\tdog',
}
BAD = {
    'empty': (b' \n\n', 'the file is empty'),
    'a mark alone': (b'\xef\xbb\xbf', 'the file is empty'),
    'UTF-16': ('cat\ndog\n'.encode('utf-16'), 'no UTF-8 text'),
    'Latin-1': (b'caf\xe9\n', 'no UTF-8 text'),
    'a NUL': (b'cat\nd\0g\n', "line 2: 'd\\x00g' has a control character"),
    'an escape': (b'\x1b[31mcat\n', 'line 1: '),
    'an empty line': (b'cat\n\ndog\n', 'line 2: the line is empty'),
    'an empty first line': (b'\ncat\n', 'line 1: the line is empty'),
    'two alike': (b'cat\ndog\ncat \n', "lines 1 and 3: 'cat' is there 2 times"),
}


@pytest.mark.parametrize('what', GOOD)
def test_names(tmp_path: Path, what: str):
    (tmp_path / 'classes.txt').write_bytes(GOOD[what])
    assert read_class_names(tmp_path / 'classes.txt', '--classes') == ('cat', 'dog')


def test_other_letters_are_names_too(tmp_path: Path):
    (tmp_path / 'classes.txt').write_text('Straße\n道路\nno\u200cbreak\n', encoding='utf-8')
    assert read_class_names(tmp_path / 'classes.txt', '--classes') == ('Straße', '道路', 'no\u200cbreak')


@pytest.mark.parametrize('what', BAD)
def test_what_is_no_list_of_names(tmp_path: Path, what: str):
    content, expected = BAD[what]
    path = tmp_path / 'classes.txt'
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_class_names(path, '--classes')
    text = str(caught.value)
    assert text.startswith(f'--classes {path}')
    assert expected in text
    assert text.isprintable()
