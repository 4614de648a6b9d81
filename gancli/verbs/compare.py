"""Comparison of several runs under one protocol: the choice of runs, and the table of results."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError, RunError
from gancli.store.files import csv_text, write_json, write_text


@dataclass(frozen=True)
class Line:
    """One run's results."""

    name: str
    step: int
    values: Mapping[str, Any]

    def numbers(self) -> dict[str, float]:
        """Return the scalar results by name."""
        return {key: v for key, v in self.values.items() if isinstance(v, float) and key != "seconds"}

    def interval(self, key: str) -> tuple[float, float] | None:
        """Return the confidence interval of a result, or None."""
        found = self.values.get("intervals", {}).get(key)
        return None if found is None else (found[0], found[1])


def chosen(which: str | Sequence[str]) -> list[str]:
    """Return the runs that `run=` names: one, a list, a pattern with *, ? or [, or a sweep (its finished jobs).

    Raises RunError or ConfigError.
    """
    asked = [which] if isinstance(which, str) else list(which)
    if not asked:
        raise ConfigError("run=[]: name at least one run, such as run=[outputs/train/A,outputs/train/B]")
    runs: list[str] = []
    for one in asked:
        if (Path(one).expanduser() / "sweep.json").exists():
            runs += _of_sweep(Path(one).expanduser())
            continue
        if not glob.has_magic(one) or Path(one).expanduser().exists():
            runs.append(one)
            continue
        found = sorted(p for p in glob.glob(str(Path(one).expanduser())) if (Path(p) / "run.json").is_file())  # noqa: PTH207 - a pattern may be absolute
        if not found:
            raise RunError(f"run={one}: no run directory matches; run='outputs/train/*' matches all runs")
        runs += found
    return list(dict.fromkeys(runs))


def _of_sweep(path: Path) -> list[str]:
    from gancli.sweeps import pages, record

    sweep = record.load(path)
    sweep.take_stock()
    found = [str(run) for run in pages.finished(sweep)]
    if not found:
        raise RunError(f"run={path}: no job of this sweep has finished yet")
    return found


def write(folder: Path, rows: Sequence[Line]) -> None:
    """Write comparison.json with every protocol, and comparison.csv with one line per run."""
    content = [{"run": row.name, "step": row.step, **row.values} for row in rows]
    write_json(folder / "comparison.json", content)
    keys = _keys(rows)
    head = [name for key in keys for name in ([key, f"{key}_low", f"{key}_high"] if _spread(rows, key) else [key])]
    table: list[list[Any]] = [["run", "step", *head, "n_fake", "n_real", "protocol_id"]]
    for row in rows:
        cells: list[Any] = []
        for key in keys:
            cells += [row.numbers().get(key)] + (list(row.interval(key) or (None, None)) if _spread(rows, key) else [])
        told = row.values["protocol"]
        table.append([row.name, row.step, *cells, told["n_fake"], told["n_real"], row.values["protocol_id"]])
    write_text(folder / "comparison.csv", csv_text(table))


def show(rows: Sequence[Line]) -> None:
    """Print the table; warn if the runs were not compared with the same images."""
    from rich.console import Console
    from rich.table import Table

    keys = _keys(rows)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for k, name in enumerate(["run", "step", *keys]):
        table.add_column(name, justify="right" if k else "left", overflow="fold", no_wrap=bool(k))
    for row in rows:
        table.add_row(row.name, f"{row.step:,}", *(_cell(row, key) for key in keys))
    plain: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # names may hold brackets and colons
    console = Console(**plain, soft_wrap=False)
    if not console.is_terminal:  # a pipe or a file has no width
        console = Console(**plain, width=60 + 34 * len(keys))
    console.print(table)
    if any(_spread(rows, key) for key in keys):
        print(
            "  in brackets: 95 % confidence intervals for these counts; if two overlap, the order may be due to chance"
        )
    references = {str(_reference(row)) for row in rows}
    if len(references) > 1:
        print(f"  note: {len(references)} different references: results are not comparable; type reference=FOLDER")
    for warning in dict.fromkeys(w for row in rows for w in row.values["warnings"]):
        print(f"  note: {warning}")


def _keys(rows: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row.numbers()))


def _spread(rows: Sequence[Line], key: str) -> bool:
    return any(row.interval(key) for row in rows)


def _reference(row: Line) -> tuple[Any, ...]:
    told = row.values["protocol"]
    real = told["reference"] or {}
    made_of = told["fake"].get("fingerprint")  # the rows that outputs are made from and compared with
    return told["n_real"], real.get("fingerprint"), real.get("sha256"), real.get("seed"), made_of


def _cell(row: Line, key: str) -> str:
    value = row.numbers().get(key)
    if value is None:
        return "-"
    between = row.interval(key)
    return f"{value:.4f}" + (f" ({between[0]:.4f} to {between[1]:.4f})" if between else "")
