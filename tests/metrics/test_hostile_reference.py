"""References that are damaged or made to harm: one line with the file's name, soon, and in little memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gancli.errors import MetricError
from gancli.metrics.reference import read, statistics, write
from gancli.metrics.reference_file import LARGEST
from gancli.store.safe import UnsafeError, examine

Make = Callable[[Path], Any]
UNIT = {"mu": np.zeros(3), "sigma": np.eye(3)}


def saved(**arrays: Any) -> Make:
    """An .npz of these arrays."""
    return lambda path: np.savez(path, **arrays)


def torched(value: Any) -> Make:
    """A file of torch.save."""
    return lambda path: torch.save(value, path)


def about(text: str) -> Make:
    """An .npz with a text of where it comes from."""
    return saved(**UNIT, about=text)


def lying(shape: tuple[int, ...], held: int, size: int = 0) -> Make:
    """An .npz whose features say one shape and hold other bytes; size: what the archive says they unpack to."""

    def make(path: Path) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            with archive.open("features.npy", "w", force_zip64=True) as file:
                file.write(header.getvalue())
                for _ in range(held >> 20):
                    file.write(bytes(1 << 20))
                file.write(bytes(held % (1 << 20)))
            if size:
                archive.filelist[0].file_size = size

    return make


def laughing(deep: int = 60) -> Any:
    """A list of 2^deep numbers that takes no room."""
    x: Any = [1.0]
    for _ in range(deep):
        x = [x, x]
    return x


def keyed(path: Path) -> None:
    """A dictionary whose key is a tuple of tuples that share their parts: to hash it takes for ever."""
    code = io.BytesIO()
    code.write(b"\x80\x02(](K\x01\x85q\x00")
    for k in range(60):
        code.write(bytes([0x68, k, 0x68, k, 0x86, 0x71, k + 1]))
    code.write(b"e}h" + bytes([60]) + b"K\x01st.")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", code.getvalue())
        archive.writestr("a/version", "3\n")


def array_over(count: int) -> Make:
    """A .pt whose array says it has `count` numbers and holds three."""

    def make(path: Path) -> None:
        torch.save({"mu": np.zeros(3), "sigma": np.eye(3)}, path)
        with zipfile.ZipFile(path) as archive:
            parts = {info.filename: archive.read(info) for info in archive.infolist()}
        (name,) = (name for name in parts if name.endswith("data.pkl"))
        parts[name] = parts[name].replace(b"K\x03\x85", b"J" + struct.pack("<i", count) + b"\x85", 1)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for each, content in parts.items():
                archive.writestr(each, content)

    return make


FILES: dict[str, Make] = {
    "terabytes.npz": lying((1 << 40, 512), 1 << 20),
    "shorter.npz": lying((4, 3), 4 * 4 * 3 - 4),
    "longer.npz": lying((4, 3), 4 * 4 * 3 + 4),
    "zeros.npz": lying((150 << 8, 1024), 150 << 20),
    "complex.npz": saved(mu=np.zeros(3, np.complex128), sigma=np.eye(3)),
    "bool.npz": saved(mu=np.zeros(3, bool), sigma=np.eye(3)),
    "text.npz": saved(mu=np.array(["1", "2", "3"]), sigma=np.eye(3)),
    "dates.npz": saved(mu=np.zeros(3, "datetime64[s]"), sigma=np.eye(3)),
    "infinite.npz": saved(mu=np.array([0, np.inf, 0]), sigma=np.eye(3)),
    "nan_sigma.npz": saved(mu=np.zeros(2), sigma=np.array([[1, np.nan], [np.nan, 1]])),
    "huge.npz": saved(mu=np.full(3, 1e200), sigma=np.eye(3)),
    "skew.npz": saved(mu=np.zeros(2), sigma=np.array([[1.0, 5.0], [-5.0, 1.0]])),
    "negative.npz": saved(mu=np.zeros(2), sigma=-np.eye(2)),
    "flat.npz": saved(mu=np.zeros(4), sigma=np.zeros(16)),
    "deep.npz": saved(mu=np.zeros((1, 3)), sigma=np.eye(3)),
    "none.npz": saved(mu=np.zeros(0), sigma=np.zeros((0, 0))),
    "one.npz": saved(features=np.zeros((1, 3), np.float32)),
    "wide.npz": saved(features=np.zeros((2, 9000), np.float32)),
    "nan.npz": saved(features=np.array([[1.0, np.nan], [1, 2]])),
    "other_width.npz": saved(**UNIT, features=np.zeros((4, 2))),
    "n_negative.npz": saved(**UNIT, n=-4),
    "n_nan.npz": saved(**UNIT, n=np.nan),
    "n_many.npz": saved(**UNIT, n=np.array([3, 4])),
    "n_half.npz": saved(**UNIT, n=4.5),
    "n_huge.npz": saved(**UNIT, n=1e300),
    "about_number.npz": about("7"),
    "about_list.npz": about('{"reference": []}'),
    "about_cut.npz": about('{"reference": {'),
    "about_nan.npz": about('{"reference": {"seed": NaN}}'),
    "about_deep.npz": about("[" * 100_000),
    "about_surrogate.npz": about('{"reference": {"name": "\\ud800"}}'),
    "about_digits.npz": about('{"reference": {"seed": ' + "9" * 5000 + "}}"),
    "about_long.npz": about(json.dumps({"reference": {"name": "x" * (1 << 20)}})),
    "about_bytes.npz": saved(**UNIT, about=np.array(b"{}")),
    "about_many.npz": saved(**UNIT, about=np.array(["{}", "{}"])),
    "empty.npz": lambda path: path.write_bytes(b""),
    "words.npz": lambda path: path.write_text("words", encoding="utf-8"),
    "lists.pt": torched({"mu": [0.0] * 3, "sigma": [[0.0] * 3] * 3}),
    "laughs.pt": torched({"mu": laughing(), "sigma": laughing()}),
    "keyed.pt": keyed,
    "array.pt": array_over(1 << 30),
    "complex.pt": torched(torch.zeros(3, 3, dtype=torch.complex64)),
    "nan.pt": torched(torch.tensor([[1.0, float("nan")], [0, 0]])),
    "line.pt": torched(torch.zeros(5)),
    "objects.pt": torched({"mu": np.array([{}], dtype=object), "sigma": np.eye(1)}),
    "nothing.pt": torched({}),
    "number.pt": torched(3),
    "words.pt": lambda path: path.write_text("words", encoding="utf-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    began = time.process_time()
    with pytest.raises(MetricError) as caught:
        read(path)
    assert time.process_time() - began < 20
    text = str(caught.value)
    assert text.startswith(f"reference={path} is not a reference that can be read safely (")
    assert "\n" not in text
    assert len(text) < len(str(path)) + 300


@pytest.mark.parametrize("name", ["good.npz", "good.pt", "features.pt"])
def test_damage_at_any_place_is_answered(tmp_path: Path, name: str, tiny: Any) -> None:
    path = tmp_path / name
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    mu, sigma = statistics(points)
    if name == "good.npz":
        write(path, points, {"name": "x", "seed": 3}, tiny)
    else:
        torch.save(points if name == "features.pt" else {"mu": mu, "sigma": sigma}, path)
    assert len(read(path).mu) == 3
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    passed = 0
    for k in range(80):
        damaged = bytearray(content)
        if k % 4 == 0:
            damaged = damaged[: int(draw.integers(len(content)))]
        else:
            for at in draw.integers(0, len(content), k % 4):
                damaged[at] = int(draw.integers(256))
        path.write_bytes(damaged)
        with contextlib.suppress(MetricError):  # anything else is a fault
            read(path)
            passed += 1
    assert passed <= 40  # of 80: a byte of a number, or of what is not read


def test_what_a_file_says_of_itself_does_not_rename_it(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    np.savez(path, **UNIT, about='{"reference": {"file": "another", "sha256": "0", "file_sizes": 5, "shape": 7}}')
    told = read(path).protocol
    assert told["file"] == str(path)
    assert len(told["sha256"]) == 64


def test_a_file_that_is_too_large_or_none_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    with path.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(MetricError, match="over 4 GiB"):
        read(path)
    with pytest.raises(MetricError, match=r"gone\.npz cannot be read"):
        read(tmp_path / "gone.npz")


def test_arrays_pass_only_where_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "r.pt"
    torch.save(dict(UNIT), path)
    with path.open("rb") as file:
        examine(file, arrays=True)
        with pytest.raises(UnsafeError, match="numpy"):
            examine(file)


def test_a_pipe_is_not_waited_for(tmp_path: Path, gan: Any) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    os.mkfifo(tmp_path / "pipe.pth")
    keys = ["input=.", "metrics=[fid]", "n=4", "run_dir=e"]
    for key in ("reference=pipe.npz", "extractor.weights=pipe.pth"):
        answer = gan("eval", *keys, "reference=.", key)
        assert answer.code == 2
        assert answer.err.startswith("gan: ")
