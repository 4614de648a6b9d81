"""Weights files: every wrong one gives one clear line, and none runs code."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gancli.errors import WeightsError
from gancli.metrics.extractor import Inception
from gancli.pretrained import weights

URL = "https://example.org/net-6726825d.pth"


class Bomb:
    """Writes a file when it is unpickled carelessly."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_read_gives_tensors_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.arange(3)}, path)
    state, sha256 = weights.read(path)
    assert list(state) == ["a"]
    assert torch.equal(state["a"], torch.arange(3))
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"extractor\.weights=.*no\.pth does not exist"):
        Inception(str(tmp_path / "no.pth"))
    with pytest.raises(WeightsError, match="is a folder"):
        Inception(str(tmp_path))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(WeightsError, match=r"pipe\.pth is not a regular file"):
        Inception(str(tmp_path / "pipe.pth"))
    with pytest.raises(WeightsError, match=r"extractor\.weights= is empty"):
        Inception("")


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2), "b": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds b of torch\.complex64: weights are real numbers"):
        weights.read(tmp_path / "w.pth")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert weights.given("~/w.pth") == tmp_path / "w.pth"


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04N.", b"PK\x03\x04 and no more"])
def test_file_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"type extractor\.weights=FILE"):
        Inception(str(path))


def test_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:-9_000])
    with pytest.raises(WeightsError, match="truncated"):
        Inception(str(path))


@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_file_does_not_run(tmp_path: Path, legacy: bool) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "mark"
    torch.save({"a": torch.zeros(2), "b": Bomb(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="read safely"):
        Inception(str(path))
    assert not mark.exists()
    torch.load(path, weights_only=False)  # the file is a bomb indeed
    assert mark.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 1}, torch.zeros(2)])
def test_no_state_dict(tmp_path: Path, content: object) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="holds no state dict"):
        Inception(str(path))


def test_weights_of_another_network(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=r"another network \(1 tensors\)"):
        Inception(str(path))


def test_offline_message_names_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        assert socket.getdefaulttimeout() == 20
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError) as caught:
        Inception()
    text = str(caught.value)
    assert "Name or service not known" in text
    assert "extractor.weights=FILE" in text
    assert "on a machine with internet access, where" in text
    assert "\n" not in text
    assert socket.getdefaulttimeout() is None
    assert not list(tmp_path.iterdir())  # the cache's folders are made for a file


def test_download_goes_where_torch_fidelity_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def download(url: str, path: str, prefix: str, progress: bool) -> None:
        asked.append((url, path, prefix))
        Path(path).write_bytes(b"x")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = tmp_path / "hub" / "checkpoints" / "net-6726825d.pth"
    assert weights.fetched(URL) == path
    assert weights.fetched(URL) == path
    assert asked == [(URL, str(path), "6726825d")]  # once: the second time it is there


def test_cached_file_is_checked_against_its_name(
    tmp_path: Path, random_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    torch.save(random_state, path)  # of the right network, but not the published weights
    with pytest.raises(WeightsError, match="truncated or altered"):
        Inception()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="truncated or altered"):
        Inception()


def test_check_hash() -> None:
    weights.check_hash(Path("net-6726825d.pth"), "6726825d" + 56 * "0", URL)
    with pytest.raises(WeightsError, match="delete it and run again"):
        weights.check_hash(Path("net-6726825d.pth"), 64 * "0", URL)
