"""The report in a headless Chromium: it renders, mouse and keyboard work, nothing overflows."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swin_dense.report import page
from tests.report import chromium, pages
from tests.report.chromium import click, find, names, texts

pytestmark = chromium.needs_chromium
LEFT, RIGHT = '\ue012', '\ue014'  # the arrow keys of WebDriver
RUN = {  # what a run adds to its predictions
    'history': {
        'loss': {'loss': [(i, 3 - i / 50) for i in range(0, 100, 10)], 'val/loss': [(50, 2.5), (90, 2.0)]},
        'metrics': {'mIoU': [(50, 0.3), (90, 0.5)]},
        'learning rate': {'learning rate': [(0, 0.0), (90, 1e-4)]},
    },
    'facts': {'config': 'configs/' + 'long_name_' * 12 + '.py', 'model': pages.HOSTILE},
}


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp('browser')
    names = (pages.HOSTILE, pages.QUOTED, 'a_class_with_a_name_that_goes_on_and_on')
    root, predictions = pages.detection(folder / 'coco', names)
    detection = page.of_predictions(predictions, root)
    root, maps = pages.segmentation(folder / 'ade', names)
    segmentation = page.of_predictions(maps, root)
    found = {}
    for name, content in (('detection', detection), ('segmentation', segmentation)):
        content.history, content.facts = RUN['history'], RUN['facts']
        found[name] = page.save(content, folder / f'{name}.html')
    return found


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    with chromium.chromium(tmp_path_factory.mktemp('profile')) as driver:
        yield driver


@pytest.fixture
def opened(browser: object, files: dict[str, Path]) -> Iterator[Callable]:
    """``opened(task, width)`` shows a report; at the end, nothing may have been logged."""

    def show(task: str, width: int = 1280) -> object:
        chromium.show(browser, files[task], width)
        return browser

    browser.get_log('browser')
    yield show
    assert browser.get_log('browser') == []


def press(driver: object, selector: str, key: str) -> None:
    find(driver, selector)[0].send_keys(key)


def current(driver: object) -> str:
    return find(driver, '#caption b')[0].text


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_it_renders(opened: Callable, task: str):
    driver = opened(task)
    assert texts(driver, 'h1') == ['results' if task == 'detection' else 'maps']
    figures = texts(driver, '.figure b')
    assert len(figures) == (4 if task == 'detection' else 3)
    assert all(0 < float(figure) < 1 for figure in figures)
    assert len(find(driver, '#training-charts svg')) == 3
    assert len(find(driver, '#precision-charts svg')) == (2 if task == 'detection' else 0)
    assert find(driver, '#precision')[0].is_displayed() == (task == 'detection')
    assert len(find(driver, '#matrix tbody tr')) == (4 if task == 'detection' else 3)
    assert len(find(driver, '#tables table')) == (2 if task == 'detection' else 1)
    assert chromium.broken_images(driver) == 0


def test_a_name_is_no_code(opened: Callable):
    driver = opened('detection')
    assert pages.HOSTILE in texts(driver, '#tables td:first-child')
    assert pages.QUOTED in texts(driver, '#legend li')
    assert pages.HOSTILE in texts(driver, 'dd')
    assert find(driver, 'img[src=x]') == []
    assert len(find(driver, 'script')) == 2


def test_the_gallery_filters(opened: Callable):
    driver = opened('segmentation')
    everything = names(driver)
    assert everything == [f'{i}.png' for i in range(5)]
    click(driver, '[data-value=best]')
    assert names(driver) == everything[:3]
    click(driver, '[data-value=worst]')
    assert names(driver) == ['4.png', '3.png'], 'the worst first'
    click(driver, '[data-value=confused]')
    assert names(driver) == ['4.png', '3.png', '2.png', '1.png']
    assert find(driver, '[data-value=confused]')[0].get_attribute('aria-pressed') == 'true'
    assert find(driver, '[data-value=worst]')[0].get_attribute('aria-pressed') == 'false'
    assert find(driver, '#position')[0].text == '1 of 4'


def test_the_gallery_filters_by_class(opened: Callable, files: dict[str, Path]):
    driver = opened('detection')
    items = driver.execute_script(
        "return JSON.parse(document.getElementById('data').textContent).gallery.items"
    )
    for label in range(3):
        click(driver, f'#class-filter option[value="{label}"]')
        driver.execute_script(
            "const s = document.getElementById('class-filter'); s.value = arguments[0];"
            "s.dispatchEvent(new Event('change'))",
            str(label),
        )
        assert names(driver) == [item['name'] for item in items if label in item['classes']]
    assert len(names(driver)) < len(items), 'an empty image has no class'


def test_the_keyboard(opened: Callable):
    driver = opened('segmentation')
    assert current(driver) == '0.png'
    press(driver, '#stage', RIGHT)
    press(driver, '#stage', RIGHT)
    assert current(driver) == '2.png'
    press(driver, '#stage', LEFT)
    assert current(driver) == '1.png'
    assert len(find(driver, '.pane')) == 2
    seen = []
    for _ in range(3):
        press(driver, '#stage', ' ')
        seen += texts(driver, '.pane figcaption')
    assert seen == ['Prediction', 'Ground truth', 'Prediction']
    press(driver, '#stage', LEFT)
    press(driver, '#stage', LEFT)
    assert current(driver) == '0.png', 'no further than the first'
    assert not find(driver, '#previous')[0].is_enabled()
    press(driver, '.thumb', RIGHT)
    focused = driver.switch_to.active_element
    assert focused.get_attribute('aria-label').startswith('1.png')
    assert focused.get_attribute('aria-current') == 'true'
    outline = 'return getComputedStyle(document.activeElement).outlineStyle'
    assert driver.execute_script(outline) == 'solid', 'where the focus is can be seen'
    press(driver, '[data-value=worst]', ' ')
    assert current(driver) == '4.png', 'the space bar still presses buttons'


def test_views_differ(opened: Callable):
    driver = opened('segmentation')
    shown = {}
    for view in ('truth', 'prediction', 'photo', 'both'):
        click(driver, f'[data-value={view}]')
        sources = 'return [...document.querySelectorAll(".pane img")].map((i) => i.src)'
        shown[view] = driver.execute_script(sources)
    photo = shown['photo'][0]
    assert shown['truth'][0] == shown['prediction'][0] == photo
    assert shown['both'] == shown['truth'] + shown['prediction']
    assert len({photo, shown['truth'][1], shown['prediction'][1]}) == 3


def test_tables_sort(opened: Callable):
    driver = opened('detection')
    column = '#tables table:first-of-type tbody td:nth-child(4)'
    values = texts(driver, f'.block:first-child {column.removeprefix("#tables ")}')
    button = '.block:first-child thead th:nth-child(4) button'
    for order, reverse in (('descending', True), ('ascending', False)):
        click(driver, button)
        shown = texts(driver, '.block:first-child tbody td:nth-child(4)')
        assert shown == sorted(values, key=float, reverse=reverse)
        assert find(driver, '.block:first-child th:nth-child(4)')[0].get_attribute('aria-sort') == order


@pytest.mark.parametrize('width', [390, 768, 1280])
@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_nothing_overflows(opened: Callable, task: str, width: int):
    driver = opened(task, width)
    for view in ('both', 'photo'):
        click(driver, f'[data-value={view}]')
        assert driver.execute_script('return innerWidth') == width
        assert driver.execute_script('return document.documentElement.scrollWidth') == width
        assert chromium.too_wide(driver) == []
