"""What samples are compared with, as a file: ours, StyleGAN's statistics, or what torch-fidelity keeps in its cache.

FID needs mean and covariance alone (`mu`, `sigma`); every other metric that compares needs the features themselves.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gancli.errors import MetricError, plain
from gancli.metrics.extractor import Extractor
from gancli.metrics.reference_file import checked, count, read_file
from gancli.store.files import whole_file

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
            told = ", ".join(f"{key} {str(self.extractor.get(key))[:80]}" for key in sorted(other))
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
    if path.suffix.lower() not in SUFFIXES:
        raise MetricError(
            f"reference={path}: a folder of images, or a file that ends with {' or '.join(SUFFIXES)}; a .pkl of"
            " StyleGAN's can run code when it is read: save its mu and sigma with numpy.savez"
        )
    try:
        found, sha256 = read_file(path)
        mu, sigma, features = checked(found)
        if mu is None or sigma is None:
            assert features is not None
            mu, sigma = statistics(features)
        n, about = count(found, features), found.get("about", {})
    except OSError as error:
        raise MetricError(
            f"reference={path} cannot be read ({error.strerror or error}): name a folder or a file"
        ) from None
    except Exception as error:  # torch, NumPy, pickle and zipfile raise a dozen kinds for a damaged or hostile file
        words = plain(error)[:120]
        raise MetricError(
            f"reference={path} holds no reference that can be read safely ({words}): it needs arrays mu [d] and"
            " sigma [d, d], or features [n, d]"
        ) from None
    told = {**about.get("reference", {}), "file": str(path.absolute()), "sha256": sha256}
    return Reference(mu, sigma, n, features, told, about.get("extractor"))
