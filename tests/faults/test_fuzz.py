"""Files with random damage: every one is read, or refused in one line. No traceback, no hang, no payload.

``FUZZ_EXAMPLES=25000 python -m pytest tests/faults/test_fuzz.py`` takes half an hour.
"""

import copy
import json
import os
import pickle
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from swin_dense import trust
from swin_dense.check import data_sets
from swin_dense.checkpoints import files
from swin_dense.engine import resume
from swin_dense.errors import UserError
from swin_dense.evaluate import coco
from swin_dense.formats import coco_results, label_maps
from swin_dense.formats.images import BadImageError
from tests.check.coco_sets import good

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get('FUZZ_EXAMPLES', '150'))
SECONDS = 60  # that one file may take
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
CONFIG = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0],
        size=(32, 32)),
    backbone=dict(type='swin_dense.SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1),
        num_heads=(1, 1, 1, 1)),
    decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=8, num_convs=1, num_classes=2),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 32), keep_ratio=True),
    dict(type='PackSegInputs')]
"""
STRINGS = ['../x', 'http://127.0.0.1:1/x', '/etc/passwd', '\ud800', '\x1b[2J', 'a\0b', 'x.pkl']
junk = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=10**30, max_value=10**400),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(STRINGS),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


class Payload:
    """What runs code when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return open, (str(self.canary), 'w')


@contextmanager
def refused_or_read(canary: Path) -> Iterator[None]:
    """Nothing but a refusal may be raised, in time, and no payload may run."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError(f'a file took more than {SECONDS} s')

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    except (UserError, BadImageError) as error:
        if not str(error).strip():
            raise AssertionError('the refusal says nothing') from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not canary.exists(), 'the payload ran'


def places(node: Any, path: tuple = ()) -> list[tuple]:  # noqa: ANN401
    """The path of every value in nested dicts and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(inner for key, value in items for inner in places(value, (*path, key)))]


def changed(data: st.DataObject, content: Any, values: st.SearchStrategy) -> Any:  # noqa: ANN401
    """The content with one to three values replaced or removed."""
    content = copy.deepcopy(content)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([place for place in places(content) if place]))
        node = content
        for key in path[:-1]:
            node = node[key]
        if data.draw(st.booleans()):
            node[path[-1]] = data.draw(values)
        else:
            del node[path[-1]]
        if not content:
            break
    return content


def torn(data: st.DataObject, content: bytes) -> bytes:
    """Bytes with some flipped, cut out, doubled, or their end cut off."""
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        length = data.draw(st.integers(0, 40))
        new = data.draw(st.binary(max_size=40))
        kind = data.draw(st.sampled_from(['replace', 'remove', 'insert', 'cut']))
        rest = b'' if kind == 'cut' else content[at + (0 if kind == 'insert' else length) :]
        content = content[:at] + (new if kind in ('replace', 'insert') else b'') + rest
    return content


def checkpoint(canary: Path) -> dict:
    return dict(
        meta=dict(epoch=1, iter=3, cfg=CONFIG, seed=0, dataset_meta=dict(classes=['a', 'b'])),
        state_dict={'w': torch.zeros(3), 'b': torch.ones(2)},
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer=dict(state={}, param_groups=[dict(lr=0.1, params=[0])]),
        run=dict(processes=[], settings={}, started=1.0, evaluated_at=None, hooks={}),
    )


TENSORS = st.sampled_from(
    [
        torch.tensor(float('nan')),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2).to(torch.float8_e4m3fn),
        torch.zeros(2, device='meta'),
        torch.zeros(0, 3),
    ]
)


def read_checkpoint(path: Path) -> None:
    resume.look(path)
    content = files.read_checkpoint(path)
    files.state_dict(content)
    from swin_dense.predict import model

    model.load_model(str(path), None)


@pytest.fixture
def read_under_test(tmp_path: Path) -> Callable[[Callable[[Path], object], str, bytes], None]:
    def read(reader: Callable[[Path], object], name: str, content: bytes) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with refused_or_read(tmp_path / 'canary'):
            reader(path)

    return read


@fuzz
@given(data=st.data())
def test_bytes_of_checkpoints(data: st.DataObject, read_under_test: Callable, tmp_path: Path):
    torch.save(checkpoint(tmp_path), tmp_path / 'good.pth')
    read_under_test(read_checkpoint, 'a.pth', torn(data, (tmp_path / 'good.pth').read_bytes()))


@fuzz
@given(data=st.data())
def test_values_of_checkpoints(data: st.DataObject, read_under_test: Callable, tmp_path: Path):
    canary = tmp_path / 'canary'
    values = st.one_of(junk, TENSORS, st.just(Payload(canary)))
    torch.save(changed(data, checkpoint(canary), values), tmp_path / 'b.pth')
    canary.unlink(missing_ok=True)
    read_under_test(read_checkpoint, 'a.pth', (tmp_path / 'b.pth').read_bytes())


@fuzz
@given(data=st.data())
def test_pickles_inside_checkpoints(data: st.DataObject, read_under_test: Callable, tmp_path: Path):
    """The pickle of a good archive replaced by a torn one, or by a payload, with a right checksum."""
    torch.save(checkpoint(tmp_path), tmp_path / 'good.pth')
    payload = pickle.dumps(Payload(tmp_path / 'canary'), protocol=data.draw(st.integers(0, 5)))
    with zipfile.ZipFile(tmp_path / 'good.pth') as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / 'b.pth', 'w') as archive:
        for name, content in records.items():
            new = payload if data.draw(st.booleans()) else torn(data, content)
            archive.writestr(name, new if name.endswith('data.pkl') else content)
    read_under_test(read_checkpoint, 'a.pth', (tmp_path / 'b.pth').read_bytes())


@fuzz
@given(data=st.data())
def test_text_of_configs(data: st.DataObject, tmp_path: Path):
    text = torn(data, CONFIG.encode()).decode(errors='replace')
    canary = tmp_path / 'canary'
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(text)))
        text = f'{text[:at]}open({str(canary)!r}, "w"){text[at:]}'
    with refused_or_read(canary):
        values = trust.parse(text, 'checkpoint x')
        scope, model, steps = (values.get(key) for key in ('default_scope', 'model', 'test_pipeline'))
        if scope in ('mmdet', 'mmseg') and isinstance(model, dict) and isinstance(steps, list):
            trust.check_model(model, 'checkpoint x', scope)
            trust.check_pipeline(steps, 'checkpoint x', scope)


@fuzz
@given(data=st.data())
def test_coco_annotations(data: st.DataObject, tmp_path: Path):
    for split in ('train', 'val'):
        (tmp_path / split).mkdir(exist_ok=True)
        for number in (11, 12, 13):
            Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / split / f'{number}.png')
    content = changed(data, good(), junk)
    text = json.dumps(content).encode(errors='surrogatepass')
    if data.draw(st.booleans()):
        text = torn(data, text)
    for split in ('train', 'val'):
        (tmp_path / f'instances_{split}.json').write_bytes(text)
    with refused_or_read(tmp_path / 'canary'):
        result = data_sets.try_folder(tmp_path, decode=False)
        result.as_json()
        if not [finding for finding in result.findings if finding.severity == 'error']:
            coco.load_truth(tmp_path / 'instances_val.json')


@fuzz
@given(data=st.data())
def test_predictions(data: st.DataObject, tmp_path: Path):
    (tmp_path / 'truth.json').write_text(json.dumps(good()))
    truth = coco.load_truth(tmp_path / 'truth.json')
    entries = [
        dict(image_id=11, category_id=1, score=0.5, bbox=[4, 4, 10, 10]),
        dict(image_id=12, category_id=2, score=0.25, bbox=[1, 2, 3, 4]),
    ]
    text = json.dumps(changed(data, entries, junk)).encode(errors='surrogatepass')
    if data.draw(st.booleans()):
        text = torn(data, text)
    (tmp_path / 'found.json').write_bytes(text)
    with refused_or_read(tmp_path / 'canary'):
        coco_results.read_results(tmp_path / 'found.json', truth)
        coco.evaluate(truth, tmp_path / 'found.json')


@fuzz
@given(data=st.data())
def test_label_maps(data: st.DataObject, read_under_test: Callable, tmp_path: Path):
    mode = data.draw(st.sampled_from(['L', 'P', 'I;16', '1', 'RGB', 'RGBA']))
    suffix = 'png' if mode != 'L' or data.draw(st.booleans()) else 'bmp'
    Image.new(mode, (9, 7)).save(tmp_path / f'good.{suffix}')
    content = torn(data, (tmp_path / f'good.{suffix}').read_bytes())
    read_under_test(label_maps.read_labels, f'a.{suffix}', content)
