"""The evaluation of a run's best checkpoint when its training ends, as `gan eval checkpoint=best` does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gancli.config.build import make_as
from gancli.config.commands import command, word
from gancli.config.settings import DataPlace, EvalSettings
from gancli.draw.pictures import save_png
from gancli.errors import GanError, MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.results import numbers
from gancli.observers.final import Final
from gancli.store.rundir import RunDir
from gancli.verbs import measuring
from gancli.verbs.measuring import Evaluated
from gancli.verbs.session import Session
from gancli.waiting import aloud

COPIES = "memorisation"  # the metric whose share is told as a number of samples


def evaluate_best(session: Session) -> None:
    """Evaluate the best checkpoint if observers.final asks for it; print a table, and write results to the run's eval/.

    All ranks must call it. Raises GanError, on all ranks, if the evaluation fails or its results cannot be written.
    """
    found = next((each for each in session.observers if isinstance(each, Final)), None)
    if found is None or found.evaluation is None:
        return
    settings = _settings(session, found.evaluation)
    chosen = found.chosen

    def extractor() -> Extractor:
        assert chosen is not None
        network = chosen.load()
        network.to(session.engine.compute.device)
        return network

    try:
        evaluated = measuring.evaluate(settings, found.metrics, extractor)
    except GanError as error:
        raise MetricError(f"the run is complete, but not its evaluation by observers.final: {error}") from error
    failed = session.world.from_first(lambda: _shown(session, evaluated))
    if failed is not None:  # on all ranks, which therefore end alike
        raise failed


def _shown(session: Session, evaluated: Evaluated) -> GanError | None:
    """Write the pictures and print the table; return the error if something could not be written. For rank 0."""
    assert evaluated.found is not None
    result, step = evaluated.results[0], evaluated.found.step
    sheets = {f"{step:08d}-{name}": pixels for name, pixels in evaluated.pictures.items()}
    try:
        for name, pixels in sheets.items():
            save_png(session.run.results / name, pixels)
    except GanError as error:
        return error
    for line in table(session.run, step, result, [session.run.results / name for name in sheets]):
        session.run.say(line)
        aloud(line)
    return evaluated.unkept[0] if evaluated.unkept else None


def _settings(session: Session, evaluation: Mapping[str, Any]) -> EvalSettings:
    """Return the settings of `gan eval` for this run's best checkpoint on its device, with its data's present place."""
    config = {**evaluation, "run": str(session.run.path), "checkpoint": "best", "device": session.settings.device}
    dataset = session.settings.dataset
    place = DataPlace(**{key: dataset[key] for key in ("root", "root_B") if isinstance(dataset.get(key), str)})
    return replace(make_as(EvalSettings, config, ""), dataset=place)


def table(run: RunDir, step: int, result: Mapping[str, Any], sheets: list[Path]) -> list[str]:
    """Return the lines about a result: its numbers with their intervals, how many samples are copies, what is next."""
    protocol = result["protocol"]
    real = f" against {protocol['n_real']:,} real images" if protocol["n_real"] else ""
    title = f"best checkpoint, by {run.best_by()}: step {step:,}; {protocol['n_fake']:,} samples{real}"
    rows = dict(_rows(result, protocol))
    width = max(map(len, rows), default=0)
    lines = [f"{title}, {protocol.get('extractor', 'no extractor')}"]
    lines += [f"  {name:{width}}  {value}" for name, value in rows.items()]
    lines += [f"  note: {warning}" for warning in result["warnings"]]
    lines += [f"  sheet: {sheet}" for sheet in sheets]
    return [*lines, f"next: {command('sample', word('run', run.path), 'checkpoint=best')}"]


def _rows(result: Mapping[str, Any], protocol: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in numbers(result).items():
        low, high = result.get("intervals", {}).get(name, (None, None))
        interval = "" if low is None else f"  ({low:.4f} to {high:.4f})"
        if name.split("_")[0] == COPIES:
            count, n, share = round(value * protocol["n_fake"]), protocol["n_fake"], protocol[COPIES]["quantile"]
            flag = "; too many" if result.get("memorised") else ""
            yield "copies", f"{count} of {n:,} samples (of new images {share:g} would be){flag}"
        else:
            yield name, f"{value:.4f}{interval}"
