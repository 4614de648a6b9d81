"""A game from image to image of a few weights, in files of its own: paired or not, grey or colour, square or not.

What it adds stands in games.py, nets.py, data.py and conf/; `move_in` lets these be files of the house.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONF = HERE / "conf"
TRAIN = [
    "train", "--config-dir", str(CONF), "model=maps", "device=cpu", "steps=2", "observers.progress=null",
    "observers.report=null", "observers.grid.n=3",
]  # fmt: skip


def move_in() -> None:
    """Let the files of this folder be gancli.games.maps, gancli.nets.maps and gancli.data.maps."""
    for room in ("data", "nets", "games"):
        name = f"gancli.{room}.maps"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, HERE / f"{room}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
