"""What a run directory says, as the page needs it."""

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
LAST = 10**15  # a step that no run comes to
LONGEST, MOST_ALARMS = 1000, 100  # letters of an alarm, and alarms on a page
MOST_LINES = 100  # of samples that are text
DEEPEST = 20  # values within values of run.json and of results


@dataclass(frozen=True)
class Record:
    """A run as it stands on the disk.

    name: the directory's, or more of its path where several runs share that. rows: metrics.jsonl without alarms, which
    stand in `alarms` as (step, name, text). pictures, texts: the sheets in samples/ by step. results: what `gan eval`
    and the scores observer found, by step. changed: key, default, value of all that differs from the same command line
    with nothing but its choices of groups.
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

    @property
    def running(self) -> bool:
        """Whether the run says that it goes on."""
        return self.about.get("status") == "running"

    def curve(self, key: str) -> list[Point]:
        """(step, value) of a number in the rows, without the gaps."""
        values = ((row["step"], finite(row.get(key))) for row in self.rows)
        return [(step, value) for step, value in values if value is not None]

    def names(self) -> list[str]:
        """The names of all numbers in the rows, in the order of their appearance."""
        found: dict[str, None] = {}
        for row in self.rows:
            found |= dict.fromkeys(k for k, v in row.items() if finite(v) is not None)
        return list(found)

    def scores(self) -> dict[str, list[Point]]:
        """Curves of the results by name; results of another protocol are another curve, with its mark."""
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
        """The newest samples that are text, as far as a page shows them; none where they are pictures."""
        if not self.texts:
            return []
        try:
            with open_regular(self.texts[max(self.texts)]) as file:
                parts = islice(iter(lambda: file.readline(LONGEST), b""), MOST_LINES)
                return [part.decode("utf-8", "replace").rstrip("\n") for part in parts]
        except OSError:
            return []

    def command(self) -> str:
        """What to type for the same training again, from its start, in a directory of its own."""
        words = _words(self.about)
        kept = [o for o in words if o.lstrip("+~").partition("=")[0] not in ("run_dir", "resume", "init")]
        init = self.about.get("init") or self.config.get("init")
        kept += [f"init={in_quotes(str(init))}"] if init else []
        return command("train", *map(shlex.quote, kept))


def read(path: Path, name: str | None = None) -> Record:
    """A run directory's record, called `name`, or as the directory is.

    Raises RunError where run.json or config.yaml is missing or damaged.
    """
    run = RunDir(path)
    about, config = shallow(run.about()), run.config()
    rows, alarms = _rows(run.metrics)
    pictures, texts = (
        {int(p.stem): p for p in files(run.samples, f"*.{kind}") if STEP.fullmatch(p.stem) and not p.is_symlink()}
        for kind in ("png", "txt")  # no links: a stranger's run could show a file of this machine as its samples
    )
    changed = _changed(config, _words(about))
    return Record(
        path, name or path.resolve().name, about, config, rows, alarms, pictures, texts, _results(run), changed
    )


def _rows(path: Path) -> tuple[list[dict[str, Any]], list[tuple[int, str, str]]]:
    """Rows of one step joined; a line that a running process has not finished is passed over."""
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
    """The command line that a run recorded."""
    words = about.get("overrides")
    return [str(word) for word in words] if isinstance(words, list) else []


def _step(value: Any) -> int | None:
    """A step; None for what is none."""
    return value if type(value) is int and 0 <= value < LAST else None


def _results(run: RunDir) -> list[dict[str, Any]]:
    found = []
    for path in files(run.results, "*.json"):
        try:
            result = read_json(path)
        except GanError:
            continue  # damaged: the page is no place to fail
        if isinstance(result, dict) and _step(result.get("step")) is not None:
            found.append(shallow(result))
    return sorted(found, key=lambda r: int(r["step"]))


def _changed(config: dict[str, Any], overrides: Sequence[str]) -> list[tuple[str, str, str]]:
    """What differs from the defaults of the chosen groups; nothing where they cannot be composed here."""
    chosen = [
        o for o in overrides if "." not in o.partition("=")[0] and isinstance(config.get(o.partition("=")[0]), dict)
    ]
    try:
        default = flat(compose("train", chosen))
    except Exception:  # recorded words may be anything
        return []
    now = flat(config)
    keys = [k for k in sorted({*default, *now}) if default.get(k) != now.get(k) and k not in ("run_dir", "resume")]
    return [(k, _word(default, k), _word(now, k)) for k in keys]


def shallow(value: Any, depth: int = DEEPEST) -> Any:
    """A JSON value without what lies too deep in it to be written or shown.

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
    """A nested configuration by dotted keys.

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
