"""Evaluation of one run or folder for `gan eval`, at each truncation threshold."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gancli.compute import ranks
from gancli.compute.dist import World
from gancli.config.build import make
from gancli.config.settings import EvalSettings
from gancli.draw.pictures import Pixels
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, GanError, MetricError, RunError
from gancli.metrics import controls, results
from gancli.metrics.controls import Controls
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor, flattered
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.images import ImageSet
from gancli.metrics.metric import Metric, PairMetric
from gancli.metrics.outputs import made_of_rows, refuse_pairs
from gancli.metrics.reference import write as write_reference
from gancli.metrics.refusals import parted, refuse_labels
from gancli.metrics.run_metric import FeatureRunMetric, RunMetric
from gancli.metrics.training_metric import Compared, TrainingMetric, sides_of_files, sides_of_run
from gancli.store.rundir import real as own_path
from gancli.verbs import sides
from gancli.verbs.drawing import compute, need_images, open_sampler
from gancli.verbs.time_left import Remaining, ahead

ALL = "all"  # directions


@dataclass(frozen=True)
class Evaluated:
    """results: one per threshold. pictures: by file name. unkept: errors of storing results in the run."""

    found: Sampler | None
    results: list[dict[str, Any]]
    pictures: dict[str, Pixels]
    unkept: list[GanError]


def by_direction(settings: EvalSettings, metrics: Sequence[Metric]) -> dict[str, EvalSettings]:
    """Return the settings of each requested direction, by the suffix of its file names. Raises GanError."""
    if settings.direction != ALL:
        return {"": settings}
    found = load(replace(settings, direction=None, standing_stats=0), metrics)
    known = found.game.directions() if found is not None else ("",)
    if not all(known):
        raise ConfigError("direction=all: this game has no named directions: leave direction out")
    return {f"-{direction}": replace(settings, direction=direction) for direction in known}


def evaluate(settings: EvalSettings, metrics: Sequence[Metric], extractor: Callable[[], Extractor]) -> Evaluated:
    """Evaluate one run or folder, and store the results in the run. Raises GanError."""
    found = load(settings, metrics)
    of_run, of_images = parted(metrics)
    unkept: list[GanError] = []
    if of_images:
        made = _evaluate_images(settings, found, of_images, extractor, unkept)
    else:
        made = [_blank(settings, found, threshold) for threshold in settings.thresholds()]
    pictures: dict[str, Pixels] = {}
    for k, (threshold, values) in enumerate(zip(settings.thresholds(), made, strict=True)):
        if of_run:
            sampler = None if found is None else found.truncated(threshold)
            shown = _evaluate_run(settings, sampler, of_run, values, extractor)
            mark = f"-{'none' if threshold is None else f'{threshold:g}'}" if len(made) > 1 else ""
            pictures |= {f"{name}{mark}.png": picture for name, picture in shown.items()}
        values["warnings"] = list(dict.fromkeys(values["warnings"]))
        made[k] = results.finished(values, found.step if found else None, values.pop("seconds"))
        if found is not None and World.of_group().first:
            try:
                results.keep(found.run, made[k])
            except (RunError, OSError) as error:  # show the results even if they cannot be stored
                unkept.append(error if isinstance(error, GanError) else RunError(str(error)))
    return Evaluated(found, made, pictures, unkept)


def load(settings: EvalSettings, metrics: Sequence[Metric]) -> Sampler | None:
    """Load the evaluated run; None for images from files. Raises GanError if these metrics cannot evaluate it."""
    sampler = None if settings.input is not None else open_sampler(settings, data=settings.dataset)
    refuse_labels(metrics, sampler)
    _refuse_pairs(settings, metrics, sampler)
    of_run, of_images = parted(metrics)
    alone = [m.name for m in of_run if not isinstance(m, TrainingMetric)] if sampler is None else []
    if alone:
        raise MetricError(f"metrics={alone[0]} needs a run: give run= instead of input=")
    if of_images and sampler is not None:
        need_images(sampler.field, "eval")
    _refuse_run(settings, sampler, of_run)
    asking = [m.name for m in of_run if isinstance(m, RunMetric) and m.asks_critic]
    if asking and sampler is not None and not sampler.whole:
        raise MetricError(f"metrics={asking[0]} needs D, but {settings.run} holds the generator only")
    return sampler


def look_ahead(settings: EvalSettings, runs: Sequence[str], metrics: Sequence[Metric]) -> None:
    """Raise GanError for the first of several runs that cannot be evaluated, before any evaluation begins."""
    of_images = parted(metrics)[1]
    seen = []
    for which in runs:
        one = replace(settings, run=which, standing_stats=0)  # they take time and cannot fail
        found = load(one, metrics)
        assert found is not None
        if of_images and found.config.get("dataset") not in seen:
            seen.append(found.config.get("dataset"))
            _sides(one, found, of_images)


def _sides(settings: EvalSettings, sampler: Sampler | None, metrics: Sequence[Metric]) -> sides.Sides:
    """Return the image sets for these image metrics."""
    with ranks.one_first():
        return sides.of(settings, sampler, metrics)


def extractor_of(settings: EvalSettings) -> Extractor:
    """Return the extractor on its device, compiled if requested and possible."""
    with ranks.one_first():
        extractor: Extractor = make(settings.extractor, "extractor")
    extractor.to(compute(settings).device)
    if settings.compile:
        to_compile = getattr(extractor, "compile", None)
        said = f"compile: {extractor.name} runs uncompiled" if to_compile is None else to_compile()
        print(said or "compile: the first batch takes longer", file=sys.stderr)
    return extractor


def _evaluate_images(
    settings: EvalSettings,
    sampler: Sampler | None,
    metrics: Sequence[Metric],
    make_extractor: Callable[[], Extractor],
    unkept: list[GanError],
) -> list[dict[str, Any]]:
    """Compute the image metrics for each threshold, with the protocol. Raises GanError.

    unkept: receives the error if the reference could not be exported.
    """
    given = _sides(settings, sampler, metrics)
    real = given.real
    extractor: Extractor | None = None
    if any(m.needs_extractor() for m in metrics):
        extractor = make_extractor()
    kept = FeatureCache() if settings.cache else None
    report = Remaining(ahead(metrics, given.evaluated, real, extractor))
    evaluator = Evaluator(metrics, real, extractor, given.source, report, kept, intervals=True)
    made = []
    for metric in evaluator.by_pair:
        metric.begin(compute(settings).device)
    for fake in given.evaluated:
        began = time.perf_counter()
        made.append(evaluator.evaluate(fake).as_json())
        if settings.controls and sampler is not None:
            training = partial(sides.unchanged, sampler)
            controls.add(made[-1], Controls(sampler, fake.n, settings.seed, training, report), evaluator)
        made[-1]["seconds"] = time.perf_counter() - began
        made[-1]["reference_was_cached"] = evaluator.was_kept
        made[-1]["warnings"] += given.notes
        if sampler is not None:
            made[-1]["warnings"] += flattered(sampler.game.pretrained, extractor)
    if settings.export_reference is not None and World.of_group().first:
        assert extractor is not None
        assert isinstance(real, ImageSet)
        path = exported_to(settings.export_reference)
        try:
            write_reference(path, evaluator.features_of_real(), real.protocol, extractor)
        except GanError as error:
            unkept.append(error)
    return made


def exported_to(path: str) -> Path:
    """Return the path of an exported reference; its folder may be a symbolic link."""
    typed = Path(path).expanduser()
    return own_path(typed.parent) / typed.name


def _count(settings: EvalSettings, sampler: Sampler | None) -> int:
    """Return the number of evaluated samples."""
    return settings.count(None if sampler is None else sampler.most)


def _blank(settings: EvalSettings, sampler: Sampler | None, threshold: float | None) -> dict[str, Any]:
    """Return a result that holds only its protocol."""
    fake = {"seed": settings.seed} | (sampler.truncated(threshold).protocol() if sampler else {})
    return {
        "protocol": {"n_fake": _count(settings, sampler), "n_real": 0, "fake": fake, "reference": None},
        "warnings": [],
        "seconds": 0.0,
    }


def _refuse_run(
    settings: EvalSettings, sampler: Sampler | None, metrics: Sequence[RunMetric | FeatureRunMetric]
) -> None:
    """Raise MetricError for metrics that this run does not support, before an extractor is loaded."""
    for threshold in settings.thresholds() if sampler is not None else ():
        for metric in metrics:
            if sampler is not None:
                metric.refuse(sampler.truncated(threshold))


def _evaluate_run(
    settings: EvalSettings,
    sampler: Sampler | None,
    metrics: Sequence[RunMetric | FeatureRunMetric],
    values: dict[str, Any],
    make_extractor: Callable[[], Extractor],
) -> dict[str, Pixels]:
    """Add the run metrics and their time to the results; return their pictures. Raises MetricError.

    sampler: None for images from files, of which only a TrainingMetric can be computed.
    """
    began = time.perf_counter()
    pictures: dict[str, Pixels] = {}
    n = _count(settings, sampler)
    of_training = [m for m in metrics if isinstance(m, TrainingMetric)]
    compared = _compared(settings, sampler, of_training, values, make_extractor) if of_training else None
    for metric in metrics:
        if isinstance(metric, FeatureRunMetric):
            extractor = make_extractor() if metric.needs_extractor() else None
            if isinstance(metric, TrainingMetric):
                assert compared is not None
                findings = metric.compare(compared)
            else:
                assert sampler is not None
                findings = metric.measure(extractor, sampler, n, settings.seed, Remaining())
            if extractor is not None:
                values["protocol"] |= extractor.protocol()
                if sampler is not None:
                    values["warnings"] += flattered(sampler.game.pretrained, extractor)
        else:
            assert sampler is not None
            findings = metric.measure(sampler, n, settings.seed, Remaining())
        values |= findings.values | findings.details
        values["warnings"] += [note for note in findings.notes if note not in values["warnings"]]
        pictures |= findings.pictures
        values["protocol"][metric.name] = metric.settings(n, 0)
    if sampler is not None:
        about = {"name": sampler.facts.name, "fingerprint": sampler.facts.fingerprint}
        about |= {key: sampler.config["dataset"].get(key) for key in ("split", "limit")}
        values["protocol"]["trained_on"] = about
    values["seconds"] += time.perf_counter() - began
    return pictures


def _compared(
    settings: EvalSettings,
    sampler: Sampler | None,
    metrics: Sequence[TrainingMetric],
    values: dict[str, Any],
    make_extractor: Callable[[], Extractor],
) -> Compared:
    """Return samples and training images, of the run or from files, whose protocol is added. Raises GanError."""
    kept = FeatureCache() if settings.cache else None
    if sampler is not None:
        n = _count(settings, sampler)
        if settings.reference is not None:
            values["warnings"].append(f"{metrics[0].name}: compared with the run's training data, not with reference=")
        return sides_of_run(make_extractor(), sampler, n, settings.seed, Remaining(), metrics[0].name, kept)
    with ranks.one_first():
        samples, training, notes = sides.copied(settings)
    for metric in metrics:
        metric.refuse_files(len(training))
    made = sides_of_files(make_extractor(), samples, training.at_most, Remaining(), kept)
    trained_on = {k: v for k, v in training.at_most(None).protocol.items() if k not in results.PLACES}
    values["protocol"] |= {"n_fake": samples.n, "fake": dict(samples.protocol), "trained_on": trained_on}
    values["warnings"] += [note for note in notes if note not in values["warnings"]]
    return made


def _refuse_pairs(settings: EvalSettings, metrics: Sequence[Metric], sampler: Sampler | None) -> None:
    """Raise GanError if metrics compare outputs with inputs or targets that this run does not have."""
    of_pairs = [m for m in metrics if isinstance(m, PairMetric)]
    if of_pairs and sampler is None:
        raise MetricError(f"metrics={of_pairs[0].name} needs a run's inputs: give run= instead of input=")
    if settings.controls and (sampler is None or not made_of_rows(sampler)):
        raise ConfigError("controls=true: these samples have no input to compare with: leave it out")
    if sampler is not None:
        refuse_pairs(sampler, of_pairs)
