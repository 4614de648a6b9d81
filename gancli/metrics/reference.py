"""What samples are compared with, as a file: ours, StyleGAN's statistics, or what torch-fidelity keeps in its cache.

FID needs mean and covariance alone (`mu`, `sigma`); every other metric that compares needs the features themselves.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.errors import MetricError
from gancli.files import whole_file
from gancli.metrics.extractor import Extractor

SUFFIXES = (".npz", ".pt")
# Facts of an extractor that do not change its features.
_ELSEWHERE = ("device",)


def identity(extractor: Extractor) -> dict[str, Any]:
    """What an extractor's features depend on: its protocol without the device."""
    return {key: value for key, value in extractor.protocol().items() if key not in _ELSEWHERE}


@dataclass(frozen=True)
class Reference:
    """Mean [d] and covariance [d, d] of real images' features, float64, and the features [n, d] where they were kept.

    n: of images; None where the file does not say. protocol: where they come from. extractor: what made them, as
    `identity` has it; None where the file does not say.
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int | None
    features: Tensor | None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] | None = None

    def check(self, extractor: Extractor) -> list[str]:
        """What to bear in mind. Raises MetricError where another extractor made the features."""
        name = self.protocol.get("file")
        if len(self.mu) != extractor.dim:
            raise MetricError(
                f"reference={name} is of {len(self.mu)} features and the extractor {extractor.name} gives"
                f" {extractor.dim}: choose the extractor that made it"
            )
        if self.extractor is None:
            return [f"reference: {name} does not say what made it; the numbers hold if it was {extractor.name}"]
        other = {key for key, value in identity(extractor).items() if self.extractor.get(key) != value}
        if other:
            told = ", ".join(f"{key} {self.extractor.get(key)}" for key in sorted(other))
            raise MetricError(f"reference={name} was made by another extractor ({told}): export it anew with this one")
        return []


def statistics(features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance as torch-fidelity computes them, float64 [d] and [d, d]."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    found = fid_features_to_statistics(features)
    return found["mu"].astype(np.float64), found["sigma"].astype(np.float64)


def write(path: Path, features: Tensor, protocol: Mapping[str, Any], extractor: Extractor) -> None:
    """Export a reference: mu, sigma, n, features, and a JSON text of where they come from. Raises RunError."""
    mu, sigma = statistics(features)
    about = json.dumps({"reference": dict(protocol), "extractor": identity(extractor)}, default=str)
    content = io.BytesIO()
    np.savez(content, mu=mu, sigma=sigma, n=len(features), features=features.numpy(), about=about)
    with whole_file(path) as file:
        file.write(content.getbuffer())


def read(path: Path) -> Reference:
    """A reference from a file: .npz of ours or StyleGAN's (mu, sigma), .pt of torch-fidelity's cache.

    Nothing in the file is run: arrays and tensors alone are read. Raises MetricError for anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MetricError(f"reference={path} cannot be read ({error.strerror}): name a folder or a file") from None
    if path.suffix not in SUFFIXES:
        raise MetricError(
            f"reference={path}: a folder of images, or a file that ends with {' or '.join(SUFFIXES)}; a .pkl of"
            " StyleGAN's can run code when it is read: save its mu and sigma with numpy.savez"
        )
    try:
        found = _npz(content) if path.suffix == ".npz" else _torch(content)
        reference = _checked(found)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, AttributeError,
            zipfile.BadZipFile, pickle.UnpicklingError) as error:  # fmt: skip
        raise MetricError(
            f"reference={path} holds no reference that can be read safely ({' '.join(str(error).split())[:120]}): it"
            " needs arrays mu [d] and sigma [d, d], or features [n, d]"
        ) from None
    told = {"file": str(path), "sha256": hashlib.sha256(content).hexdigest(), **reference.protocol}
    return Reference(reference.mu, reference.sigma, reference.n, reference.features, told, reference.extractor)


def _npz(content: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in ("mu", "sigma", "n", "features", "about") if name in file.files}


def _torch(content: bytes) -> dict[str, Any]:
    """torch-fidelity's cached statistics, a dict of arrays, or its cached features, a tensor [n, d]."""
    arrays = [np.ndarray, np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType]
    rebuild = pickle.loads(pickle.dumps(np.zeros(1).__reduce__()[0]))  # NumPy's own, wherever it keeps it
    import _codecs

    with torch.serialization.safe_globals([*arrays, rebuild, _codecs.encode]):
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {"features": found.numpy()} if isinstance(found, Tensor) else dict(found)


def _checked(found: Mapping[str, Any]) -> Reference:
    """A reference of a file's arrays. Raises ValueError or KeyError where they do not fit."""
    features = None
    if "features" in found:
        features = torch.from_numpy(np.asarray(found["features"], np.float32))
        if features.dim() != 2 or len(features) < 2 or not features.isfinite().all():
            raise ValueError(f"features of shape {tuple(features.shape)}")
    if "mu" in found or features is None:
        mu, sigma = (np.asarray(found[name], np.float64) for name in ("mu", "sigma"))
    else:
        mu, sigma = statistics(features)
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise ValueError(f"mu of shape {mu.shape} and sigma of shape {sigma.shape}")
    if features is not None and features.shape[1] != len(mu):
        raise ValueError(f"features of shape {tuple(features.shape)} and mu of shape {mu.shape}")
    about = json.loads(str(found["about"])) if "about" in found else {}
    n = len(features) if features is not None else int(found["n"]) if "n" in found else None
    return Reference(mu, sigma, n, features, dict(about.get("reference", {})), about.get("extractor"))
