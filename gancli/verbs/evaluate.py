"""`gan eval`: numbers about a run's samples, or about a folder of images, each beside its protocol."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gancli import rundir
from gancli.build import make, make_as
from gancli.charts import Panel, chart
from gancli.data.folder import folder as folder_source
from gancli.data.source import Source
from gancli.errors import ConfigError, DataError, MetricError
from gancli.files import write_json
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet, from_sampler, from_source
from gancli.metrics.kept import KeptFeatures
from gancli.metrics.metric import LabelMetric, Metric
from gancli.metrics.reference import Reference
from gancli.metrics.reference import read as read_reference
from gancli.metrics.reference import write as write_reference
from gancli.metrics.run_metric import RunMetric
from gancli.pictures import save_png
from gancli.sampling import Sampler
from gancli.settings import EvalSettings
from gancli.verbs import compare
from gancli.verbs.drawing import compute, images_only, sampler


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Evaluate as configured; returns the directory that holds results.json. Raises GanError."""
    settings = make_as(EvalSettings, config, "")
    _check(settings)
    metrics: list[Metric] = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    # What costs nothing to find out comes first, the extractor's download last.
    rundir.refuse_taken(settings.run_dir)
    extractor = cache(lambda: _extractor(settings))
    if settings.input is None:
        runs = compare.chosen(settings.run)
        if len(runs) > 1:
            return _compare(settings, runs, metrics, extractor)
        settings = replace(settings, run=runs[0])
    found, results = _evaluate(settings, metrics, extractor)
    name = Path(settings.input or "").name if found is None else found.run.name
    folder = rundir.new_directory("eval", found.name if found else name, settings.run_dir)
    if isinstance(settings.truncation, list):
        _write_curve(folder, settings.thresholds(), results)
    else:
        write_json(folder / "results.json", results[0])
    _show(results, settings.thresholds(), name, found)
    print(f"results with protocol: {folder / 'results.json'}")
    return folder


def _check(settings: EvalSettings) -> None:
    """Raise ConfigError for keys that do not go together."""
    if settings.input is not None and settings.reference is None:
        raise ConfigError(f"input={settings.input}: with what shall it be compared? Type reference=FOLDER")
    if settings.input is not None and isinstance(settings.truncation, list):
        raise ConfigError(f"truncation={settings.truncation}: a folder of images has none; give run= instead of input=")
    exported = settings.export_reference
    if exported is not None and Path(exported).suffix != ".npz":
        raise ConfigError(f"export_reference={exported}: type a file name that ends with .npz")
    if exported is not None and settings.reference is not None and Path(settings.reference).expanduser().is_file():
        raise ConfigError(f"export_reference={exported}: reference={settings.reference} is a file already; copy it")


def _compare(
    settings: EvalSettings, runs: Sequence[str], metrics: Sequence[Metric], extractor: Callable[[], Extractor]
) -> Path:
    """Several runs under one protocol: a table, comparison.csv and comparison.json."""
    if isinstance(settings.truncation, list):
        raise ConfigError(f"truncation={settings.truncation}: thresholds are compared for one run: give one of each")
    for which in runs:
        rundir.find(which)  # all of them before the first is looked at
    rows = []
    for which in runs:
        found, (values,) = _evaluate(replace(settings, run=which), metrics, extractor)
        assert found is not None
        rows.append(compare.Row(found.run.name, found.step, values))
    folder = rundir.new_directory("eval", "comparison", settings.run_dir)
    compare.write(folder, rows)
    compare.show(rows)
    print(f"results with protocols: {folder / 'comparison.json'}")
    return folder


def _extractor(settings: EvalSettings) -> Extractor:
    """The extractor on its device, compiled where asked and possible."""
    extractor: Extractor = make(settings.extractor, "extractor")
    extractor.to(compute(settings).device)
    if settings.compile:
        to_compile = getattr(extractor, "compile", None)
        said = f"compile: {extractor.name} runs uncompiled" if to_compile is None else to_compile()
        print(said or "compile: the first batch takes longer", file=sys.stderr)
    return extractor


def _evaluate(
    settings: EvalSettings, metrics: Sequence[Metric], extractor: Callable[[], Extractor]
) -> tuple[Sampler | None, list[dict[str, Any]]]:
    """One run's or folder's results, one for each threshold, which are kept in the run, too. Raises GanError."""
    found = None if settings.input is not None else sampler(settings)
    _refuse_labels(metrics, found)
    of_run = [m for m in metrics if isinstance(m, RunMetric)]
    of_images = [m for m in metrics if not isinstance(m, RunMetric)]
    if of_run and found is None:
        raise MetricError(f"metrics={of_run[0].name} looks into a run: give run= instead of input=")
    if of_images:
        results = _judge_images(settings, found, of_images, extractor)
    else:
        results = [_blank(settings, found, threshold) for threshold in settings.thresholds()]
    for threshold, values in zip(settings.thresholds(), results, strict=True):
        if found is not None:
            _judge_run(settings, found.truncated(threshold), of_run, values)
        values |= {"protocol_id": protocol_id(values["protocol"])} | ({"step": found.step} if found else {})
        values["protocol"] |= rundir.environment() | {"seconds": values.pop("seconds")}
        if found is not None:
            _into_run(found, values)
    return found, results


def _judge_images(
    settings: EvalSettings, found: Sampler | None, metrics: Sequence[Metric], make_extractor: Callable[[], Extractor]
) -> list[dict[str, Any]]:
    """What metrics of images say, for each threshold, with the protocol. Raises GanError."""
    judged, real, source = _sets(settings, found, any(isinstance(m, LabelMetric) for m in metrics))
    extractor: Extractor | None = None
    if not all(isinstance(m, LabelMetric) for m in metrics):
        extractor = make_extractor()
    kept = KeptFeatures() if settings.cache else None
    evaluator = Evaluator(metrics, real, extractor, source, reporter(), kept, intervals=True)
    results = []
    for fake in judged:
        began = time.perf_counter()
        results.append(evaluator.judge(fake).as_json())
        results[-1]["seconds"] = round(time.perf_counter() - began, 1)
        results[-1]["reference_was_cached"] = evaluator.was_kept
    if settings.export_reference is not None:
        if extractor is None or isinstance(real, Reference):
            raise ConfigError("export_reference= needs a metric that reads features, such as metrics=[fid]")
        write_reference(Path(settings.export_reference), evaluator.features_of_real(), real.protocol, extractor)
    return results


def _blank(settings: EvalSettings, found: Sampler | None, threshold: float | None) -> dict[str, Any]:
    """A result that holds nothing yet but its protocol."""
    fake = {"seed": settings.seed} | (found.truncated(threshold).protocol() if found else {})
    return {
        "protocol": {"n_fake": settings.n, "n_real": 0, "fake": fake, "reference": None},
        "warnings": [],
        "seconds": 0.0,
    }


def _judge_run(settings: EvalSettings, found: Sampler, metrics: Sequence[RunMetric], values: dict[str, Any]) -> None:
    """Add what metrics of a run say to its results, and the time that took. Raises MetricError."""
    began = time.perf_counter()
    for metric in metrics:
        scores, details = metric.measure(found, settings.n, settings.seed, reporter())
        values |= scores | details
        values["protocol"][metric.name] = metric.settings(settings.n, 0)
    values["seconds"] = round(values["seconds"] + time.perf_counter() - began, 1)


def _refuse_labels(metrics: Sequence[Metric], found: Sampler | None) -> None:
    """Raise MetricError where samples were asked for no class and a metric asks which."""
    wanting = [m.name for m in metrics if isinstance(m, LabelMetric)]
    if wanting and found is None:
        raise MetricError(f"metrics={wanting[0]} judges a conditional run's samples: give run= instead of input=")
    if wanting and found is not None and not found.game.labelled:
        raise MetricError(
            f"metrics={wanting[0]} asks whether samples show the class they were asked for, and {found.run.name} knows"
            " no classes: train a conditional model (model.conditioning=projection)"
        )


def _sets(
    settings: EvalSettings, found: Sampler | None, labelled: bool
) -> tuple[list[ImageSet], ImageSet | Reference, Source | None]:
    """What is judged (a set for each threshold), what it is compared with, and the data behind that.

    Raises DataError or ConfigError.
    """
    n_real, seed = settings.n_real, settings.seed
    file = Path(settings.reference or "").expanduser()
    given = read_reference(file) if settings.reference is not None and file.is_file() else None
    if given is not None and n_real is not None:
        raise ConfigError(f"n_real={n_real}: reference={settings.reference} is a file, taken whole; leave n_real out")
    real: ImageSet | Reference
    if found is None:
        judged = _folder("input", settings.input)
        count = min(settings.n, len(judged))
        fake = from_source(judged, count, seed, folder=str(settings.input))
        if given is not None:
            return [fake], given, None
        reference = _folder("reference", settings.reference)
        real = from_source(reference, n_real or min(count, len(reference)), seed, exact=n_real is not None)
        return [fake], real, reference
    images_only(found, "eval")
    source: Source
    facts: dict[str, Any] = {}
    if given is None and settings.reference is not None:
        source = _folder("reference", settings.reference, size=list(found.shape))
    else:
        source = make(found.config["dataset"], "dataset")
        facts = {"split": found.config["dataset"].get("split")}
        if source.fingerprint != found.facts.fingerprint and (given is None or labelled):
            raise MetricError(
                f"the data set {source.name} has changed since the run was trained on it: give reference=FOLDER instead"
            )
    if given is not None:
        real = given
    else:
        real = from_source(source, n_real or min(settings.n, len(source)), seed, exact=n_real is not None, **facts)
    cut = [found.truncated(threshold) for threshold in settings.thresholds()]
    return [from_sampler(each, settings.n, seed, labelled) for each in cut], real, source


def _folder(key: str, path: str | None, **choice: Any) -> Source:
    """A folder of images; what is wrong with it is said of the key that named it."""
    try:
        return folder_source(path, **choice)
    except (DataError, ConfigError) as error:
        raise DataError(str(error).replace("dataset.root", key)) from None


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """The same for results that may be compared: all of the protocol but the step."""
    fake = {k: v for k, v in protocol["fake"].items() if k not in ("step", "seen")}
    return hashlib.sha256(json.dumps({**protocol, "fake": fake}, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _into_run(found: Sampler, values: Mapping[str, Any]) -> None:
    """Keep the results in the run too: one file a checkpoint and protocol."""
    if not (found.run / "run.json").is_file():
        return  # a checkpoint file on its own
    write_json(found.run / "eval" / f"{found.step:08d}-{values['protocol_id']}.json", dict(values))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in values.items() if isinstance(value, float) and key != "seconds"}


def _write_curve(folder: Path, thresholds: Sequence[float | None], results: Sequence[Mapping[str, Any]]) -> None:
    """All thresholds' results in one file, and truncation.png: every metric over the threshold."""
    write_json(folder / "results.json", {"truncation": list(thresholds), "results": [dict(r) for r in results]})
    names = {float(k): "none" if t is None else f"{t:g}" for k, t in enumerate(thresholds)}

    def curve(key: str) -> list[tuple[float, float]]:
        return [(float(k), values[key]) for k, values in enumerate(results)]

    keys = [key for key in _numbers(results[0]) if not key.endswith("_std") and key != "classifier_accuracy"]
    together = [key for key in ("precision", "recall") if key in keys]
    panels = [Panel(key, {key: curve(key)}, "truncation", names) for key in keys if key not in together]
    if together:
        panels.append(Panel(" and ".join(together), {key: curve(key) for key in together}, "truncation", names))
    save_png(folder / "truncation.png", chart(panels))


def _show(
    results: Sequence[Mapping[str, Any]], thresholds: Sequence[float | None], name: str, found: Sampler | None
) -> None:
    """One result as lines, several as a table."""
    protocol = results[0]["protocol"]
    where = f"{name} at step {found.step:,}" if found else name
    real = ""
    if protocol["reference"]:
        real = f" against {protocol['n_real'] or 'unknown numbers of'} real images"
    print(f"{where}: {protocol['n_fake']:,} samples{real}, {protocol.get('extractor', 'no extractor')}")
    if len(results) == 1:
        for key, value in _numbers(results[0]).items():
            low, high = results[0].get("intervals", {}).get(key, (None, None))
            print(f"  {key:10} {value:.4f}" + ("" if low is None else f"  ({low:.4f} to {high:.4f})"))
    else:
        keys = list(_numbers(results[0]))
        print("  truncation" + "".join(f"{key:>{max(12, len(key) + 2)}}" for key in keys))
        for threshold, values in zip(thresholds, results, strict=True):
            cells = "".join(f"{values[key]:>{max(12, len(key) + 2)}.4f}" for key in keys)
            print(f"  {'none' if threshold is None else f'{threshold:g}':>10}{cells}")
    for warning in results[0]["warnings"]:
        print(f"  note: {warning}")


def reporter(every: float = 5.0) -> Callable[[str, int, int], None]:
    """A progress callback that prints a line every so many seconds, and the first at once."""
    next_line = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal next_line
        now = time.monotonic()
        if now >= next_line:
            print(f"{what} {done}/{total}", file=sys.stderr, flush=True)
            next_line = now + every

    return report
