"""Text of strangers for a terminal: a file or class name may hold what moves the cursor or rings the bell."""

import unicodedata

# control characters, lone surrogates, separators of lines and paragraphs
CATEGORIES = ('Cc', 'Cs', 'Zl', 'Zp')
# they turn the direction of what follows, so that a name reads as another one
DIRECTIONS = frozenset('\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')


def printable(text: str, encoding: str = 'utf-8') -> str:
    """The text with everything that a terminal would act on, or cannot show, as ``\\x1b`` or ``\\udc80``.

    Args:
        text: any text, with lone surrogates too; line breaks are escaped as well.
        encoding: of the terminal.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = ''.join(map(_escaped, text))
    return shown.encode(encoding, 'backslashreplace').decode(encoding)


def printable_lines(text: str, encoding: str = 'utf-8') -> str:
    """The same, with line breaks kept."""
    return '\n'.join(printable(line, encoding) for line in text.split('\n'))


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) not in CATEGORIES and letter not in DIRECTIONS:
        return letter
    return repr(letter)[1:-1]
