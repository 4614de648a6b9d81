"""Writes the folder of the guide's comparison on few images: `python -m tests.bench.few FOLDER [COUNT]`.

COUNT (200) of the package's emoji of faces and people as PNG files, with sides of 48 to 199 pixels that are drawn from
a fixed seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from gancli.data.embedded import emoji

KINDS = ("People & Body", "Smileys & Emotion")
SIDES = (48, 200)


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200
    source, rng = emoji(size=64), np.random.default_rng(0)
    pixels, labels = (source.columns[name].content[np.arange(len(source))] for name in ("x", "y"))
    kept = [k for k, label in enumerate(labels) if source.classes[label] in KINDS][:count]
    folder.mkdir()
    for k in kept:
        width, height = (int(side) for side in rng.integers(*SIDES, 2))
        image = Image.fromarray(pixels[k].transpose(1, 2, 0))
        image.resize((width, height), Image.Resampling.LANCZOS).save(folder / f"{k:04}.png")
    print(f"{len(kept)} images in {folder}")


if __name__ == "__main__":
    main()
