"""`gan eval`: metrics of a run's samples or of a folder of images, stored with their protocol."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gancli.compute.dist import World
from gancli.config.build import make, make_as
from gancli.config.settings import EvalSettings
from gancli.draw.charts import Panel, chart
from gancli.draw.pictures import Pixels, save_png
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, GanError, MetricError, RunError
from gancli.metrics.extractor import Extractor
from gancli.metrics.metric import Metric
from gancli.metrics.results import numbers
from gancli.metrics.training_metric import TrainingMetric
from gancli.store import finding, rundir
from gancli.store.files import write_json
from gancli.verbs import compare, measuring


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Evaluate as configured; return the directory that holds results.json.

    Raises GanError. If results cannot be written, they are printed first.
    """
    settings = make_as(EvalSettings, config, "")
    metrics: list[Metric] = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    _check_input(settings, metrics, overrides)
    _check_export(settings, metrics)
    # Cheap checks first, the extractor's download last.
    rundir.refuse_taken(settings.run_dir)
    extractor = cache(lambda: measuring.extractor_of(settings))
    if settings.input is None:
        runs = compare.chosen(settings.run)
        if len(runs) > 1:
            if settings.export_reference is not None:
                raise ConfigError(f"export_reference={settings.export_reference} exports one run's data: give one run")
            if settings.direction == measuring.ALL:
                raise ConfigError("direction=all compares the directions of one run: give one run, or one direction")
            return _compare(settings, runs, metrics, extractor)
        settings = replace(settings, run=runs[0])
    each = measuring.by_direction(settings, metrics)
    evaluated = {mark: measuring.evaluate(one, metrics, extractor) for mark, one in each.items()}
    if not World.of_group().first:
        return Path()  # rank 0 writes
    found = next(iter(evaluated.values())).found
    name = Path(settings.input or "").stem if found is None else found.run.name
    for one in evaluated.values():
        _show(one.results, settings.thresholds(), name, one.found)
    with _said([error for one in evaluated.values() for error in one.unkept]):
        folder = rundir.new_directory("eval", name, settings.run_dir)
        for mark, one in evaluated.items():
            _write(folder, mark, settings, one)
    return folder


def _write(folder: Path, mark: str, settings: EvalSettings, evaluated: measuring.Evaluated) -> None:
    """Write results.json, the curve and pictures. mark: suffix of the file names if there are several directions."""
    pictures = {f"{Path(name).stem}{mark}.png": pixels for name, pixels in evaluated.pictures.items()}
    for picture, pixels in pictures.items():
        save_png(folder / picture, pixels)
    target = folder / f"results{mark}.json"
    if isinstance(settings.truncation, list):
        _write_curve(folder, mark, settings.thresholds(), evaluated.results)
    else:
        write_json(target, evaluated.results[0])
    print(f"results with protocol: {target}")
    for picture in pictures:
        print(f"picture: {folder / picture}")


@contextmanager
def _said(failed: Sequence[GanError]) -> Iterator[None]:
    """Collect errors of writing results that were already printed; raise RunError for them at the end."""
    errors = list(failed)
    try:
        yield
    except (RunError, OSError) as error:
        errors.append(error if isinstance(error, GanError) else RunError(str(error)))
    if errors:
        raise RunError(
            f"the results are shown above but could not be stored: {'; '.join(dict.fromkeys(map(str, errors)))}"
        ) from errors[0]


OF_A_RUN = (
    "run",
    "checkpoint",
    "ema",
    "truncation",
    "standing_stats",
    "direction",
    "dataset.root",
    "dataset.root_B",
    "pretrained.weights",
)


def _check_input(settings: EvalSettings, metrics: Sequence[Metric], overrides: Sequence[str]) -> None:
    """Raise ConfigError for `input=` together with keys of a run, or without a required `reference=`."""
    if settings.input is None:
        if settings.size is not None:
            raise ConfigError(
                f"size={settings.size} is for input= and reference=; a run's samples keep their size; leave it out"
            )
        return
    for word in overrides:
        if word.lstrip("+").partition("=")[0] in OF_A_RUN:
            raise ConfigError(f"{word} is a key for runs: leave it out, or give run= instead of input=")
    if settings.reference is None and any(m.compares or isinstance(m, TrainingMetric) for m in metrics):
        raise ConfigError(f"input={settings.input}: reference= is required with input=: type reference=FOLDER")


def _check_export(settings: EvalSettings, metrics: Sequence[Metric]) -> None:
    """Raise ConfigError for a reference that cannot be written, before anything is computed."""
    exported = settings.export_reference
    if exported is None:
        return
    if Path(exported).suffix != ".npz":
        raise ConfigError(f"export_reference={exported}: type a file name that ends with .npz")
    if Path(exported).expanduser().exists():
        raise ConfigError(f"export_reference={exported}: this file exists; type another name")
    above = next(folder for folder in measuring.exported_to(exported).absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ConfigError(f"export_reference={exported}: {above} is not writable; type another place")
    if settings.reference is not None and Path(settings.reference).expanduser().is_file():
        raise ConfigError(
            f"export_reference={exported}: reference={settings.reference} is such a file already; copy it"
        )
    if not any(metric.compares and metric.needs_extractor() for metric in metrics):
        raise ConfigError(
            f"export_reference={exported} needs a metric that reads features of real images: type metrics=[fid]"
        )


def _compare(
    settings: EvalSettings, runs: Sequence[str], metrics: Sequence[Metric], extractor: Callable[[], Extractor]
) -> Path:
    """Evaluate several runs under one protocol; write a table, comparison.csv and comparison.json."""
    if isinstance(settings.truncation, list):
        raise ConfigError(f"truncation={settings.truncation}: a list needs one run: give one run, or one threshold")
    measuring.look_ahead(settings, runs, metrics)  # check all runs before the first evaluation
    evaluated = []
    pictures: dict[str, Pixels] = {}
    unkept: list[GanError] = []
    for k, which in enumerate(runs):
        one = measuring.evaluate(replace(settings, run=which), metrics, extractor)
        assert one.found is not None
        evaluated.append((one.found.run, one.found.step, one.results[0]))
        unkept += one.unkept
        pictures |= {f"{k:02}-{one.found.run.name}-{name}": picture for name, picture in one.pictures.items()}
    if not World.of_group().first:
        return Path()  # rank 0 writes
    names = finding.names([run for run, _, _ in evaluated])
    rows = [compare.Line(name, step, values) for name, (_, step, values) in zip(names, evaluated, strict=True)]
    compare.show(rows)
    with _said(unkept):
        folder = rundir.new_directory("eval", "comparison", settings.run_dir)
        for name, picture in pictures.items():
            save_png(folder / name, picture)
        compare.write(folder, rows)
        print(f"results with protocols: {folder / 'comparison.json'}")
        for name in pictures:
            print(f"picture: {folder / name}")
    return folder


def _write_curve(
    folder: Path, mark: str, thresholds: Sequence[float | None], results: Sequence[Mapping[str, Any]]
) -> None:
    """Write all thresholds' results to one file, and truncation.png: every metric over the threshold."""
    write_json(folder / f"results{mark}.json", {"truncation": list(thresholds), "results": [dict(r) for r in results]})
    names = {float(k): "none" if t is None else f"{t:g}" for k, t in enumerate(thresholds)}

    def curve(key: str) -> list[tuple[float, float]]:
        return [(float(k), values[key]) for k, values in enumerate(results)]

    keys = [key for key in numbers(results[0]) if not key.endswith("_std") and key != "classifier_accuracy"]
    together = [key for key in keys if key.startswith(("precision", "recall"))]
    panels = [Panel(key, {key: curve(key)}, "truncation", names) for key in keys if key not in together]
    if together:
        panels.append(Panel(" and ".join(together), {key: curve(key) for key in together}, "truncation", names))
    save_png(folder / f"truncation{mark}.png", chart(panels))


def _show(
    results: Sequence[Mapping[str, Any]], thresholds: Sequence[float | None], name: str, sampler: Sampler | None
) -> None:
    """Print one result as lines, several as a table."""
    protocol = results[0]["protocol"]
    where = f"{name} at step {sampler.step:,}" if sampler else name
    where += f", {sampler.direction}" if sampler and sampler.direction else ""
    real = ""
    if protocol["reference"]:
        count = f"{protocol['n_real']:,}" if protocol["n_real"] else "an unknown number of"
        real = f" against {count} real images"
    print(f"{where}: {protocol['n_fake']:,} samples{real}, {protocol.get('extractor', 'no extractor')}")
    if len(results) == 1:
        width = max(10, *map(len, numbers(results[0])))
        for key, value in numbers(results[0]).items():
            low, high = results[0].get("intervals", {}).get(key, (None, None))
            print(f"  {key:{width}} {value:.4f}" + ("" if low is None else f"  ({low:.4f} to {high:.4f})"))
    else:
        keys = list(numbers(results[0]))
        print("  truncation" + "".join(f"{key:>{max(12, len(key) + 2)}}" for key in keys))
        for threshold, values in zip(thresholds, results, strict=True):
            cells = "".join(f"{values[key]:>{max(12, len(key) + 2)}.4f}" for key in keys)
            print(f"  {'none' if threshold is None else f'{threshold:g}':>10}{cells}")
    for warning in results[0]["warnings"]:
        print(f"  note: {warning}")
