"""Writes the page as one self-contained HTML file, which loads nothing from the network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gancli.data.facts import DataFacts
from gancli.errors import GanError, RunError
from gancli.report import figures
from gancli.report.record import Record, read
from gancli.report.sheets import Sheets
from gancli.store.files import finite, write_text
from gancli.store.finding import names

NAME = "report.html"
EVERY = 30  # seconds between reloads of the page while the run is running


def write(path: Path, sheets: Sheets | None = None) -> Path:
    """Write RUN/report.html from the run directory. Raises RunError."""
    record, sheets = read(path), sheets or Sheets()
    drawn = figures.of_run(record)
    page = _render(
        "run.html",
        record=record,
        title=record.name,
        facts=_facts(record),
        configuration=_yaml(record.config),
        environment=_environment(record),
        figures=drawn,
        frequencies="" if record.frequencies is None else sheets.encoded(record.frequencies),
        data={"figures": _drawings(drawn), "sheets": {record.name: sheets.chosen(record.pictures)}},
        refresh=EVERY if record.running else None,
    )
    target = path / NAME
    write_text(target, page)
    return target


def compare(paths: Sequence[Path], target: Path) -> Path:
    """Write a page that compares distinct runs. Raises RunError for no runs, or a directory that is not a run."""
    if not paths:
        raise RunError("a comparison needs at least one run")
    paths = list({path.resolve(): path for path in paths}.values())
    records = [read(path, name) for path, name in zip(paths, names(paths), strict=True)]
    each = Sheets(budget=6_000_000 // len(records))
    drawn = figures.of_runs(records)
    page = _render(
        "comparison.html",
        records=records,
        title=f"{len(records)} runs",
        varied=varied(records),
        scores={r.name: {name: points[-1][1] for name, points in r.scores().items()} for r in records},
        names=list(dict.fromkeys(name for r in records for name in r.scores())),
        figures=drawn,
        data={"figures": _drawings(drawn), "sheets": {r.name: each.chosen(r.pictures) for r in records}},
        refresh=None,
    )
    write_text(target, page)
    return target


def varied(records: Sequence[Record]) -> dict[str, dict[str, str]]:
    """Return, for each run, the values of the configuration keys in which the runs differ."""
    from gancli.report.record import flat

    all_of_them = [flat(r.config) for r in records]
    keys = sorted({k for config in all_of_them for k in config} - {"run_dir", "resume", "note"})
    differing = [k for k in keys if len({str(config.get(k, "—")) for config in all_of_them}) > 1]
    return {r.name: {k: str(c.get(k, "—")) for k in differing} for r, c in zip(records, all_of_them, strict=True)}


def _facts(record: Record) -> list[tuple[str, str]]:
    about = record.about
    parameters = _by_name(about.get("parameters"))
    seconds = finite(record.rows[-1].get("seconds")) if record.rows else None
    reason = f" ({about['reason']})" if about.get("reason") else ""
    last = max([finite(about.get("step")) or 0, *(r["step"] for r in record.rows[-1:])])
    return [
        ("status", f"{about.get('status', 'unknown')}{reason}"),
        ("steps", f"{_count(last)} of {_count(about.get('steps', record.config.get('steps', 0)))}"),
        ("training", f"{(seconds or 0.0) / 60:.1f} minutes on {about.get('device', 'an unknown device')}"),
        ("data", _data(_by_name(about.get("data")))),
        ("parameters", " · ".join(f"{name} {_count(count)}" for name, count in parameters.items())),
        ("batch", f"{record.config.get('batch_size') or 'one size per stage'}"),
        ("seed", f"{about.get('seed')}"),
        *([("note", str(about["note"]))] if about.get("note") else []),
    ]


def _data(section: dict[str, Any]) -> str:
    """Return the name, size and kind of the data set; "unknown" if the section is damaged."""
    try:
        facts = DataFacts.read(section)
    except (GanError, ValueError):
        return "unknown"
    return f"{facts.name}: {facts.told}"


def _by_name(value: Any) -> dict[str, Any]:
    """Return a section of run.json; an empty one if it is damaged."""
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> str:
    """Format a whole number; other values as text."""
    number = finite(value)
    return f"{int(number):,}" if number is not None and abs(number) < 1e15 else str(value)[:40]


def _environment(record: Record) -> list[tuple[str, str]]:
    about = record.about
    rows = [(str(name), str(value)) for name, value in _by_name(about.get("versions")).items()]
    rows += [
        (key, str(about[key])) for key in ("git", "host", "platform", "processor", "device", "time") if key in about
    ]
    notes = about.get("notes")
    return [*rows, *(("note", str(note)) for note in (notes if isinstance(notes, list) else []))]


def _yaml(config: dict[str, Any]) -> str:
    import yaml  # type: ignore[import-untyped]

    text: str = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)  # plain values, interpolations unresolved
    return text


def _drawings(drawn: Sequence[figures.Figure]) -> dict[str, Any]:
    return {figure.key: figure.drawing for figure in drawn}


def _render(template: str, *, data: dict[str, Any], **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gancli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(data=script_json(data), library=_library(), **values)
    return page.encode("utf-8", "replace").decode()  # file names may not be valid UTF-8


def script_json(value: Any) -> str:
    """Encode a value as JSON for a script element, escaping `<`, `>` and `&`: `</script>` in a text would end it.

    >>> script_json({"<!--<script>": "a & b"})
    '{"\\\\u003c!--\\\\u003cscript\\\\u003e":"a \\\\u0026 b"}'
    """
    plain = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII, so U+2028 is escaped, too
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Return plotly's script, gzipped, as base64: a third of its size, decompressed by the browser."""
    from plotly.offline import get_plotlyjs

    packed = gzip.compress(get_plotlyjs().encode(), compresslevel=6, mtime=0)
    return base64.b64encode(packed).decode()
