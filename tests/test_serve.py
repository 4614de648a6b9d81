"""The latent page without a browser: what it draws, where it listens, and what it refuses."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import json
import shlex
import shutil
import socket
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gancli
from gancli.draw import pictures
from gancli.errors import ConfigError, Interrupted
from gancli.serve import address
from gancli.serve.latest import Latest
from gancli.serve.limit import Limited
from gancli.serve.origin import OwnOrigin
from gancli.serve.server import screen
from gancli.serve.service import FRAMES, Service, SheetRequest, Walk, facts
from tests.conftest import Gan


@pytest.fixture(scope="module")
def service(labelled: Path) -> Service:
    return Service(gancli.load(str(labelled)))


def pixels(png: bytes) -> pictures.Pixels:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "wish",
    [SheetRequest(3, 9), SheetRequest(0, 5, 0.5, (0, 1, 2)), SheetRequest(1, 3, None, (2, 0))],
    ids=["evenly", "all truncated", "two rows"],
)
def test_a_sheet_is_the_grid_of_the_command_that_it_names(gan: Gan, service: Service, wish: SheetRequest) -> None:
    sheet = service.sheet(wish)
    verb, *words = shlex.split(service.command(wish))[1:]
    assert gan(verb, *words, "run_dir=r").code == 0
    assert sheet.png == Path("r/grid.png").read_bytes()
    about = json.loads(Path("r/sample.json").read_text(encoding="utf-8"))
    assert [list(pair) for pair in sheet.pairs] == about["seeds"]
    assert sheet.labels == about["classes"]
    assert about["truncation"] == wish.truncation


def test_the_command_names_what_was_not_left_as_it_is(labelled: Path, trained: Path, tmp_path: Path) -> None:
    raw = Service(gancli.load(str(labelled), 0, ema=False))
    assert raw.command(SheetRequest(2, 4, 0.7, (1,))) == (
        f"gan sample run={labelled} checkpoint=0 ema=false seed=2 n=4 truncation=0.7 classes=1"
    )
    file = Path(shutil.copy(trained / "checkpoints" / "00000004.pt", tmp_path / "alone.pt"))
    settled = Service(gancli.load(str(file), standing_stats=3))
    assert settled.command(SheetRequest(0, 8)) == f"gan sample run={file} standing_stats=3 seed=0 n=8"


def test_the_command_of_an_export_can_be_typed(gan: Gan, labelled: Path) -> None:
    assert gan("sample", f"run={labelled}", "format=safetensors", "run_dir=made").code == 0
    exported = Service(gancli.load("made/generator.safetensors"))
    command = exported.command(SheetRequest(0, 4))
    assert command == "gan sample run=made/generator.safetensors seed=0 n=4"
    assert gan(*shlex.split(command)[1:], "run_dir=s").code == 0
    assert exported.sheet(SheetRequest(0, 4)).png == Path("s/grid.png").read_bytes()


def test_images_are_found_under_the_mouse(service: Service) -> None:
    for wish in (SheetRequest(0, 7), SheetRequest(0, 3, None, (0, 2))):
        sheet = service.sheet(wish)
        page = pixels(sheet.png)
        images = torch.cat([next(service.sampler.samples(wish.n, wish.seed, c)) for c in wish.classes or (None,)])
        height, width = (side - 2 for side in sheet.cell)
        for k, image in enumerate(images):
            x, y = sheet.corner(k)
            large = pictures.to_pixels(image).repeat(4, 0).repeat(4, 1)
            np.testing.assert_array_equal(page[y : y + height, x : x + width], large)
            assert sheet.at(x, y) == sheet.at(x + width - 1, y + height - 1) == k
        assert sheet.at(page.shape[1] + 1, 5) is None
        assert sheet.at(5, page.shape[0] + 1) is None
    assert sheet.at(1, 5) is None  # a name
    assert sheet.each


def test_a_path_is_the_one_that_interpolate_draws(gan: Gan, labelled: Path, service: Service) -> None:
    frames = service.walk(Walk((5, 0), (5, 1), label=service.label((5, 0))))
    assert len(frames) == FRAMES
    images = torch.stack([torch.from_numpy(pixels(frame).copy()).permute(2, 0, 1) for frame in frames])
    keys = ["rows=1", f"frames={FRAMES}", "seed=5", "run_dir=r"]
    assert gan("interpolate", f"run={labelled}", *keys).code == 0
    with Image.open("r/paths.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), pictures.sheet(images, FRAMES))
    cut = service.walk(Walk((5, 0), (5, 1), 0.1, 0))
    assert cut[0] != service.walk(Walk((5, 0), (5, 1), None, 0))[0]


@pytest.mark.parametrize(
    ("wish", "words"), [(SheetRequest(2, 40), []), (SheetRequest(0, 3, None, (0, 1, 2)), ["classes=all"])]
)
def test_an_archive_has_the_files_of_format_png(
    gan: Gan, labelled: Path, service: Service, wish: SheetRequest, words: list[str], tmp_path: Path
) -> None:
    told: list[int] = []
    service.archive(wish, tmp_path / "a.zip", told.append)
    assert told == ([32, 40] if wish.size == 40 else [9])
    keys = [f"seed={wish.seed}", f"n={wish.n}", "format=png", "run_dir=r"]
    assert gan("sample", f"run={labelled}", *words, *keys).code == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        packed = {name: file.read(name) for name in file.namelist()}
    assert json.loads(packed.pop("sample.json")) == json.loads(Path("r/sample.json").read_text(encoding="utf-8"))
    assert packed == {p.name: p.read_bytes() for p in Path("r").glob("*.png")}
    assert len(packed) == wish.size


def test_what_is_too_much_is_refused(service: Service, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"n=257: a sheet of the page has at most 256 images$"):
        service.sheet(SheetRequest(0, 257))
    with pytest.raises(ConfigError, match=r"at most 256 images, 85 per class$"):
        service.sheet(SheetRequest(0, 86, None, (0, 1, 2)))
    with pytest.raises(ConfigError, match="at most 1,000 images, 333 per class"):
        service.archive(SheetRequest(0, 334, None, (0, 1, 2)), tmp_path / "a.zip", print)
    assert not (tmp_path / "a.zip").exists()


def test_a_closed_desk_ends_what_it_draws(labelled: Path, tmp_path: Path) -> None:
    service = Service(gancli.load(str(labelled)))
    told: list[int] = []

    def progress(drawn: int) -> None:
        told.append(drawn)
        service.close()

    with pytest.raises(Interrupted):
        service.archive(SheetRequest(0, 100), tmp_path / "a.zip", progress)
    assert told == [32]


def test_facts_of_the_generator(labelled: Path, trained: Path, service: Service) -> None:
    assert facts(service.sampler) == [
        "step 4", "averaged weights (EMA)", "standing statistics of 16 passes", "16 × 16 colour", "3 classes",
    ]  # fmt: skip
    raw = Service(gancli.load(str(trained), ema=False))
    assert facts(raw.sampler) == ["step 6", "raw weights", "8 × 8 grey", "no classes"]
    assert raw.classes == ()
    assert raw.label((0, 0)) is None


def test_the_newest_of_many_wishes_is_drawn() -> None:
    done: list[int] = []

    async def main() -> None:
        wish = 0

        async def work() -> None:
            now = wish
            await asyncio.sleep(0.01)
            done.append(now)

        latest = Latest(work)
        tasks = []
        for wish in range(5):  # noqa: B007
            tasks.append(asyncio.create_task(latest()))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert done == [0, 4]


def test_an_error_does_not_end_later_work() -> None:
    calls: list[bool] = []

    async def work() -> None:
        calls.append(True)
        if len(calls) == 1:
            raise ValueError

    async def main() -> None:
        latest = Latest(work)
        with pytest.raises(ValueError):  # noqa: PT011
            await latest()
        await latest()

    asyncio.run(main())
    assert len(calls) == 2


def test_it_listens_on_this_machine_alone_unless_told() -> None:
    with address.bound("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert address.loopback(listener)
        port = listener.getsockname()[1]
        assert address.url(listener) == f"http://127.0.0.1:{port}/"
        with pytest.raises(ConfigError, match=f"port={port}: .*in use.*port=0 selects a free port"):
            address.bound("127.0.0.1", port)
    with address.bound("localhost", 0) as listener:
        assert address.loopback(listener)
    with address.bound("0.0.0.0", 0) as listener:
        assert not address.loopback(listener)
        assert address.url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}/"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6")
def test_addresses_of_six() -> None:
    with address.bound("::1", 0) as listener:
        assert address.loopback(listener)
        assert address.url(listener) == f"http://[::1]:{listener.getsockname()[1]}/"


LOCAL = ("localhost", "127.0.0.1:8080", "127.0.0.1:9000", "[::1]:8080", "LOCALHOST:1")
AWAY = (
    "evil.example",
    "evil.example:8080",
    "127.0.0.1.evil.example",
    "192.168.0.7:8080",
    "a@localhost",
    "",
    "localhost/x",
)


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_the_page_answers_its_own_address_alone(kind: str) -> None:
    """By Host and Origin, before the application or a websocket's handshake sees anything of a request."""
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append("")

    async def main(guard: OwnOrigin, *headers: tuple[bytes, str]) -> bool:
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        before = len(reached)
        await guard({"type": kind, "headers": [(name, value.encode()) for name, value in headers]}, receive, send)
        if len(reached) > before:
            return True
        assert sent[0] == {"type": "websocket.close", "code": 1008} or sent[0]["status"] == 403
        return False

    def asked(guard: OwnOrigin, *headers: tuple[bytes, str]) -> bool:
        return asyncio.run(main(guard, *headers))

    guard = OwnOrigin(app, local=True)
    for host in LOCAL:
        assert asked(guard, (b"host", host))
        assert asked(guard, (b"Host", host), (b"Origin", f"http://{host}"))
        for origin in (
            "http://evil.example",
            "null",
            "",
            "http://localhost:3000",
            f"file://{host}",
            f"http://{host}.x",
        ):
            assert not asked(guard, (b"host", host), (b"origin", origin)), (host, origin)
    for host in AWAY:
        assert not asked(guard, (b"host", host)), host
        assert not asked(guard, (b"host", host), (b"origin", f"http://{host}")), host
    assert not asked(guard)
    assert not asked(guard, (b"host", "localhost"), (b"host", "evil.example"))
    shared = OwnOrigin(app, local=False, named="Lab.Example")
    for host in ("192.168.0.7:8080", "lab.example:8080", socket.gethostname(), "localhost"):
        assert asked(shared, (b"host", host), (b"origin", f"http://{host}")), host
        assert not asked(shared, (b"host", host), (b"origin", "http://evil.example")), host
    assert not asked(shared, (b"host", "evil.example:8080"), (b"origin", "http://evil.example:8080"))


def test_a_request_brings_no_more_than_it_may() -> None:
    """By what it says of itself, and by what comes."""
    from starlette.exceptions import HTTPException

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"status": 200})

    async def main(sizes: list[int], *headers: tuple[bytes, bytes]) -> int:
        sent: list[Any] = []
        bodies = [{"body": b"x" * size, "more_body": k + 1 < len(sizes)} for k, size in enumerate(sizes)]

        async def receive() -> Any:
            return bodies.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        try:
            await Limited(app, 10)({"type": "http", "headers": list(headers)}, receive, send)
        except HTTPException as error:  # which the application that reads makes an answer of
            return error.status_code
        status: int = sent[0]["status"]
        return status

    assert asyncio.run(main([5, 5], (b"Content-Length", b"10"))) == 200
    assert asyncio.run(main([], (b"content-length", b"11"))) == 413
    assert asyncio.run(main([], (b"content-length", b"ten"))) == 413
    assert asyncio.run(main([5, 5])) == 200
    assert asyncio.run(main([5, 6, 1])) == 413


def test_a_browser_opens_where_there_is_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert screen()
    monkeypatch.setenv("SSH_CONNECTION", "x")
    assert not screen()


def test_a_missing_library_is_named(gan: Gan, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = gan("sample", f"run={labelled}", "serve=true", "open=false")
    assert answer.code == 2
    assert answer.err == "gan: serve=true needs NiceGUI, which is not installed: type pip install 'gancli[serve]'\n"


def test_points_have_no_page(gan: Gan) -> None:
    quiet = ["observers.progress=null", "observers.grid=null", "observers.report=null", "device=cpu"]
    assert gan("train", "model=mlp", "dataset=ring", "steps=1", "batch_size=4", *quiet, "run_dir=ring").code == 0
    answer = gan("sample", "run=ring", "serve=true", "open=false")
    assert answer.code == 2
    assert "serve=true draws images and this run draws points of 2 numbers" in answer.err
