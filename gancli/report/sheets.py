"""Sheets of samples embedded in the page, downsampled and as WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from gancli.store.files import open_regular

BUDGET = 6_000_000  # bytes of all sheets on a page
MOST, SIDE = 60, 900  # sheets on a page; pixels of a sheet's longer side
LARGEST = 1 << 27  # pixels of a picture that is opened; a sheet of 64 images of 1024 × 1024 has half as many


class Sheets:
    """Encodes sheets as data URIs and caches them."""

    def __init__(self, budget: int = BUDGET):
        self.budget = budget
        self._known: dict[tuple[Path, int], str] = {}

    def chosen(self, pictures: Mapping[int, Path]) -> list[tuple[int, str]]:
        """Return (step, data URI) of evenly spaced sheets, including the first and last, within the budget."""
        steps = sorted(pictures)
        count = min(MOST, len(steps))
        while count:
            kept = (
                [steps[round(k * (len(steps) - 1) / max(1, count - 1))] for k in range(count)]
                if count > 1
                else steps[-1:]
            )
            both = [(step, self.encoded(pictures[step])) for step in kept]
            encoded = [(step, uri) for step, uri in both if uri]
            total = sum(len(uri) for _, uri in encoded)
            if total <= self.budget or count == 1:
                return encoded
            count = max(1, min(count - 1, int(count * self.budget / total)))
        return []

    def encoded(self, path: Path) -> str:
        """Return the picture's URI; empty if it cannot be read."""
        try:
            key = path, path.stat().st_mtime_ns
            if key not in self._known:
                self._known[key] = _uri(path)
            return self._known[key]
        except Exception:  # Pillow raises many kinds for a damaged file or another format
            return ""


def _uri(path: Path) -> str:
    from PIL import Image

    with open_regular(path) as content, Image.open(content, formats=["PNG"]) as picture:
        if picture.width * picture.height > LARGEST:
            return ""
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=85, method=2)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
