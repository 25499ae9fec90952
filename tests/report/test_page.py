"""The report: what is in it, that it needs nothing beside itself, and that no name in it becomes code."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swin_dense.errors import UserError
from swin_dense.report import gallery, page
from swin_dense.tasks import examples
from tests.report import pages


@pytest.fixture(scope='module')
def detection(tmp_path_factory: pytest.TempPathFactory) -> page.Page:
    folder = tmp_path_factory.mktemp('page') / 'coco'
    root, predictions = pages.detection(folder, (pages.HOSTILE, pages.QUOTED, 'zebra'))
    return page.of_predictions(predictions, root)


@pytest.fixture(scope='module')
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> page.Page:
    root, maps = pages.segmentation(tmp_path_factory.mktemp('page') / 'ade')
    return page.of_predictions(maps, root)


class Elements(HTMLParser):
    """The start tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def embedded(text: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1]
    )


def test_nothing_is_fetched(detection: page.Page):
    text = page.fill(detection)
    without_data = re.sub(
        r'(<script type="application/json"[^>]*>).*?(</script>)', r'\1\2', text, flags=re.DOTALL
    )
    addresses = set(re.findall(r'(?:https?:)?//[\w.]+[^\s\'"]*', without_data.replace('// ', '')))
    assert addresses <= {'http://www.w3.org/2000/svg'}, 'a name of the format, fetched by nobody'
    for tag, attributes in Elements(text).found:
        assert not {'src', 'srcset', 'poster'} & set(attributes), tag
        assert attributes.get('href', '#')[0] == '#' or attributes['href'] == 'data:,'
    policy = next(a['content'] for _, a in Elements(text).found if a.get('http-equiv'))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert '@import' not in text
    assert 'url(' not in without_data


def test_names_stay_names(detection: page.Page):
    text = page.fill(detection)
    assert detection.classes[0] != detection.classes[1]
    assert {pages.HOSTILE, pages.QUOTED} <= set(detection.classes)
    assert '<script>alert' not in text
    assert '<img' not in text
    assert [tag for tag, _ in Elements(text).found].count('script') == 2
    assert embedded(text)['classes'] == detection.classes, 'and they are shown as they are'
    detection = page.Page(**{**vars(detection), 'title': f'{pages.HOSTILE}{{{{data}}}}<!--'})
    text = page.fill(detection)
    assert '<title>&lt;script&gt;alert(1)&lt;/script&gt;' in text
    assert embedded(text)['title'] == detection.title
    assert 'innerHTML' not in text
    assert 'document.write' not in text


def test_the_data_of_a_detector(detection: page.Page):
    data = embedded(page.fill(detection))
    assert [item['label'] for item in data['headlines']] == ['box mAP', 'mask mAP', 'box AP50', 'mask AP50']
    assert [table['title'] for table in data['tables']] == ['boxes', 'masks']
    assert data['counts']['images'] == data['gallery']['total'] == 8
    assert data['counts']['images_without_predictions'] == 2
    assert np.array(data['confusion']).shape == (4, 4)
    assert {len(curve) for kind in data['curves'].values() for curve in kind.values()} == {101}
    assert all(re.fullmatch('#[0-9a-f]{6}', colour) for colour in data['colours'])


def test_the_data_of_a_segmentor(segmentation: page.Page):
    data = embedded(page.fill(segmentation))
    assert [item['label'] for item in data['headlines']] == ['mIoU', 'pixel accuracy', 'mean accuracy']
    assert all(0 < item['value'] < 1 for item in data['headlines'])
    assert data['curves'] == {}
    assert np.array(data['confusion']).shape == (3, 4)
    items = data['gallery']['items']
    assert [item['name'] for item in items] == ['0.png', '1.png', '2.png', '3.png', '4.png'], 'best first'
    assert items[0]['value'] == 1
    assert 'taken for' not in items[0]['said']
    assert '% road taken for land' in items[4]['said']
    assert items[0]['tags'] == ['best']
    assert set(items[4]['tags']) == {'worst', 'confused'}


def pixels(uri: str) -> np.ndarray:
    assert uri.startswith('data:image/webp;base64,')
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(',')[2]))))


def test_the_pictures_of_a_segmentor(segmentation: page.Page):
    worst = segmentation.gallery['items'][4]
    truth, prediction, photo = (pixels(worst[name]) for name in ('truth', 'prediction', 'photo'))
    assert photo.shape == (120, 160, 3)
    assert truth.shape == prediction.shape == (120, 160, 4)
    assert (truth != prediction).any()
    best = segmentation.gallery['items'][0]
    truth, prediction = pixels(best['truth']), pixels(best['prediction'])
    labelled = (truth[..., :3] > 0).any(axis=-1)
    assert (truth[labelled][:, :3] == prediction[labelled][:, :3]).all(), 'the same colours'
    outlines = [(layer[..., 3] == 255).mean() for layer in (truth, prediction)]
    assert 0 < min(outlines) <= max(outlines) < 0.5
    assert (pixels(best['truth'])[~labelled] == (0, 0, 0, 190)).all(), 'unlabelled is dark'


def test_what_is_wrong_has_a_white_outline(tmp_path: Path):
    root, predictions = pages.detection(tmp_path)
    result = json.loads(predictions.read_text())[-1]
    # one right, one where nothing is: the last image is empty
    predictions.write_text(json.dumps([result | dict(score=0.9, image_id=8)]))
    items = {item['name']: item for item in page.of_predictions(predictions, root).gallery['items']}
    white = (255, 255, 255, 255)
    assert (pixels(items['8.png']['prediction']) == white).all(axis=-1).any()
    assert not pixels(items['8.png']['truth']).any()
    assert not pixels(items['1.png']['prediction']).any()
    assert (pixels(items['1.png']['truth']) == white).all(axis=-1).any()


def test_large_photographs_are_reduced(tmp_path: Path):
    root, predictions = pages.detection(tmp_path)
    Image.new('RGB', (2000, 1000)).save(root / 'val' / '2.png')
    (root / 'val' / '3.png').unlink()
    items = {item['name']: item for item in page.of_predictions(predictions, root).gallery['items']}
    assert (items['2.png']['width'], items['2.png']['height']) == (examples.SIDE, examples.SIDE // 2)
    assert items['3.png']['missing'] is True
    assert 'photo' not in items['3.png']


def entries(count: int, confused: int) -> list[examples.Example]:
    return [
        examples.Example(f'{i}', i / count, float(i < confused) * i, [0], '', tuple) for i in range(count)
    ]


def test_which_images_are_chosen():
    chosen = gallery.choose(entries(500, 20))
    tags = [tag for _, tags in chosen for tag in tags]
    assert {tag: tags.count(tag) for tag in ('best', 'worst', 'confused')} == dict.fromkeys(
        ('best', 'worst', 'confused'), gallery.EACH
    )
    assert [e.name for e, tags in chosen if 'best' in tags] == [f'{i}' for i in range(499, 487, -1)]
    assert {e.name for e, tags in chosen if 'worst' in tags} == {f'{i}' for i in range(12)}
    assert {e.name for e, tags in chosen if 'confused' in tags} == {f'{i}' for i in range(8, 20)}
    assert len([e for e, tags in chosen if not tags]) == gallery.MORE
    values = [entry.value for entry, _ in chosen]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize('count', [1, 2, 5])
def test_none_of_a_few_images_is_both_best_and_worst(count: int):
    chosen = gallery.choose(entries(count, 0))
    assert len(chosen) == count
    assert all(len(tags) == 1 for _, tags in chosen)


def test_without_a_single_prediction(tmp_path: Path):
    root, predictions = pages.detection(tmp_path)
    predictions.write_text('[]')
    data = embedded(page.fill(page.of_predictions(predictions, root)))
    assert {item['value'] for item in data['headlines']} == {0}
    assert data['counts']['images_without_predictions'] == 8


def test_a_figure_that_is_undefined_is_no_figure(tmp_path: Path):
    root, predictions = pages.detection(tmp_path)
    truth = json.loads((root / 'instances_val.json').read_text())
    truth['annotations'] = []
    (root / 'instances_val.json').write_text(json.dumps(truth))
    data = embedded(page.fill(page.of_predictions(predictions, root)))
    assert {item['value'] for item in data['headlines']} == {None}
    assert data['curves'] == {'boxes': {}, 'masks': {}}


def test_what_is_no_run(tmp_path: Path):
    assert not page.is_run(tmp_path)
    with pytest.raises(UserError, match='no images with label maps'):
        page.of_predictions(tmp_path, tmp_path)
