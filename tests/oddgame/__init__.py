"""A game that is nothing like noise to image, in files of its own: the house takes it without a line of its own.

`python -m tests.oddgame VERB ...` is `gan` with this game; what it adds stands in games.py, nets.py, data.py and conf/.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
CONF = HERE / "conf"
TRAIN = ["train", "--config-dir", str(CONF), "model=odd", "device=cpu"]


def move_in() -> None:
    """Let the files of this folder be gancli.games.odd, gancli.nets.odd and gancli.data.odd."""
    for room in ("data", "nets", "games"):
        name = f"gancli.{room}.odd"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, HERE / f"{room}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
