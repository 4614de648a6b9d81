"""Reads a run directory into a record for the page."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from gancli.config.commands import command
from gancli.config.compose import compose
from gancli.config.grammar import in_quotes
from gancli.errors import GanError
from gancli.store.files import files, finite, json_lines, open_regular, read_json
from gancli.store.rundir import RunDir

Point = tuple[float, float]
STEP = re.compile(r"[0-9]{1,15}")  # the name of a sheet of samples
LAST = 10**15  # larger than any run's step
LONGEST, MOST_ALARMS = 1000, 100  # characters of an alarm, and alarms on a page
MOST_LINES = 100  # lines of text samples on a page
DEEPEST = 20  # nesting depth of run.json and of results


@dataclass(frozen=True)
class Record:
    """A run directory's contents.

    name: the directory's, or more of its path if several runs share it. rows: metrics.jsonl without alarms. alarms:
    (step, name, text). pictures, texts: the sheets in samples/ by step. results: those of `gan eval` and of the scores
    observer, ordered by step. changed: (key, default, value) of all keys that differ from the defaults of the chosen
    groups. frequencies: the picture of the spectra; None: there is none.
    """

    path: Path
    name: str
    about: dict[str, Any]
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    alarms: list[tuple[int, str, str]] = field(default_factory=list)
    pictures: dict[int, Path] = field(default_factory=dict)
    texts: dict[int, Path] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    frequencies: Path | None = None

    @property
    def running(self) -> bool:
        """Whether the run's status is running."""
        return self.about.get("status") == "running"

    def curve(self, key: str) -> list[Point]:
        """Return the (step, value) pairs of a number in the rows, where it is finite."""
        values = ((row["step"], finite(row.get(key))) for row in self.rows)
        return [(step, value) for step, value in values if value is not None]

    def names(self) -> list[str]:
        """Return the names of all numbers in the rows, in order of appearance."""
        found: dict[str, None] = {}
        for row in self.rows:
            found |= dict.fromkeys(k for k, v in row.items() if finite(v) is not None)
        return list(found)

    def scores(self) -> dict[str, list[Point]]:
        """Return curves of the results by name; results of different protocols are different curves, with its id."""
        curves: dict[str, dict[float, float]] = {}
        protocols = list(dict.fromkeys(str(r.get("protocol_id", "")) for r in self.results))
        for result in self.results:
            mark = f" ({str(result.get('protocol_id', ''))[:40]})" if len(protocols) > 1 else ""
            for key, value in result.items():
                if (
                    isinstance(value, float)
                    and finite(value) is not None
                    and not key.endswith(("_std", "_error", "_low", "_high", "seconds"))
                ):
                    curves.setdefault(key + mark, {})[float(result["step"])] = value
        return {name: sorted(points.items()) for name, points in curves.items()}

    def lines(self) -> list[str]:
        """Return the first lines of the newest text samples; [] if samples are pictures."""
        if not self.texts:
            return []
        try:
            with open_regular(self.texts[max(self.texts)]) as file:
                parts = islice(iter(lambda: file.readline(LONGEST), b""), MOST_LINES)
                return [part.decode("utf-8", "replace").rstrip("\n") for part in parts]
        except OSError:
            return []

    def command(self) -> str:
        """Return the command that repeats the training from the start, in a new directory."""
        words = _words(self.about)
        kept = [o for o in words if o.lstrip("+~").partition("=")[0] not in ("run_dir", "resume", "init")]
        init = self.about.get("init") or self.config.get("init")
        kept += [f"init={in_quotes(str(init))}"] if init else []
        return command("train", *map(shlex.quote, kept))


def read(path: Path, name: str | None = None) -> Record:
    """Read a run directory. name: None: the directory's.

    Raises RunError if run.json or config.yaml is missing or damaged.
    """
    run = RunDir(path)
    about, config = shallow(run.about()), run.config()
    rows, alarms = _rows(run.metrics)
    pictures, texts = (
        {int(p.stem): p for p in files(run.samples, f"*.{kind}") if STEP.fullmatch(p.stem) and not p.is_symlink()}
        for kind in ("png", "txt")  # no links: an untrusted run could show a file of this machine as its samples
    )
    changed = _changed(config, _words(about))
    drawn = [p for p in files(run.samples, "frequencies.png") if not p.is_symlink()]
    return Record(
        path=path,
        name=name or path.resolve().name,
        about=about,
        config=config,
        rows=rows,
        alarms=alarms,
        pictures=pictures,
        texts=texts,
        results=_results(run),
        changed=changed,
        frequencies=drawn[0] if drawn else None,
    )


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]]]:
    """Read rows, merged by step, and alarms; an incomplete last line of a running process is ignored."""
    rows: dict[int, dict[str, Any]] = {}
    alarms = []
    for row in json_lines(path):
        step = _step(row.get("step"))
        if step is None:
            continue
        if "alarm" in row:
            alarms.append((step, str(row["alarm"])[:LONGEST], str(row.get("text", ""))[:LONGEST]))
        else:
            rows.setdefault(step, {}).update(row)
    return [rows[step] for step in sorted(rows)], alarms[-MOST_ALARMS:]


def _words(about: dict[str, Any]) -> list[str]:
    """Return the overrides that a run recorded."""
    words = about.get("overrides")
    return [str(word) for word in words] if isinstance(words, list) else []


def _step(value: Any) -> int | None:
    """Return a valid step; None for anything else."""
    return value if type(value) is int and 0 <= value < LAST else None


def _results(run: RunDir) -> list[dict[str, Any]]:
    found = []
    for path in files(run.results, "*.json"):
        try:
            result = read_json(path)
        except GanError:
            continue  # damaged: the page is written without it
        if isinstance(result, dict) and _step(result.get("step")) is not None:
            found.append(shallow(result))
    return sorted(found, key=lambda r: int(r["step"]))


def _changed(config: dict[str, Any], overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return the keys that differ from the defaults of the chosen groups; [] if these cannot be composed here."""
    chosen = [
        o for o in overrides if "." not in o.partition("=")[0] and isinstance(config.get(o.partition("=")[0]), dict)
    ]
    try:
        default = flat(compose("train", chosen))
    except Exception:  # recorded overrides may be invalid
        return []
    now = flat(config)
    keys = [k for k in sorted({*default, *now}) if default.get(k) != now.get(k) and k not in ("run_dir", "resume")]
    return [(k, _word(default, k), _word(now, k)) for k in keys]


def shallow(value: Any, depth: int = DEEPEST) -> Any:
    """Replace everything below a depth in a JSON value by "…".

    >>> shallow({"a": [[1]]}, 2)
    {'a': ['…']}
    """
    if not isinstance(value, (dict, list)):
        return value
    if not depth:
        return "…"
    if isinstance(value, dict):
        return {name: shallow(each, depth - 1) for name, each in value.items()}
    return [shallow(each, depth - 1) for each in value]


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested configuration to dotted keys.

    >>> flat({"loss": {"top": 1.0}, "steps": 3})
    {'loss.top': 1.0, 'steps': 3}
    """
    found: dict[str, Any] = {}
    for name, value in node.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return found


def _word(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "—"
    return "null" if values[key] is None else str(values[key])
