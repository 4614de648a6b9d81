"""`gan eval`: numbers about a run's samples, or about a folder of images, each beside its protocol."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gancli import rundir
from gancli.assemble import DataFacts
from gancli.build import make, make_as
from gancli.charts import Panel, chart
from gancli.data.folder import folder as folder_source
from gancli.data.source import Source
from gancli.errors import ConfigError, DataError, MetricError
from gancli.files import write_json
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet, from_sampler, from_source
from gancli.metrics.metric import LabelMetric, Metric
from gancli.metrics.run_metric import RunMetric
from gancli.pictures import save_png
from gancli.sampling import Sampler
from gancli.settings import EvalSettings
from gancli.verbs.drawing import compute, images_only, sampler


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Evaluate as configured; returns the directory that holds results.json. Raises GanError."""
    settings = make_as(EvalSettings, config, "")
    if settings.input is not None and settings.reference is None:
        raise ConfigError(f"input={settings.input}: with what shall it be compared? Type reference=FOLDER")
    if settings.input is not None and isinstance(settings.truncation, list):
        raise ConfigError(f"truncation={settings.truncation}: a folder of images has none; give run= instead of input=")
    metrics: list[Metric] = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    # What costs nothing to find out comes first, the extractor's download last.
    rundir.refuse_taken(settings.run_dir)
    found = None if settings.input is not None else sampler(settings)
    _refuse_labels(metrics, found)
    of_run = [m for m in metrics if isinstance(m, RunMetric)]
    of_images = [m for m in metrics if not isinstance(m, RunMetric)]
    if of_run and found is None:
        raise MetricError(f"metrics={of_run[0].name} looks into a run: give run= instead of input=")
    asking = [m.name for m in of_run if m.asks_d]
    if asking and found is not None and not found.whole:
        raise MetricError(f"metrics={asking[0]} looks into D, and {settings.run} holds the generator only")
    if of_images:
        results = _judge_images(settings, found, of_images)
    else:
        results = [_blank(settings, found, threshold) for threshold in settings.thresholds()]
    for threshold, values in zip(settings.thresholds(), results, strict=True):
        if found is not None:
            _judge_run(settings, found.truncated(threshold), of_run, values)
        values |= {"protocol_id": protocol_id(values["protocol"])} | ({"step": found.step} if found else {})
        values["protocol"] |= rundir.environment() | {"seconds": values.pop("seconds")}
        if found is not None:
            _into_run(found, values)
    name = Path(settings.input or "").name if found is None else found.run.name
    folder = rundir.new_directory("eval", found.name if found else name, settings.run_dir)
    if isinstance(settings.truncation, list):
        _write_curve(folder, settings.thresholds(), results)
    else:
        write_json(folder / "results.json", results[0])
    _show(results, settings.thresholds(), name, found)
    print(f"results with protocol: {folder / 'results.json'}")
    return folder


def _judge_images(settings: EvalSettings, found: Sampler | None, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    """What metrics of images say, for each threshold, with the protocol. Raises GanError."""
    judged, real, source = _sets(settings, found, any(isinstance(m, LabelMetric) for m in metrics))
    extractor: Extractor | None = None
    if not all(isinstance(m, LabelMetric) for m in metrics):
        extractor = make(settings.extractor, "extractor")
        extractor.to(compute(settings).device)
    evaluator = Evaluator(metrics, real, extractor, source, progress=reporter())
    results = []
    for fake in judged:
        began = time.perf_counter()
        results.append(evaluator.judge(fake).as_json())
        results[-1]["seconds"] = round(time.perf_counter() - began, 1)
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


def _sets(settings: EvalSettings, found: Sampler | None, labelled: bool) -> tuple[list[ImageSet], ImageSet, Source]:
    """What is judged (a set for each threshold), what it is compared with, and the data behind that.

    Raises DataError or ConfigError.
    """
    n_real, seed = settings.n_real, settings.seed
    if found is None:
        judged = _folder("input", settings.input)
        reference = _folder("reference", settings.reference)
        count = min(settings.n, len(judged))
        real = from_source(reference, n_real or min(count, len(reference)), seed, exact=n_real is not None)
        return [from_source(judged, count, seed, folder=str(settings.input))], real, reference
    images_only(found, "eval")
    source: Source
    if settings.reference is not None:
        source = _folder("reference", settings.reference, size=list(found.shape))
    else:
        source = make(found.config["dataset"], "dataset")
        if source.fingerprint != found.facts.fingerprint:
            raise MetricError(
                f"the data set {source.name} has changed since the run was trained on it"
                f" ({found.facts.differences(DataFacts.of(source))}): give reference=FOLDER instead"
            )
    real = from_source(source, n_real or min(settings.n, len(source)), seed, exact=n_real is not None)
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
    return {key: value for key, value in values.items() if isinstance(value, float)}


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
    real = f" against {protocol['n_real']:,} real images" if protocol["reference"] else ""
    print(f"{where}: {protocol['n_fake']:,} samples{real}, {protocol.get('extractor', 'no extractor')}")
    if len(results) == 1:
        for key, value in _numbers(results[0]).items():
            print(f"  {key:10} {value:.4f}")
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
