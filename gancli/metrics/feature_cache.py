"""The cache of real images' features, so that the next evaluation extracts features of samples only.

The name of a file is a hash of everything its features depend on: the data's fingerprint, the chosen rows, the
extractor's weights and resize. No entry becomes stale. `rm -r ~/.cache/gan/features` clears the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.data import cache
from gancli.errors import RunError
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet, Progress, extract
from gancli.metrics.reference import identity
from gancli.store.files import whole_file

VERSION = 1  # part of every name: increase it if the computation of features changes
LIMIT = 2 << 30  # bytes in all; the least recently used files are removed first


@dataclass(frozen=True)
class FeatureCache:
    """Cached features in a folder; None: $XDG_CACHE_HOME/gan/features, else ~/.cache/gan/features."""

    folder: Path | None = None
    limit: int = LIMIT

    def path(self, images: ImageSet, extractor: Extractor) -> Path | None:
        """Return the file of these images' features; None for images without a fingerprint, which are not cached."""
        told = images.protocol
        if "fingerprint" not in told:
            return None
        facts = [VERSION, images.n, list(images.shape), told["fingerprint"], told.get("seed"), identity(extractor)]
        facts += ["mirrored"] if told.get("mirrored") else []
        name = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]
        return (self.folder or cache.place("features")) / f"{name}.npz"

    def load(self, images: ImageSet, extractor: Extractor) -> Tensor | None:
        """Return the cached features, float32 [n, dim]; None if they are missing or damaged."""
        path = self.path(images, extractor)
        if path is None:
            return None
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # zipfile checks the CRC
                features = torch.from_numpy(file["features"])
            if features.shape != (images.n, extractor.dim) or not features.isfinite().all():
                return None
            os.utime(path)  # mark it as used now
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            return None
        return features

    def store(self, images: ImageSet, extractor: Extractor, features: Tensor) -> None:
        """Write the features atomically. Ignores a full disk or a read-only folder: they are then extracted again."""
        path = self.path(images, extractor)
        if path is None or 4 * features.numel() > self.limit // 2:
            return
        with contextlib.suppress(RunError):
            with whole_file(path) as file:
                np.savez(file, features=features.numpy())
            self._sweep(path)

    def features(
        self, images: ImageSet, extractor: Extractor, progress: Progress | None = None, what: str = "real images"
    ) -> tuple[Tensor, bool]:
        """Return images' features, float32 [n, dim], the same on all ranks, and whether they were in the cache.

        They are cached if they were not. Raises MetricError as `extract`.
        """
        world = World.of_group()
        found = world.from_first(lambda: self.load(images, extractor))
        if found is not None:
            return found, True
        found = extract(images, extractor, progress, what)
        if world.first:
            self.store(images, extractor, found)
        return found, False

    def _sweep(self, newest: Path) -> None:
        """Remove the least recently used files until the rest is within the limit."""
        room = self.limit
        with contextlib.suppress(OSError):
            files = [(path.stat().st_mtime, path.stat().st_size, path) for path in newest.parent.iterdir()]
            for _, size, path in sorted(files, key=lambda entry: (entry[2] == newest, entry[0]), reverse=True):
                room -= size
                if room < 0:
                    path.unlink(missing_ok=True)
