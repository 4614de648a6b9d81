"""The program: the command `gan`, and `python -m gancli`."""

import os
import sys

from gancli.cli import main
from gancli.compute import ranks


def run() -> None:
    """Run the command line and exit with its code."""
    code = main()
    if ranks.several():
        # Threads of gloo that still run while Python unloads its libraries can abort a process whose work is done.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
