"""Sheets of samples for the page: small files, inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

BUDGET = 6_000_000  # bytes of all sheets on a page
MOST, SIDE = 60, 900  # sheets on a page; pixels of a sheet's longer side


class Sheets:
    """Encodes sheets as data URIs, each once for as long as this object lives."""

    def __init__(self, budget: int = BUDGET):
        self.budget = budget
        self._known: dict[tuple[Path, int], str] = {}

    def chosen(self, pictures: Mapping[int, Path]) -> list[tuple[int, str]]:
        """(step, data URI) of sheets spread evenly over the run, the first and the last too, within the budget."""
        steps = sorted(pictures)
        count = min(MOST, len(steps))
        while count:
            kept = (
                [steps[round(k * (len(steps) - 1) / max(1, count - 1))] for k in range(count)]
                if count > 1
                else steps[-1:]
            )
            encoded = [(step, self._encode(pictures[step])) for step in kept]
            total = sum(len(uri) for _, uri in encoded)
            if total <= self.budget or count == 1:
                return encoded
            count = max(1, min(count - 1, int(count * self.budget / total)))
        return []

    def _encode(self, path: Path) -> str:
        from PIL import Image

        key = path, path.stat().st_mtime_ns
        if key not in self._known:
            with Image.open(path) as picture:
                small = picture.convert("RGB")
            small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
            file = io.BytesIO()
            small.save(file, "WEBP", quality=85, method=2)
            self._known[key] = f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
        return self._known[key]
