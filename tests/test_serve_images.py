"""The page of a game that makes images of images, without a browser: its sheet, one row, and a visitor's own file."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from gancli.cli import main
from gancli.data import imagefile
from gancli.draw import pictures, reading, translating
from gancli.draw.given import Rows
from gancli.errors import ConfigError, DataError
from gancli.serve import service as desks
from gancli.serve.service import Service, SheetRequest, facts
from tests.conftest import Gan
from tests.maps import TRAIN, move_in


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both directions, by class, of images that are not square, with noise inside the network."""
    move_in()
    run = tmp_path_factory.mktemp("maps") / "r"
    keys = ["game.labelled=true", "dataset.classes=2", "model.sigma=0.3", "observers=none", "steps=0"]
    assert main([*TRAIN[:-3], *keys, f"run_dir={run}"]) == 0
    return run


@pytest.fixture(scope="module")
def service(run: Path) -> Service:
    return Service(reading.load(str(run)))


def coded(image: np.ndarray) -> bytes:
    """A file's content."""
    file = io.BytesIO()
    Pillow.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    "wish", [SheetRequest(2, 5), SheetRequest(0, 3, None, (0, 1), "B2A")], ids=["evenly", "a row each"]
)
def test_a_sheet_is_the_grid_of_the_command_that_it_names(gan: Gan, service: Service, wish: SheetRequest) -> None:
    sheet = service.sheet(wish)
    verb, *words = shlex.split(service.command(wish))[1:]
    assert f"direction={wish.direction or 'A2B'}" in words
    assert gan(verb, *words, "run_dir=r").code == 0
    assert sheet.png == Path("r/grid.png").read_bytes()
    assert sheet.at(20, 30) is None  # there is no path that begins anywhere


def test_the_page_says_what_it_is_of(service: Service, run: Path) -> None:
    assert service.title == f"Samples of {run.name}"
    assert (service.translates, service.directions, service.usual(), service.most(1000)) == (
        True,
        ("A2B", "B2A"),
        12,
        12,
    )
    assert facts(service.sampler) == ["step 0", "raw weights", "8 × 12 colour", "2 classes"]
    with pytest.raises(ConfigError, match="type n=12 or less"):
        service.sheet(SheetRequest(0, 13))


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_a_row_is_that_of_the_samples(gan: Gan, run: Path, service: Service, direction: str) -> None:
    words = [f"run={run}", "n=3", "seed=1", "classes=1", f"direction={direction}", "format=npz", "run_dir=s"]
    assert gan("sample", *words).code == 0
    one = service.row((1, 2), direction, 1)
    with np.load("s/samples.npz") as file:
        for png, name in ((one.given, direction[0]), (one.made, "images"), (one.truth, direction[2])):
            assert png is not None
            np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(png))), file[name][2])
        np.testing.assert_array_equal(one.image.transpose(1, 2, 0), file["images"][2])
    assert one.name == "000002"


@pytest.mark.parametrize("bits", [8, 16])
def test_an_upload_becomes_what_input_makes_of_it(gan: Gan, run: Path, service: Service, bits: int) -> None:
    image = np.random.default_rng(0).integers(0, 1 << bits, (3, 9, 7)).astype(f"uint{bits}")
    path = imagefile.write(Path(), "mine", image)
    words = ["input=mine.png", "seed=5", "classes=0", "direction=B2A", "run_dir=out"]
    assert gan("sample", f"run={run}", *words).code == 0
    one = service.upload(path.read_bytes(), "C:\\photos\\mine.png", SheetRequest(5, 1, None, (0,), "B2A"))
    np.testing.assert_array_equal(imagefile.read(Path("out/mine.png")), one.image)
    assert (one.name, one.truth) == ("mine", None)
    np.testing.assert_array_equal(np.asarray(Pillow.open(io.BytesIO(one.made))), translating.shown(one.image))
    assert "padded by reflection to multiples of 4, and outputs cropped" in one.changes
    assert service.upload(path.read_bytes(), "../..", SheetRequest()).name == ".."
    named = service.upload(path.read_bytes(), "写真" * 60 + ".png", SheetRequest()).name
    assert named == "写真" * 16 + "写"  # 99 bytes


def test_uploads_that_cannot_be_used_are_refused(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"^a\.png cannot be used as an image \(it is not an image of a supported format"
    ):
        service.upload(b"<svg/>", "a.png", SheetRequest())
    with pytest.raises(DataError, match=r"it is empty"):
        service.upload(b"", "a.png", SheetRequest())
    monkeypatch.setattr(desks, "MOST_PIXELS", 99)
    with pytest.raises(
        DataError, match=r"^a\.png has more than 99 pixels, the limit of the page: use gan sample input=FILE$"
    ):
        service.upload(coded(np.zeros((3, 10, 10), np.uint8)), "a.png", SheetRequest())
    monkeypatch.setattr(desks, "MOST_VALUES", 299)
    monkeypatch.setattr(desks, "MOST_PIXELS", 100)
    monkeypatch.setattr(imagefile, "pixels", None)  # nothing is decoded
    with pytest.raises(
        DataError, match=r"^a\.png has more than 299 values, the limit of the page: use gan sample input=FILE$"
    ):
        service.upload(coded(np.zeros((3, 10, 10), np.uint8)), "a.png", SheetRequest())
    monkeypatch.setattr(desks, "LARGEST_UPLOAD", 1 << 20)
    with pytest.raises(DataError, match=r"^a\.png has more than 1 MiB, the limit for uploads$"):
        service.upload(bytes((1 << 20) + 1), "a.png", SheetRequest())


def test_an_archive_has_the_files_of_format_png(gan: Gan, run: Path, service: Service, tmp_path: Path) -> None:
    wish = SheetRequest(3, 4, None, (), "B2A")
    service.archive(wish, tmp_path / "a.zip", lambda drawn: None)
    words = ["seed=3", "n=4", "direction=B2A", "format=png", "run_dir=r"]
    assert gan("sample", f"run={run}", *words).code == 0
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        packed = {name: file.read(name) for name in file.namelist()}
    assert json.loads(packed.pop("sample.json")) == json.loads(Path("r/sample.json").read_text(encoding="utf-8"))
    assert packed == {p.name: p.read_bytes() for p in Path("r").glob("*.png")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "r"]


def test_bounds_are_those_of_the_direction(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(service.sampler), "most", property(lambda found: {"A2B": 12, "B2A": 7}[found.direction]))
    assert [service.most(10, way) for way in (None, "A2B", "B2A")] == [10, 10, 7]
    assert (service.usual("A2B"), service.usual("B2A")) == (12, 7)


def test_without_data_files_are_taken_all_the_same(
    service: Service, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise DataError("the data are not there")

    content = coded(np.zeros((3, 8, 12), np.uint8))
    wanted = service.upload(content, "a.png", SheetRequest())
    monkeypatch.setattr(Rows, "of_run", gone)
    bare = Service(reading.load(str(run)))
    assert (service.lack, bare.lack) == ("", "the data are not there")
    assert (bare.most(1000), bare.usual()) == (1000, pictures.MADE)
    assert bare.upload(content, "a.png", SheetRequest()).made == wanted.made
