"""Charts of the page, as plotly figures in plain JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from gancli.report.record import Point, Record

MOST = 1000  # points of a curve on the page; of more, each interval keeps its minimum and maximum
TOLD = ("step", "seen", "seconds", "images_per_second")  # columns of a row in every game
RATES = ("lr_", "grad_norm_", "weight_norm_", "gradient_")  # columns of each player in every game
INKS = ("#1f5aa6", "#c81e3c", "#1e8c5a", "#be7814", "#7846a0", "#5a5a5a", "#0f8fb3", "#d0578b")


@dataclass(frozen=True)
class Figure:
    """A chart of the page: an anchor, a title, and the arguments of plotly's `newPlot`."""

    key: str
    title: str
    drawing: dict[str, Any]


def of_run(record: Record) -> list[Figure]:
    """Return the charts of one run, without empty ones."""
    keys = record.names()
    groups: list[tuple[str, str, Callable[[str], bool], bool]] = [
        ("losses", "Losses", lambda k: k.startswith(("loss_", "penalty_", "class_")), False),
        ("verdicts", "D's output for real images and fakes", lambda k: k in ("D_real", "D_fake"), False),
        ("rates", "Learning rates", lambda k: k.startswith("lr_"), True),
        ("gradients", "Gradient norms", lambda k: k.startswith("grad_norm_"), True),
        ("weights", "Weight norms", lambda k: k.startswith("weight_norm_"), True),
        ("diversity", "Diversity of samples relative to the data", lambda k: k.startswith("diversity"), False),
        ("speed", "Images per second", lambda k: k == "images_per_second", False),
    ]
    told = {*TOLD, *record.scores()}
    others = [k for k in keys if k not in told and not k.startswith("gradient_") and not any(g[2](k) for g in groups)]
    groups.insert(1, ("others", "Other losses and statistics", lambda k: k in others, False))
    figures = []
    for key, title, wanted, log in groups:
        curves = {name: record.curve(name) for name in keys if wanted(name)}
        if any(curves.values()):
            figures.append(Figure(key, title, drawing(curves, log=log, marks=record.alarms)))
    for name, points in record.scores().items():
        figures.append(Figure(f"score-{name}", name, drawing({name: points}, markers=True)))
    return figures


def of_runs(records: Sequence[Record]) -> list[Figure]:
    """Return one chart per number, with a curve per run: results first, then losses."""
    figures = []
    for name in dict.fromkeys(name for record in records for name in record.scores()):
        curves = {r.name: r.scores()[name] for r in records if name in r.scores()}
        figures.append(Figure(f"score-{name}", name, drawing(curves, markers=True)))
    for key in dict.fromkeys(key for record in records for key in _compared(record)):
        curves = {r.name: r.curve(key) for r in records}
        figures.append(Figure(key, key, drawing({n: c for n, c in curves.items() if c})))
    return figures


def _compared(record: Record) -> list[str]:
    """Return the numbers to compare with other runs: losses (all of the game's numbers if it has none), D's outputs
    and diversity.
    """
    losses = [name for name in record.names() if name.startswith("loss_")]
    own = losses or [name for name in record.names() if name not in TOLD and not name.startswith(RATES)]
    more = [name for name in record.names() if name in ("D_real", "D_fake") or name.startswith("diversity")]
    return own + [name for name in more if name not in own]


def drawing(
    curves: Mapping[str, Sequence[Point]],
    *,
    log: bool = False,
    markers: bool = False,
    marks: Sequence[tuple[int, str, str]] = (),
) -> dict[str, Any]:
    """Draw curves over steps, as plain values for plotly. marks: alarms, as dashed lines."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for k, (name, points) in enumerate(curves.items()):
        kept = thin([p for p in points if math.isfinite(p[1])])
        ink = INKS[k % len(INKS)]
        figure.add_scatter(
            x=[x for x, _ in kept],
            y=[y for _, y in kept],
            name=escape(name),  # plotly interprets some HTML in names
            mode="lines+markers" if markers else "lines",
            line={"color": ink, "width": 1.5},
        )
    positive = all(y > 0 for points in curves.values() for _, y in points if math.isfinite(y))
    for step, name, _ in marks:
        figure.add_vline(x=step, line={"color": "#c81e3c", "width": 1, "dash": "dot"}, annotation_text=escape(name))
    figure.update_layout(
        template="plotly_white",
        margin={"l": 52, "r": 12, "t": 12, "b": 36},
        height=280,
        xaxis={"title": {"text": "step"}},
        yaxis={"type": "log" if log and positive else "linear", "exponentformat": "power"},
        legend={"orientation": "h", "y": 1.12},
        hovermode="x unified",
        font={"family": "system-ui, sans-serif", "size": 12},
        showlegend=len(curves) > 1,
    )
    plain: dict[str, Any] = json.loads(figure.to_json())
    plain["layout"]["template"] = _slim(plain["layout"]["template"])
    return plain


def thin(points: Sequence[Point], most: int = MOST) -> list[Point]:
    """Return at most `most` points: the minimum and maximum of each interval, so that spikes stay visible.

    >>> thin([(0, 1.0), (1, 9.0), (2, 2.0), (3, 3.0), (4, 0.0), (5, 5.0)], most=4)
    [(0, 1.0), (1, 9.0), (4, 0.0), (5, 5.0)]
    """
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for k in range(stretches):
        part = points[k * len(points) // stretches : (k + 1) * len(points) // stretches]
        pair = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += sorted(pair)
    return kept


def _slim(template: dict[str, Any]) -> dict[str, Any]:
    """Return only a template's layout: styles of unused chart types are most of its size."""
    return {"layout": template.get("layout", {})}
