"""`gan sample input=`: names, sizes, depth and channels are kept, each file goes alone, and nothing is half done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from gancli.cli import main
from gancli.data import imagefile, inputs
from gancli.draw import reading, translating
from gancli.draw.translating import Translator, padded
from gancli.errors import ConfigError, DataError
from gancli.verbs import translate
from tests.conftest import TINY, Gan
from tests.maps import TRAIN, move_in
from tests.test_odd_game import here

KINDS = {
    "noisy": ["model.sigma=0.3"],
    "grey": ["dataset.A=[1,8,12]", "dataset.B=[3,16,24]"],
    "fixed": ["game.any_size=false"],
    "labelled": ["game.labelled=true", "dataset.classes=3"],
}
RAW = "note: this run keeps no EMA: the raw weights are used\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind as it begins; nothing is written to them."""
    move_in()
    top = tmp_path_factory.mktemp("maps")
    for name, words in KINDS.items():
        quiet = ["observers=none", "steps=0", f"run_dir={top / name}"]
        assert main([*TRAIN[:-3], *words, *quiet]) == 0
    return {name: top / name for name in KINDS}


def noise(*shape: int, bits: int = 8) -> np.ndarray:
    """An image [C, H, W]."""
    kind = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(sum(shape)).integers(0, 1 << bits, shape, dtype=kind)


def lay(folder: str, files: dict[str, np.ndarray]) -> None:
    """Files of images, by their names without a suffix."""
    for name, image in files.items():
        place = Path(folder, name)
        imagefile.write(place.parent, place.name, image)


def said(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "sample.json").read_text(encoding="utf-8"))
    return found


def written(folder: str) -> list[str]:
    """All files, relative."""
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_names_sizes_and_depth_are_kept(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"a": noise(3, 9, 30), "b/a": noise(3, 16, 24, bits=16), "b/c.d": noise(3, 5, 3)})
    answer = gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out")
    assert answer.code == 0, answer.err
    assert answer.out == "3 images by noisy at step 0, A2B: out\n"
    lines = answer.err.removeprefix(RAW).splitlines()
    assert lines[0] == "images 1/3"
    assert lines[1:] == [
        "note: 2 of 3 files: padded by reflection to multiples of 4, and outputs cropped",
        "note: 1 of 3 files: 16 bits converted to 8 for the network, and outputs back to 16",
    ]
    assert written("out") == ["a.png", "b/a.png", "b/c.d.png", "sample.json"]
    for name in ("a", "b/a", "b/c.d"):
        before, after = (imagefile.read(Path(folder, f"{name}.png")) for folder in ("in", "out"))
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
    about = said("out")
    assert (about["input"], about["seed"], about["direction"], about["failed"]) == (
        str(Path("in").absolute()),
        0,
        "A2B",
        [],
    )
    assert about["files"] == [
        {"input": "a.png", "output": "a.png", "shape": [3, 9, 30], "bits": 8, "padded": [12, 32]},
        {"input": "b/a.png", "output": "b/a.png", "shape": [3, 16, 24], "bits": 16},
        {"input": "b/c.d.png", "output": "b/c.d.png", "shape": [3, 5, 3], "bits": 8, "padded": [8, 12]},
    ]  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16])
def test_an_image_is_what_the_network_makes_of_it(gan: Gan, runs: dict[str, Path], bits: int) -> None:
    """By the network itself: padded by reflection, levels of as many bits as the file has."""
    image = noise(1, 9, 13, bits=bits)
    lay(".", {"a": image})
    assert gan("sample", f"run={runs['grey']}", "input=a.png", "run_dir=out").code == 0
    small = image[0] if bits == 8 else ((image[0].astype(np.int64) + 128) // 257)
    reflected = np.pad(small, ((0, 3), (0, 3)), mode="reflect").astype(np.float32) / 127.5 - 1
    with torch.no_grad():
        made = reading.load(str(runs["grey"])).nets["G_A2B"](torch.from_numpy(reflected)[None, None])[0]
    assert made.shape == (3, 24, 32)  # this network doubles the sides
    expected = ((made[:, :18, :26] + 1) * (((1 << bits) - 1) / 2)).round().numpy()
    np.testing.assert_array_equal(imagefile.read(Path("out/a.png")), expected.astype(image.dtype))


def test_channels_become_those_of_the_run_and_that_is_said(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"grey": noise(1, 8, 12), "alpha": noise(4, 8, 12), "colour": noise(3, 8, 12)})
    answer = gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out")
    assert answer.code == 0
    assert answer.err.removeprefix(RAW).splitlines()[1:] == [
        "note: 1 of 3 files: colour with alpha converted to colour, on white",
        "note: 1 of 3 files: grey converted to colour",
    ]
    for name in ("grey", "alpha", "colour"):
        assert imagefile.read(Path("out", f"{name}.png")).shape == (3, 8, 12)
    alone = gan("sample", f"run={runs['grey']}", "input=in/colour.png", "run_dir=one")
    assert alone.err == f"{RAW}note: colour converted to grey\n"
    assert alone.out == "1 image by grey at step 0, A2B: one\n"


def test_an_output_does_not_depend_on_what_else_is_there(gan: Gan, runs: dict[str, Path]) -> None:
    """Nor on the file's name: noise inside the network is that of sample 0 of the seed."""
    image = noise(3, 10, 11)
    lay("few", {"m": image})
    lay("many", {"a": noise(3, 8, 12), "m": image, "z": image, "b/c": noise(3, 40, 3)})
    for folder in ("few", "many"):
        assert gan("sample", f"run={runs['noisy']}", f"input={folder}", f"run_dir=of-{folder}", "seed=4").code == 0
    assert gan("sample", f"run={runs['noisy']}", "input=few", "run_dir=other", "seed=5").code == 0
    first = Path("of-few/m.png").read_bytes()
    assert first == Path("of-many/m.png").read_bytes() == Path("of-many/z.png").read_bytes()
    assert first != Path("other/m.png").read_bytes()


def test_a_held_out_row_becomes_the_same_as_its_file(gan: Gan, runs: dict[str, Path]) -> None:
    words = [f"run={runs['noisy']}", "n=1", "seed=3"]
    assert gan("sample", *words, "format=npz", "run_dir=rows").code == 0
    with np.load("rows/samples.npz") as file:
        row, made = file["A"][0].transpose(2, 0, 1), file["images"][0].transpose(2, 0, 1)
    lay(".", {"row": row})
    assert gan("sample", words[0], "seed=3", "input=row.png", "run_dir=out").code == 0
    np.testing.assert_array_equal(imagefile.read(Path("out/row.png")), made)


def test_an_output_stands_beside_a_folder_of_its_name(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"x.png/b": noise(3, 8, 12)})
    Pillow.fromarray(noise(3, 8, 12).transpose(1, 2, 0)).save("in/x.jpg")
    assert gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out").code == 0
    assert written("out") == ["sample.json", "x.jpg.png", "x.png/b.png"]


def test_two_of_one_stem_keep_their_suffix(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"a": noise(3, 8, 12), "b/a": noise(3, 8, 12)})
    with Pillow.open("in/a.png") as image:
        image.save("in/a.jpg")
    assert gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out").code == 0
    assert written("out") == ["a.jpg.png", "a.png.png", "b/a.png", "sample.json"]
    assert inputs.outputs(["A.png", "a.jpg", "a.jpg.gif", "x.gif"]) == ["A.png", "a.jpg", "a.jpg.gif", "x"]


def test_a_pattern_keeps_what_lies_below_its_plain_part(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"x1/a": noise(3, 8, 12), "x2/a": noise(3, 8, 12), "y/a": noise(3, 8, 12), "x2/deep/b": noise(3, 8, 12)})
    Path("in/x1/notes.txt").touch()
    for pattern, files in (
        ("in/x?/*.png", ["x1/a.png", "x2/a.png"]),
        (f"{Path('in').absolute()}/x*/a.png", ["x1/a.png", "x2/a.png"]),
        ("in/*", ["x1/a.png", "x2/a.png", "x2/deep/b.png", "y/a.png"]),
        ("in/**", ["x1/a.png", "x2/a.png", "x2/deep/b.png", "y/a.png"]),
        ("in/x2/**/*.png", ["a.png", "deep/b.png"]),
    ):
        found = inputs.find(pattern)
        assert list(found.names) == files, pattern
        assert list(found.notes) == (["left out: 1 .txt"] if pattern.endswith(("/*", "/**")) else [])
    Path("in/[x]").mkdir()
    lay("in/[x]", {"odd": noise(3, 8, 12)})
    assert list(inputs.find("in/[x]").names) == ["odd.png"]  # a folder of that name comes first
    assert gan("sample", f"run={runs['noisy']}", "input=in/x*/a.png", "run_dir=out").code == 0
    assert written("out") == ["sample.json", "x1/a.png", "x2/a.png"]


def test_a_name_that_is_no_utf8_comes_back(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"a": noise(3, 8, 12)})
    name = os.fsdecode(b"caf\xe9.png")
    Path("in/a.png").rename(Path("in", name))
    assert gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out").code == 0
    assert written("out") == sorted([name, "sample.json"])
    assert [each["output"] for each in said("out")["files"]] == [name]


def test_links_hidden_files_and_pipes(gan: Gan, runs: dict[str, Path]) -> None:
    lay("elsewhere", {"a": noise(3, 8, 12), ".hidden": noise(3, 8, 12)})
    Path("in").mkdir()
    Path("in/linked").symlink_to(Path("elsewhere").absolute())
    Path("in/round").symlink_to(Path("in").absolute())
    Path("in/.dot.png").touch()
    os.mkfifo("in/pipe")
    found = inputs.find("in")
    assert list(found.names) == ["linked/a.png"]
    (note,) = found.notes
    assert note == "left out: 2 hidden files, pipe (a named pipe), round (a link to a folder that was already read)"
    os.mkfifo("in/pipe.png")
    for given in ("in", "in/*"):
        answer = gan("sample", f"run={runs['noisy']}", f"input={given}", "run_dir=out")
        assert answer.code == 2
        assert answer.err == "gan: in/pipe.png is a named pipe, not an image: remove it\n"
    Path("in/pipe.png").unlink()
    Path("in/gone.png").symlink_to("nowhere.png")
    for given in ("in", "in/*"):
        answer = gan("sample", f"run={runs['noisy']}", f"input={given}", "run_dir=out")
        assert answer.err.startswith("gan: in/gone.png is a link to nowhere.png, which does not exist: fix or remove")
    assert not Path("out").exists()


def test_files_that_cannot_be_used_are_named_at_the_end(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"a": noise(3, 8, 12), "e": noise(5, 8, 12), "z": noise(3, 8, 12)})
    Path("in/b.png").write_bytes(b"no image")
    answer = gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == (
        "gan: 2 of 4 files could not be used, the first: in/b.png cannot be used as an image (it is not an image of a"
        " supported format): fix or remove it; the others are in out; sample.json lists all"
    )
    assert answer.out == "2 images by noisy at step 0, A2B: out\n"
    assert written("out") == ["a.png", "sample.json", "z.png"]
    assert [each["input"] for each in said("out")["failed"]] == ["b.png", "e.npy"]
    assert "e.npy has 5 channels, not convertible to 3" in said("out")["failed"][1]["why"]
    alone = gan("sample", f"run={runs['noisy']}", "input=in/b.png", "run_dir=none")
    assert (alone.code, alone.out) == (2, "")
    assert not Path("none").exists()


def test_a_network_of_one_size_refuses_others(gan: Gan, runs: dict[str, Path]) -> None:
    lay("in", {"a": noise(3, 8, 12), "b": noise(3, 12, 8)})
    assert gan("sample", f"run={runs['fixed']}", "input=in/a.png", "run_dir=one").code == 0
    answer = gan("sample", f"run={runs['fixed']}", "input=in/b.png", "run_dir=two")
    assert answer.code == 2
    assert answer.err == f"{RAW}gan: in/b.png is 12×8, and this network takes only 8×12: resize it first\n"


def test_a_class_is_asked_for(gan: Gan, runs: dict[str, Path]) -> None:
    lay(".", {"a": noise(3, 8, 12)})
    images = {}
    for word in ("kind 0", "1", "2", None):
        words = [] if word is None else [f"classes={word}"]
        assert gan("sample", f"run={runs['labelled']}", "input=a.png", *words, f"run_dir=s{word}").code == 0
        images[word] = Path(f"s{word}/a.png").read_bytes()
    assert said("s2")["class"] == 2
    assert len(set(images.values())) == 3
    assert images[None] == [images["kind 0"], images["1"], images["2"]][said("sNone")["class"]]
    answer = gan("sample", f"run={runs['labelled']}", "input=a.png", "classes=all")
    assert answer.err.endswith("classes=all: one image is made per file, so name one class\n")


def test_an_export_and_a_checkpoint_make_the_same(gan: Gan, runs: dict[str, Path]) -> None:
    lay(".", {"a": noise(3, 9, 9)})
    run = runs["noisy"]
    assert gan("sample", f"run={run}", "format=safetensors", "run_dir=made").code == 0
    for source in (run, run / "checkpoints" / "00000000.pt", "made/generator.safetensors"):
        assert gan("sample", f"run={source}", "input=a.png", "direction=B2A", "run_dir=out").code == 0
        Path("out/a.png").rename(f"{Path(source).suffix}.png")
        shutil.rmtree("out")
    assert Path(".png").read_bytes() == Path(".pt.png").read_bytes() == Path(".safetensors.png").read_bytes()


def test_the_data_of_the_run_need_not_be_there(
    gan: Gan, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise DataError("moved")

    monkeypatch.setattr("gancli.draw.given.data_set", gone)
    monkeypatch.setattr("gancli.draw.given.split_of", gone)
    lay(".", {"a": noise(3, 8, 12)})
    assert gan("sample", f"run={runs['noisy']}", "input=a.png", "run_dir=out").code == 0
    assert gan("sample", f"run={runs['noisy']}").code == 2


def test_stopped_in_the_middle_it_leaves_whole_images(
    gan: Gan, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lay("in", {name: noise(3, 8, 12) for name in "abc"})
    calls: list[str] = []

    def read(path: Path, plain: Callable[[Path], np.ndarray] = imagefile.read) -> np.ndarray:
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(path)

    monkeypatch.setattr(imagefile, "read", read)
    answer = gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out")
    assert answer.code == 130
    assert answer.err.splitlines()[-2:] == ["note: 2 of 3 images are complete, in out", "gan: interrupted"]
    assert written("out") == ["a.png", "b.png"]
    calls[:] = ["", ""]
    assert gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=none").code == 130
    assert not Path("none").exists()


def test_too_little_memory_is_said_of_the_file(
    gan: Gan, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lay("in", {"a": noise(3, 8, 12), "b": noise(3, 9, 12)})
    plain = translating.Sampler.generate_here

    def full(self: translating.Sampler, given: dict[str, torch.Tensor], pairs: Any = None) -> Any:
        if given["A"].shape[2] > 8:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return plain(self, given, pairs)

    monkeypatch.setattr(translating.Sampler, "generate_here", full)
    answer = gan("sample", f"run={runs['noisy']}", "input=in", "run_dir=out")
    assert answer.code == 2
    words = "in/b.png at 12×12 pixels does not fit in memory: make it smaller"
    assert said("out")["failed"] == [{"input": "b.png", "why": words}]


def test_what_is_too_small_to_be_reflected_is_continued_by_its_edge() -> None:
    x = torch.arange(6.0).view(1, 2, 3)
    assert torch.equal(padded(x, 2, 3), x)
    assert padded(x, 3, 3)[0, 2].tolist() == x[0, 0].tolist()
    assert padded(x, 2, 6)[0, 0].tolist() == [0, 1, 2, 2, 2, 2]


WHAT = "name an image, a folder of images, or a pattern in quotes such as 'photos/*.png'"
REFUSED = {
    "missing": (["input=none"], f"input=none does not exist: {WHAT}"),
    "pattern": (["input=x*.png"], f"input=x*.png has no images: {WHAT} (.avif, "),
    "climbing": (["input=*/../a.png"], "input=*/../a.png has .. after a wildcard: write the pattern without it"),
    "empty folder": (["input=empty"], f"input=empty has no images: {WHAT} (.avif, "),
    "archive": (["input=a.zip"], "input=a.zip is an archive: unpack it and name the folder"),
    "blank": (["input=' '"], "input= is empty (an unset shell variable?)"),
    "n": (["input=a.png", "n=3"], "n= and input=: one image is made per file; leave one of them out"),
    "seeds": (["input=a.png", "seeds=1-3"], "seeds= and input=: one image is made per file"),
    "arithmetic": (["input=a.png", "arithmetic=1 + 2"], "arithmetic= and input=: one image is made per file"),
    "attention": (["input=a.png", "attention=true"], "attention= and input=: one image is made per file"),
    "points": (["input=a.png", "points=[[0,0]]"], "points= and input=: one image is made per file"),
    "npz": (["input=a.png", "format=npz"], "format=npz and input=: one PNG is written per file; leave format out"),
    "onnx": (["input=a.png", "format=onnx"], "format=onnx and input=: one PNG is written per file"),
    "page": (["input=a.png", "serve=true"], "input= and serve=true: images are uploaded on the page"),
    "truncation": (["input=a.png", "truncation=1"], "truncation=1: this game has no latents"),
    "standing": (
        ["input=a.png", "standing_stats=2"],
        "standing_stats=2 needs latents, and samples of this game are made from data",
    ),
    "classes": (["input=a.png", "classes=1"], "classes=1: this generator is unconditional"),
    "direction": (["input=a.png", "direction=C"], "direction=C: this game has no such direction"),
    "taken": (["input=a.png", "run_dir=empty/.."], "run_dir="),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_says_nothing_is_refused_in_a_line(gan: Gan, runs: dict[str, Path], case: str) -> None:
    lay(".", {"a": noise(3, 8, 12)})
    Path("empty").mkdir()
    Path("a.zip").touch()
    words, reason = REFUSED[case]
    before = here()
    answer = gan("sample", f"run={runs['noisy']}", *words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.removeprefix(RAW).startswith(f"gan: {reason}")
    assert answer.err.removeprefix(RAW).count("\n") == 1
    assert here() == before


def test_games_that_take_no_image_say_what_they_take(gan: Gan, trained: Path) -> None:
    lay(".", {"a": noise(3, 8, 12)})
    answer = gan("sample", f"run={trained}", "input=a.png")
    assert answer.code == 2
    assert answer.err == (
        "gan: input= needs a game that translates, and this one samples from noise: leave input out\n"
    )
    with pytest.raises(ConfigError, match="input= needs a game that translates"):
        Translator(reading.load(str(trained)))


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from gancli.compute.dist import World
    from gancli.config.build import make_as
    from gancli.config.compose import compose
    from gancli.config.settings import SampleSettings

    settings = make_as(SampleSettings, compose("sample", ["input=a.png"]), "")
    monkeypatch.setattr(World, "of_group", lambda: World(0, 2))
    with pytest.raises(ConfigError, match="one process: start it without torchrun"):
        translate.refuse(settings)


@pytest.mark.parametrize("model", ["pix2pix", "cyclegan"])
def test_models_of_the_house_take_any_size(gan: Gan, model: str) -> None:
    words = [word for word in TINY if not word.startswith(("model", "dataset.size", "observers.grid"))]
    small = ["model.ch=2", "dataset.size=[3,32,32]", "observers.grid=null", "steps=0", "run_dir=r"]
    assert gan("train", f"model={model}", *words, *small).code == 0
    lay("in", {"a": noise(3, 33, 47), "b": noise(1, 5, 3), "c": noise(3, 32, 64, bits=16)})
    answer = gan("sample", "run=r", "input=in", "run_dir=out")
    assert answer.code == 0, answer.err
    for name in "abc":
        before, after = (imagefile.read(Path(folder, f"{name}.png")) for folder in ("in", "out"))
        assert (after.shape[1:], after.dtype) == (before.shape[1:], before.dtype)
    assert gan("sample", "run=r", "n=3", "run_dir=sheet").code == 0
    assert Path("sheet/grid.png").is_file()
