"""A headless Chromium that shows a report, and what it says about it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason='no Chromium with chromedriver is installed'
)


@contextmanager
def chromium(profile: Path) -> Iterator:
    """The driver of a browser that keeps its files in ``profile``."""
    webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for name in ('headless', 'no-sandbox', 'disable-gpu', 'disable-background-networking', 'no-first-run'):
        options.add_argument(f'--{name}')
    options.add_argument('--hide-scrollbars')
    options.add_argument(f'--user-data-dir={profile}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def show(driver: object, page: Path, width: int = 1280) -> None:
    """Open a file on a screen of this many pixels; below 500 it is a phone's."""
    size = dict(width=width, height=844, deviceScaleFactor=1, mobile=width < 500)
    driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    driver.get(page.as_uri())


def find(driver: object, selector: str) -> list:
    return driver.find_elements('css selector', selector)


def texts(driver: object, selector: str) -> list[str]:
    return driver.execute_script(
        'return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)', selector
    )


def names(driver: object) -> list[str]:
    """Of the images in the gallery's strip."""
    labels = "return [...document.querySelectorAll('.thumb')].map((t) => t.getAttribute('aria-label'))"
    return [label.split(',')[0] for label in driver.execute_script(labels)]


def click(driver: object, selector: str) -> None:
    driver.execute_script('arguments[0].click()', find(driver, selector)[0])


def broken_images(driver: object) -> int:
    return driver.execute_script(
        'return [...document.images].filter((i) => !i.complete || !i.naturalWidth).length'
    )


def too_wide(driver: object) -> list[str]:
    """The beginnings of elements that reach beyond the right edge of the screen."""
    return driver.execute_script(
        'return [...document.querySelectorAll("body *:not(.skip)")].filter((e) => e.getClientRects().length'
        ' && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML.slice(0, 80))'
    )
