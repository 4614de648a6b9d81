"""A game that is nothing like noise to image, in files of its own: the house takes it without a line of its own.

`python -m tests.oddgame VERB ...` is `gan` with this game; what it adds stands in games.py, nets.py, data.py and conf/.
"""

from __future__ import annotations

from pathlib import Path

from tests import rooms

HERE = Path(__file__).parent
CONF = HERE / "conf"
TRAIN = ["train", "--config-dir", str(CONF), "model=odd", "device=cpu"]


def move_in() -> None:
    """Let the files of this folder be gancli.games.odd, gancli.nets.odd and gancli.data.odd."""
    rooms.move_in("odd", HERE)
