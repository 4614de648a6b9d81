"""Reference files of real images' features: this project's, StyleGAN's statistics, or torch-fidelity's cache.

FID needs only mean and covariance (`mu`, `sigma`); every other metric that compares needs the features themselves.
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
# Entries of an extractor's protocol that do not change its features.
_ELSEWHERE = ("device",)


def identity(extractor: Extractor) -> dict[str, Any]:
    """Return what an extractor's features depend on: its protocol without the device."""
    return {key: value for key, value in extractor.protocol().items() if key not in _ELSEWHERE}


@dataclass(frozen=True)
class Reference:
    """Mean [d] and covariance [d, d] of real images' features, float64, and the features [n, d] if they were saved.

    n: number of images; None if unknown. protocol: where they come from. extractor: the extractor's `identity`; None if
    unknown.
    """

    mu: NDArray[np.float64]
    sigma: NDArray[np.float64]
    n: int | None
    features: Tensor | None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] | None = None

    def check(self, extractor: Extractor) -> list[str]:
        """Return warnings. Raises MetricError if the features are another extractor's."""
        name = self.protocol.get("file")
        if len(self.mu) != extractor.dim:
            raise MetricError(
                f"reference={name} has {len(self.mu)} features and the extractor {extractor.name} has {extractor.dim}:"
                " choose the extractor that made it"
            )
        if self.extractor is None:
            return [f"reference: {name} does not state its extractor; the numbers are valid if it is {extractor.name}"]
        other = {key for key, value in identity(extractor).items() if self.extractor.get(key) != value}
        if other:
            told = ", ".join(f"{key} {str(self.extractor.get(key))[:80]}" for key in sorted(other))
            raise MetricError(f"reference={name} was made by another extractor ({told}): export it again with this one")
        return []


def statistics(features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and covariance as torch-fidelity computes them, float64 [d] and [d, d]."""
    from torch_fidelity.metric_fid import fid_features_to_statistics

    found = fid_features_to_statistics(features)
    return found["mu"].astype(np.float64), found["sigma"].astype(np.float64)


def write(path: Path, features: Tensor, protocol: Mapping[str, Any], extractor: Extractor) -> None:
    """Write a reference file: mu, sigma, n, features, and their protocol as JSON. Raises RunError."""
    mu, sigma = statistics(features)
    about = json.dumps({"reference": dict(protocol), "extractor": identity(extractor)}, default=str)
    content = io.BytesIO()
    np.savez(content, mu=mu, sigma=sigma, n=len(features), features=features.numpy(), about=about)
    with whole_file(path) as file:
        file.write(content.getbuffer())


def read(path: Path) -> Reference:
    """Read a reference file: an .npz of this project or of StyleGAN (mu, sigma), or a .pt of torch-fidelity's cache.

    Only arrays and tensors are read; no code in the file is run. Raises MetricError for anything else.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise MetricError(
            f"reference={path}: name a folder of images, or a file that ends with {' or '.join(SUFFIXES)}; reading a"
            " StyleGAN .pkl can run code: save its mu and sigma with numpy.savez"
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
    except Exception as error:  # torch, NumPy, pickle and zipfile raise many kinds for a damaged or hostile file
        words = plain(error)[:120]
        raise MetricError(
            f"reference={path} is not a reference that can be read safely ({words}): it needs arrays mu [d] and"
            " sigma [d, d], or features [n, d]"
        ) from None
    told = {**about.get("reference", {}), "file": str(path.absolute()), "sha256": sha256}
    return Reference(mu, sigma, n, features, told, about.get("extractor"))
