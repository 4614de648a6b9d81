"""The pages in a browser: no word on the console, pictures shown, the slider moves them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium, complaints
from tests.conftest import Gan
from tests.test_report import SEEN

KEYS = ["observers.grid.every=2", "observers.metrics.every=1"]


def shown(driver: Any, path: Path) -> None:
    """Open a page and wait for its charts."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(path.resolve().as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.find_element("tag name", "body").get_attribute("data-ready"))


def sources(driver: Any) -> list[str]:
    """What the sheets show; each of them must have been drawn."""
    images = driver.find_elements("css selector", "img[data-sheets]")
    assert all(driver.execute_script("return arguments[0].naturalWidth", image) > 100 for image in images)
    return [image.get_attribute("src") for image in images]


def move(driver: Any, place: int) -> str:
    """Move the slider; the step that it names."""
    driver.execute_script(
        "const s = document.getElementById('slider'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
        place,
    )
    driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 100))")
    step: str = driver.find_element("id", "step").text
    return step


@pytest.mark.slow
def test_the_pages_of_runs_in_a_browser(gan: Gan) -> None:
    assert gan("train", *SEEN, *KEYS, "steps=6", "run_dir=a").code == 0
    assert gan("train", *SEEN, *KEYS, "steps=6", "seed=1", "run_dir=b").code == 0
    from gancli.report import page

    page.compare([Path("a"), Path("b")], Path("both.html"))
    with chromium() as driver:
        for path, sheets in ((Path("a/report.html"), 1), (Path("both.html"), 2)):
            shown(driver, path)
            last = sources(driver)
            assert len(last) == sheets
            assert move(driver, 0) == "0"
            first = sources(driver)
            assert all(a != b for a, b in zip(first, last, strict=True))
            assert move(driver, 3) == "6"
            assert sources(driver) == last
            charts = driver.find_elements("css selector", "[data-figure] .main-svg")
            assert len(charts) >= 4
            assert complaints(driver) == []


@pytest.mark.slow
def test_a_page_that_loads_itself_anew_keeps_its_place(trained: Path, tmp_path: Path, gan: Gan) -> None:
    from gancli.report import page

    shutil.copytree(trained, tmp_path / "r")
    target = page.write(tmp_path / "r")
    with chromium() as driver:
        shown(driver, target)
        assert move(driver, 1) == "2"
        driver.refresh()
        assert driver.find_element("id", "step").text == "2"
