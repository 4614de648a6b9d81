"""`python -m gancli.report RUN ...`: writes the page of a run, or a comparison of several runs or of a sweep."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gancli.cli import foreseen, one_line
from gancli.errors import GanError
from gancli.report import page
from gancli.store import finding, rundir


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and print its path; on an error, print one line and return 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(
            "usage: python -m gancli.report RUN [RUN ...]\n\nOne run: writes RUN/report.html. Several runs: writes"
            " comparison.html here. A sweep: writes SWEEP/comparison.html."
        )
        return 0
    try:
        if len(words) == 1 and (Path(words[0]).expanduser() / "sweep.json").exists():
            made = _of_sweep(rundir.real(Path(words[0]).expanduser()))
        else:
            runs = [finding.find(word)[0].path for word in words]
            made = page.write(runs[0]) if len(runs) == 1 else page.compare(runs, Path("comparison.html"))
    except Exception as error:
        message = str(error) if isinstance(error, GanError) else foreseen(error)
        if message is None:
            raise
        print(f"gan: {one_line(message)}", file=sys.stderr)
        return 2
    print(str(made).encode(errors="backslashreplace").decode())
    return 0


def _of_sweep(path: Path) -> Path:
    """Write the page of a sweep's finished jobs. Raises RunError."""
    from gancli.sweeps import pages, record

    sweep = record.load(path)
    sweep.take_stock()
    return pages.write(sweep)


if __name__ == "__main__":
    sys.exit(main())
