"""A game from image to image of a few weights, in files of its own: paired or not, grey or colour, square or not.

What it adds stands in games.py, nets.py, data.py and conf/; `move_in` lets these be files of the house.
"""

from __future__ import annotations

from pathlib import Path

from tests import rooms

HERE = Path(__file__).parent
CONF = HERE / "conf"
TRAIN = [
    "train", "--config-dir", str(CONF), "model=maps", "device=cpu", "steps=2", "observers.progress=null",
    "observers.report=null", "observers.grid.n=3",
]  # fmt: skip


def move_in() -> None:
    """Let the files of this folder be gancli.games.maps, gancli.nets.maps and gancli.data.maps."""
    rooms.move_in("maps", HERE)
