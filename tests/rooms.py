"""How a game in files of the tests' own becomes one of the house."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def move_in(name: str, here: Path) -> None:
    """Let data.py, nets.py and games.py of a folder be gancli.data.NAME, gancli.nets.NAME and gancli.games.NAME."""
    for room in ("data", "nets", "games"):
        called = f"gancli.{room}.{name}"
        if called in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(called, here / f"{room}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[called] = module
        spec.loader.exec_module(module)
