"""`gan eval input= reference=`: folders, archives, what `gan sample` writes; sizes and counts that differ are said."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.errors import DataError, GanError
from gancli.metrics.finished_images import find
from gancli.metrics.images import extract
from tests.conftest import TINY, Gan

SWD = ("metrics=[swd]", "metrics.swd.patches=4", "metrics.swd.projections=8")


def fill(folder: Path, *sizes: tuple[int, int], seed: int = 0, **options: Any) -> Path:
    """Noise of these (height, width)."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, (height, width) in enumerate(sizes):
        pixels = np.random.default_rng([seed, k]).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02}.png", **options)
    return folder


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    return found


def test_a_count_that_the_folder_does_not_have_is_said(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path / "mine", *[(16, 16)] * 5)
    fill(tmp_path / "theirs", *[(16, 16)] * 9, seed=1)
    answer = gan("eval", "input=mine", "reference=theirs", *SWD, "run_dir=a")
    assert answer.code == 0, answer.err
    notes = results("a")["warnings"]
    assert notes == [
        "n=1,000, but input has 5 images: all of them are evaluated",
        "5 of the 9 images of reference are used, as many as there are samples: n_real=9 uses all",
    ]
    assert all(answer.out.count(note) == 1 for note in notes)
    assert gan("eval", "input=mine", "reference=theirs", *SWD, "n=5", "n_real=9", "run_dir=b").code == 0
    assert results("b")["warnings"] == []
    assert gan("eval", "input=theirs", "reference=mine", *SWD, "n=9", "run_dir=c").code == 0
    assert results("c")["warnings"] == ["reference has 5 real images, fewer than n=9: all of them are used"]
    refused = gan("eval", "input=mine", "reference=theirs", *SWD, "n_real=10", "run_dir=d")
    assert (refused.code, "reference=theirs has 9 images: type a smaller n_real" in refused.err) == (2, True)


def test_a_runs_data_with_fewer_images_than_samples_are_said(gan: Gan, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(labelled, tmp_path / "run")
    answer = gan("eval", f"run={run}", *SWD, "n=30", "run_dir=e")
    assert answer.code == 0, answer.err
    assert "note: random has 24 real images, fewer than n=30: all of them are used" in answer.out


def test_images_that_were_not_resized_are_not_said_to_be(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path / "mine", *[(16, 24)] * 4)
    fill(tmp_path / "mine" / ".thumbs", (8, 8), (9, 9))
    turned = Image.Exif()
    turned[0x112] = 8
    fill(tmp_path / "theirs", *[(24, 16)] * 4, seed=1, exif=turned)
    assert gan("eval", "input=mine", "reference=theirs", *SWD, "n=4", "run_dir=a").code == 0
    (note,) = results("a")["warnings"]
    assert note.startswith("input: ")
    assert "hidden folder" in note
    assert results("a")["protocol"]["reference"]["file_sizes"] == [[16, 24]]


def test_mixed_sizes_are_judged_one_by_one(tmp_path: Path, tiny_extractor: Any) -> None:
    sizes = [(8, 8), (20, 9), (8, 8), (13, 13), (20, 9)]
    given = find("input", str(fill(tmp_path / "mine", *sizes)))
    assert (len(given), given.sizes) == (5, [(8, 8), (13, 13), (20, 9)])
    images = given.images(5, 0)
    assert images.mixed
    found = extract(images, tiny_extractor)
    by_size = [0, 2, 3, 1, 4]  # in the order of their sizes, and of their names among equals
    for row, number in zip(found.tolist(), by_size, strict=True):
        with Image.open(tmp_path / "mine" / f"{number:02}.png") as one:
            pixels = torch.from_numpy(np.array(one)).permute(2, 0, 1)[None]
        assert row == tiny_extractor.features(pixels)[0].tolist()
    assert tiny_extractor.seen[:3] == [(2, 8, 8), (1, 13, 13), (2, 20, 9)]
    fewer = find("input", str(tmp_path / "mine")).images(3, 0)
    assert sum(len(chunk) for chunk in fewer.chunks()) == 3
    assert fewer.protocol["judged_at"] == "each file's own size"


@pytest.fixture
def tiny_extractor() -> Any:
    """Features are mean and first byte of an image of any size."""

    class Any2:
        name, dim, classes, batch_size = "any", 2, 0, 4

        def __init__(self) -> None:
            self.seen: list[tuple[int, ...]] = []

        def features(self, images: torch.Tensor) -> torch.Tensor:
            self.seen.append((len(images), *images.shape[2:]))
            flat = images.flatten(1).float()
            return torch.stack([flat.mean(1), flat[:, 0]], 1)

    return Any2()


def test_metrics_of_one_size_refuse_mixed_files_and_take_a_size(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path / "mine", (40, 40), (20, 33), (40, 40))
    fill(tmp_path / "theirs", (64, 64), (50, 31), (99, 18), seed=1)
    keys = ["input=mine", "reference=theirs", "n=3"]
    for metric in ("swd", "ms_ssim"):
        refused = gan("eval", *keys, f"metrics=[{metric}]", "run_dir=x")
        assert refused.code == 2
        assert f"metrics={metric} compares images of one size" in refused.err
        assert "type size=64" in refused.err
    answer = gan("eval", *keys, *SWD, "size=[16,24]", "run_dir=a")
    assert answer.code == 0, answer.err
    told = results("a")["protocol"]
    assert (told["fake"]["shape"], told["reference"]["shape"]) == ([3, 16, 24], [3, 16, 24])
    assert "swd_16" in results("a")
    (first, second) = results("a")["warnings"]
    assert first.startswith("input: files of 20x33 and 40x40 pixels were cropped and resized to 16x24 before")
    assert second.startswith("reference: files of 50x31, 64x64 and 99x18 pixels were")
    assert gan("eval", "input=mine", "reference=mine", *SWD, "n=3", "size=16", "run_dir=b").code == 0
    (note,) = results("b")["warnings"]  # one note for both sides
    assert note.startswith("input and reference: files of 20x33 and 40x40 pixels were cropped")
    assert results("b")["swd"] == 0


@pytest.mark.parametrize("size", ["7", "[16]", "[16,9000]", "[16,16,16]", "0", "[]"])
def test_sizes_that_no_image_is_judged_at(gan: Gan, tmp_path: Path, size: str) -> None:
    fill(tmp_path / "mine", (16, 16), (16, 16))
    answer = gan("eval", "input=mine", "reference=mine", *SWD, f"size={size}", "run_dir=a")
    assert answer.code == 2
    assert "a side or [height,width] of 8 to 8192 pixels, such as size=64" in answer.err


def test_a_size_belongs_to_finished_images(gan: Gan, trained: Path) -> None:
    answer = gan("eval", f"run={trained}", *SWD, "size=16")
    assert (answer.code, "a run's samples keep their size" in answer.err) == (2, True)
    for key in ("dataset.root=x", "checkpoint=2"):
        beside = gan("eval", "input=mine", "reference=mine", *SWD, key)
        assert (beside.code, "is a key for runs: leave it out, or give run=" in beside.err) == (2, True)
        assert key.partition("=")[0] in beside.err


def test_what_sample_writes_is_read(gan: Gan, tmp_path: Path) -> None:
    size = ["dataset.size=[3,16,16]"]
    tiny = [key for key in TINY if not key.startswith("dataset.size")]
    assert gan("train", *tiny, *size, "steps=1", "run_dir=run").code == 0
    for name, words in (("npz", ["format=npz"]), ("png", ["format=png"])):
        assert gan("sample", "run=run", "n=6", *words, f"run_dir={name}").code == 0
    shutil.make_archive("pictures", "zip", "png")
    values = []
    fill(tmp_path / "theirs", *[(16, 16)] * 6, seed=1)
    for number, path in enumerate(("png", "npz/samples.npz", "pictures.zip")):
        answer = gan("eval", f"input={path}", "reference=theirs", *SWD, "n=6", f"run_dir=e{number}")
        assert answer.code == 0, answer.err
        values.append(results(f"e{number}")["swd"])
        against = gan("eval", "input=theirs", f"reference={path}", *SWD, "n=6", f"run_dir=r{number}")
        assert against.code == 0, against.err
        assert results(f"r{number}")["swd"] == pytest.approx(values[0], rel=1e-6)
        assert all("left out" in note for note in results(f"e{number}")["warnings"])  # sample.json, seeds
    assert values[0] == values[1] == values[2]


def test_an_empty_value_is_not_this_folder(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path, *[(16, 16)] * 4)
    for key in ("input", "reference"):
        with pytest.raises(GanError, match=f"{key}= is empty"):
            find(key, "")
    keys = ["input=''", "reference=''"]
    assert gan("eval", *keys, *SWD, "n=4", "run_dir=a").code == 2
    assert gan("eval", "input=.", "reference=.", *SWD, "metrics=[fid]", "extractor.weights=''", "n=4").code == 2
    assert not Path("a").exists()


def bomb(path: Path) -> Path:
    """An .npz whose images unpack to over a quarter of a gibibyte of zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (300 << 6, 128, 128, 1)}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        file.write(header.getvalue())
        for _ in range(300):
            file.write(bytes(1 << 20))
    return path


@pytest.mark.parametrize("key", ["input", "reference"])
def test_what_is_no_set_of_images(tmp_path: Path, key: str) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere.npz").symlink_to(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("words", encoding="utf-8")
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4")
    np.savez(tmp_path / "points.npz", points=np.zeros((4, 2), np.float32))
    np.savez(tmp_path / "four.npz", images=np.zeros((3, 16, 16, 4), np.uint8))
    bomb(tmp_path / "bomb.npz")
    for name in (
        *("pipe", "pipe.zip", "nowhere.npz", "empty", "text.txt", "cut.zip", "cut.npz", "points.npz", "four.npz"),
        *("bomb.npz", "missing", "missing.zip"),
    ):
        with pytest.raises(DataError) as caught:
            find(key, str(tmp_path / name))
        assert name in str(caught.value)
        assert "dataset." not in str(caught.value)
