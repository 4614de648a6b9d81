"""The latent page in a browser: what it shows, what moves, what is downloaded, who can reach it and how it ends."""

from __future__ import annotations

import base64
import http.client
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gancli
from gancli.data import imagefile
from gancli.serve.service import FRAMES, Edit, Service, SheetRequest, Walk
from tests import styled
from tests.browser import chromium, complaints
from tests.conftest import TINY, Gan

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/")
PATIENCE = 120  # seconds that a crowded machine may take


@contextmanager
def served(run: Path, place: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int, str]]:
    """`gan sample serve=true` in a process of its own: the process, its port and what it says of it."""
    command = [
        sys.executable,
        "-m",
        "gancli",
        "sample",
        f"run={run}",
        "serve=true",
        "open=false",
        "device=cpu",
        "device.threads=1",
        *words,
    ]
    paths = [str(Path(gancli.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    process = subprocess.Popen(
        command,
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        while not (found := ADDRESS.search(said)):
            line = process.stdout.readline()
            assert line, (said, process.communicate())
            said += line
        yield process, int(found[1]), said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def listening(port: int) -> list[str]:
    """The local addresses on which a port is open, as the kernel's tables write them."""
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text(encoding="utf-8").splitlines()[1:]
    ]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]


def until(wanted: Callable[[], Any]) -> Any:
    """What `wanted` says as soon as it says something."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = wanted()
        if answer:
            return answer
        time.sleep(0.1)
    raise AssertionError("did not come")


def shown(driver: Any, name: str) -> bytes:
    """The PNG that a picture of the page shows, once the browser has drawn it."""
    script = """const i = document.querySelector(`[data-show="${arguments[0]}"] img`);
        return i && i.complete && i.naturalWidth > 0 ? i.src : ''"""
    source: str = until(lambda: driver.execute_script(script, name))
    return base64.b64decode(source.removeprefix("data:image/png;base64,"))


def becomes(driver: Any, name: str, wanted: bytes) -> None:
    """Wait until a picture shows exactly this PNG."""
    until(lambda: shown(driver, name) == wanted)


def control(driver: Any, name: str) -> Any:
    """A control by its name: the element itself, which for a field is its input."""
    return driver.find_element("css selector", f'[data-ask="{name}"]')


def type_in(driver: Any, name: str, text: str) -> None:
    from selenium.webdriver.common.keys import Keys

    field = control(driver, name)
    field = field if field.tag_name == "input" else field.find_element("css selector", "input")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text, Keys.TAB)


def choose(driver: Any, name: str, words: str) -> None:
    """Open a list and take one of its entries."""
    field = control(driver, name)
    driver.execute_script("arguments[0].click()", field)
    entry = f'//div[contains(@class, "q-item")][contains(., "{words}")]'
    until(lambda: driver.find_elements("xpath", entry))[-1].click()


def downloaded(place: Path) -> bytes:
    """The one file of a folder, when it is whole; it is taken away."""
    file: Path = until(lambda: [p for p in place.glob("*.*") if p.suffix in (".zip", ".png")])[0]
    content = file.read_bytes()
    file.unlink()
    return content


@pytest.mark.slow
def test_the_latent_page_in_a_browser(labelled: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    service = Service(gancli.load(str(labelled)))
    files = tmp_path / "files"
    files.mkdir()
    with served(labelled, tmp_path, "port=0", "n=12") as (process, port, said), chromium() as driver:
        assert said.startswith(f"latents of {labelled.name} at step 4: http://127.0.0.1:{port}/")
        assert listening(port) == ["0100007F"]
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(files), "eventsEnabled": True}
        )
        driver.get(f"http://127.0.0.1:{port}/")

        becomes(driver, "sheet", service.sheet(SheetRequest(0, 12)).png)
        facts = driver.find_element("css selector", '[data-show="facts"]').text
        assert facts == (
            "step 4 · averaged weights (EMA) · standing statistics of 16 passes · 16 × 16 colour · 3 classes"
        )
        walk = Walk((0, 0), (0, 1), label=service.label((0, 0)))
        frames = service.walk(walk)
        becomes(driver, "start", frames[0])
        becomes(driver, "between", frames[FRAMES // 2])
        becomes(driver, "end", frames[-1])

        slider = driver.find_element("css selector", '[data-ask="t"] [tabindex="0"]')
        slider.send_keys(Keys.ARROW_RIGHT)
        becomes(driver, "between", frames[FRAMES // 2 + 1])
        slider.send_keys(Keys.ARROW_LEFT * 5)
        becomes(driver, "between", frames[FRAMES // 2 - 4])
        assert driver.find_element("css selector", '[data-show="t"]').text == "t = 0.30"

        driver.execute_script("arguments[0].click()", control(driver, "next"))
        becomes(driver, "sheet", service.sheet(SheetRequest(1, 12)).png)
        type_in(driver, "seed", "41")
        becomes(driver, "sheet", service.sheet(SheetRequest(41, 12)).png)
        driver.execute_script("arguments[0].click()", control(driver, "cut"))
        becomes(driver, "sheet", service.sheet(SheetRequest(41, 12, 1.0)).png)
        becomes(driver, "start", service.walk(Walk(walk.start, walk.end, 1.0, walk.label))[0])

        choose(driver, "class", "all, one row each")
        sheet = service.sheet(SheetRequest(41, 8, 1.0, (0, 1, 2)))
        becomes(driver, "sheet", sheet.png)
        command = driver.find_element("css selector", '[data-show="command"]').text
        assert command == f"gan sample run={labelled} checkpoint=4 seed=41 n=8 truncation=1 classes=all"

        image = driver.find_element("css selector", '[data-show="sheet"] img')
        scale = image.size["width"] / driver.execute_script("return arguments[0].naturalWidth", image)
        x, y = (edge + side // 2 for edge, side in zip(sheet.corner(2 * 8 + 5), sheet.cell, strict=True))
        aside = round(x * scale - image.size["width"] / 2), round(y * scale - image.size["height"] / 2)
        ActionChains(driver).move_to_element_with_offset(image, *aside).click().perform()
        becomes(driver, "start", service.walk(Walk((41, 5), (0, 1), 1.0, 2))[0])

        type_in(driver, "count", "11")
        driver.execute_script("arguments[0].click()", control(driver, "zip"))
        service.archive(SheetRequest(41, 11, 1.0, (0, 1, 2)), tmp_path / "wanted.zip", lambda drawn: None)
        with (
            zipfile.ZipFile(io.BytesIO(downloaded(files))) as got,
            zipfile.ZipFile(tmp_path / "wanted.zip") as wanted,
        ):
            assert len([name for name in got.namelist() if name.endswith(".png")]) == 33
            assert {n: got.read(n) for n in got.namelist()} == {n: wanted.read(n) for n in wanted.namelist()}
        driver.execute_script("arguments[0].click()", control(driver, "png"))
        assert downloaded(files) == sheet.png

        asked = driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert len(asked) > 10
        assert all(name.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:")) for name in asked)
        assert complaints(driver) == []

        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["files", "wanted.zip"]


@pytest.mark.slow
def test_sliders_move_a_sample_along_directions_in_a_browser(tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    run = styled.train(tmp_path, "stylegan2")
    service = Service(gancli.load(str(run)))
    with served(run, tmp_path, "port=0", "n=4") as (_, port, _), chromium() as driver:
        driver.get(f"http://127.0.0.1:{port}/")
        becomes(driver, "edited", service.edited(Edit((0, 0), (0.0,) * 5)))
        slider = driver.find_element("css selector", '[data-ask="direction2"] [tabindex="0"]')
        slider.send_keys(Keys.ARROW_RIGHT * 8)
        becomes(driver, "edited", service.edited(Edit((0, 0), (0.0, 2.0, 0.0, 0.0, 0.0))))
        type_in(driver, "start-image", "3")
        becomes(driver, "edited", service.edited(Edit((0, 3), (0.0, 2.0, 0.0, 0.0, 0.0))))
        driver.execute_script("arguments[0].click()", control(driver, "reset"))
        becomes(driver, "edited", service.edited(Edit((0, 3), (0.0,) * 5)))
        assert complaints(driver) == []


@pytest.mark.slow
def test_the_page_of_a_game_of_images_in_a_browser(gan: Gan, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("model", "dataset.size", "observers"))]
    small = ["model=cyclegan", "model.ch=2", "dataset.size=[3,24,32]", "observers=none", "steps=0", "run_dir=r"]
    assert gan("train", *words, *small).code == 0
    service = Service(gancli.load("r"))
    image = np.random.default_rng(0).integers(0, 65536, (3, 21, 30)).astype(np.uint16)
    mine = imagefile.write(tmp_path / "mine", "of mine", image)
    (tmp_path / "mine" / "bad.png").write_bytes(b"no image")
    files = tmp_path / "files"
    files.mkdir()
    with served(tmp_path / "r", tmp_path, "n=3") as (process, port, said), chromium() as driver:
        assert said.splitlines()[-1].startswith(f"samples of r at step 0: http://127.0.0.1:{port}/")
        driver.execute_cdp_cmd(
            "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(files), "eventsEnabled": True}
        )
        driver.get(f"http://127.0.0.1:{port}/")
        becomes(driver, "sheet", service.sheet(SheetRequest(0, 3)).png)
        for direction in ("A2B", "B2A"):
            if direction == "B2A":
                choose(driver, "direction", direction)
            row = service.row((0, 0), direction)
            for name, png in (("input", row.given), ("output", row.made)):
                becomes(driver, name, png)
        becomes(driver, "sheet", service.sheet(SheetRequest(0, 3, direction="B2A")).png)
        type_in(driver, "row", "5")
        becomes(driver, "output", service.row((0, 5), "B2A").made)

        chosen = driver.find_element("css selector", 'input[type="file"]')
        chosen.send_keys(str(mine))
        own = service.upload(mine.read_bytes(), mine.name, SheetRequest(direction="B2A"))
        becomes(driver, "input", own.given)
        becomes(driver, "output", own.made)
        told = driver.find_element("css selector", '[data-show="said"]').text
        assert told.startswith("of mine.png; 16 bits converted to 8 for the network")
        driver.execute_script("arguments[0].click()", control(driver, "output"))
        (files / "got.png").write_bytes(downloaded(files))
        np.testing.assert_array_equal(imagefile.read(files / "got.png"), own.image)

        driver.find_element("css selector", 'input[type="file"]').send_keys(str(tmp_path / "mine" / "bad.png"))
        until(lambda: "bad.png cannot be used as an image" in driver.find_element("tag name", "body").text)
        type_in(driver, "seed", "1")  # goes on with the row
        becomes(driver, "output", service.row((1, 5), "B2A").made)
        assert complaints(driver) == []
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out) == (0, "")
        assert "Traceback" not in err


@pytest.mark.slow
def test_a_page_for_others_says_so_and_a_local_one_answers_to_local_names(labelled: Path, tmp_path: Path) -> None:
    def status(port: int, name: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/", headers={"Host": name})
        with closing(connection):
            return connection.getresponse().status

    with served(labelled, tmp_path) as (process, port, _):
        assert status(port, f"127.0.0.1:{port}") == status(port, f"localhost:{port}") == 200
        assert status(port, f"elsewhere.example:{port}") == 403
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
    with served(labelled, tmp_path, "host=0.0.0.0") as (process, port, said):
        assert said.startswith(
            "note: 0.0.0.0 is reachable from other machines: everyone who can connect can use the page\n"
        )
        assert listening(port) == ["00000000"]
        assert status(port, f"10.0.0.7:{port}") == status(port, f"{socket.gethostname()}:{port}") == 200
        assert status(port, f"elsewhere.example:{port}") == 403
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "", "")
