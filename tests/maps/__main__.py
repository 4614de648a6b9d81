"""`gan` with this game in it."""

from __future__ import annotations

import sys

from gancli.cli import main
from tests.maps import move_in

if __name__ == "__main__":
    move_in()
    sys.exit(main(sys.argv[1:]))
