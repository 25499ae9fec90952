"""Random changes of a COCO file: what is wrong is found, and nothing else is raised."""

import copy
import io
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from swin_dense.check import coco_sets, data_sets
from swin_dense.console import findings
from swin_dense.data import coco
from swin_dense.errors import UserError
from swin_dense.formats import coco_json
from swin_dense.printable import printable
from tests.check.coco_sets import GARBAGE, good

SECONDS = 5.0  # of the processor for one file, on any machine


def nested(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


VALUES = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        11,
        101,
        7.5,
        -0.0,
        1e308,
        5e-324,
        2**31,
        2**53,
        2**63,
        -(2**63),
        2**64,
    ),
    *(10**400, -(10**400), float('nan'), float('inf'), -float('inf'), '', 'cat', '11.png', '11', ' '),
    *(
        '\ud800',
        '\udcff.png',
        'a\ud800b',
        '\0',
        '\x1b[31m',
        'a\nb',
        '\u202e',
        '../11.png',
        '/etc/passwd',
        'x' * 5000,
    ),
    *('http://a.b/11.png', 's3://a/11.png', 'file:///etc/passwd', 'C:\\11.png', '.', './11.png', 'no/11.png'),
    *(
        [],
        {},
        [[]],
        [{}],
        nested(50),
        [1, 2, 3, 4],
        [1, 2, 3],
        [4, 4, 10, 10],
        [10**400] * 4,
        [float('nan')] * 4,
    ),
    *([[1, 2, 3, 4, 5, 6]], [[10**400] * 6], [['a'] * 6], [[None] * 6], [[float('inf')] * 6], [[1e9] * 6]),
    *({'size': [32, 48], 'counts': GARBAGE}, {'size': [32, 48], 'counts': [10**400]}, {'size': [10**400, 1]}),
    *(
        {'size': [32, 48], 'counts': '\ud800'},
        {'size': [32, 48], 'counts': [1536]},
        {'size': [True, 1536], 'counts': ''},
    ),
)


def places(content: object) -> Iterator[tuple[object, object]]:
    """Every container below a value, with each of its keys."""
    if isinstance(content, (dict, list)):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from places(content[key])


def changed(rng: random.Random) -> str:
    """The text of the good set with one to three changes; of one in ten, bytes are changed too."""
    content = good()
    for _ in range(rng.randint(1, 3)):
        where = list(places(content))
        if not where:
            break
        container, key = rng.choice(where)
        what = rng.random()
        if what < 0.7:
            container[key] = copy.deepcopy(rng.choice(VALUES))
        elif what < 0.85:
            del container[key]
        elif isinstance(container, list):
            container.insert(key, copy.deepcopy(rng.choice([container[key], *VALUES])))
    text = json.dumps(content)
    if rng.random() < 0.1:
        letters = list(text)
        for _ in range(rng.randint(1, 4)):
            letters[rng.randrange(len(letters))] = rng.choice('{}[]",:0123456789\\u-eE.NaItruflsn\0\ufeff')
        text = ''.join(letters)
    return text


def look_at(root: Path, text: str, rng: random.Random) -> None:
    """All that the tools do with the file before they train."""
    path = root / 'train.json'
    coco_json.forget()
    path.write_text(text)
    wanted = rng.choice([None, ('cat',), ('dog', 'cat'), ('bird',)])
    split = coco.Split(path, root)
    found = coco_sets.check_split(split, wanted, False, rng.choice([None, True, False]), rng.random() < 0.5)
    for finding in found:
        printable(finding.line()).encode()
    json.dumps(findings.as_json(found)).encode()
    result = data_sets.try_folder(root, False)
    json.dumps(result.as_json()).encode()
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding='utf-8'), width=100)
    for table in result.tables():
        console.print(table)
    if not findings.errors(found):
        coco.classes(coco_json.read_annotations(path))
    with (
        pytest.raises(UserError)
        if findings.errors(coco_json.read_with_findings(path)[1])
        else pytest.MonkeyPatch.context()
    ):
        coco_json.read_annotations(path)


def fuzz(root: Path, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for number in range(count):
        text = changed(rng)
        begin = time.process_time()
        try:
            look_at(root, text, rng)
        except Exception as error:
            raise AssertionError(f'seed {seed}, file {number}: {text}') from error
        assert time.process_time() - begin < SECONDS, text


def test_some_changes(root: Path):
    fuzz(root, 0, 150)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(1, 5))
def test_many_changes(root: Path, seed: int):
    fuzz(root, seed, 5000)
