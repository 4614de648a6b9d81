"""What `gan eval` judges, against what, and by which network: one run or folder, for each threshold."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gancli import ranks
from gancli.assemble import DataFacts
from gancli.build import make
from gancli.data.folder import folder as folder_source
from gancli.data.folder import sizes
from gancli.data.source import Source
from gancli.dist import World
from gancli.errors import ConfigError, DataError, MetricError
from gancli.metrics import results
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet, from_sampler, from_source
from gancli.metrics.kept import KeptFeatures
from gancli.metrics.metric import LabelMetric, Metric
from gancli.metrics.reference import Reference
from gancli.metrics.reference import read as read_reference
from gancli.metrics.reference import write as write_reference
from gancli.metrics.run_metric import FeatureRunMetric, RunMetric
from gancli.pictures import Pixels
from gancli.sampling import Sampler
from gancli.settings import EvalSettings
from gancli.verbs.drawing import compute, images_only, sampler

Findings = tuple[Sampler | None, list[dict[str, Any]], dict[str, Pixels]]


def evaluate(settings: EvalSettings, metrics: Sequence[Metric], extractor: Callable[[], Extractor]) -> Findings:
    """One run's or folder's results, one for each threshold, which are kept in the run, too; and pictures by file name.

    Raises GanError.
    """
    found = None if settings.input is not None else sampler(settings)
    _refuse_labels(metrics, found)
    of_run = [m for m in metrics if isinstance(m, (RunMetric, FeatureRunMetric))]
    of_images = [m for m in metrics if not isinstance(m, (RunMetric, FeatureRunMetric))]
    if of_run and found is None:
        raise MetricError(f"metrics={of_run[0].name} looks into a run: give run= instead of input=")
    _refuse_run(settings, found, of_run)
    asking = [m.name for m in of_run if isinstance(m, RunMetric) and m.asks_d]
    if asking and found is not None and not found.whole:
        raise MetricError(f"metrics={asking[0]} looks into D, and {settings.run} holds the generator only")
    if of_images:
        made = _judge_images(settings, found, of_images, extractor)
    else:
        made = [_blank(settings, found, threshold) for threshold in settings.thresholds()]
    pictures: dict[str, Pixels] = {}
    for k, (threshold, values) in enumerate(zip(settings.thresholds(), made, strict=True)):
        if found is not None:
            shown = _judge_run(settings, found.truncated(threshold), of_run, values, extractor)
            mark = f"-{'none' if threshold is None else f'{threshold:g}'}" if len(made) > 1 else ""
            pictures |= {f"{name}{mark}.png": picture for name, picture in shown.items()}
        made[k] = results.finished(values, found.step if found else None, values.pop("seconds"))
        if found is not None and World.of_group().first:
            results.keep(found.run, made[k])
    return found, made, pictures


def extractor_of(settings: EvalSettings) -> Extractor:
    """The extractor on its device, compiled where asked and possible."""
    with ranks.one_first():
        extractor: Extractor = make(settings.extractor, "extractor")
    extractor.to(compute(settings).device)
    if settings.compile:
        to_compile = getattr(extractor, "compile", None)
        said = f"compile: {extractor.name} runs uncompiled" if to_compile is None else to_compile()
        print(said or "compile: the first batch takes longer", file=sys.stderr)
    return extractor


def _judge_images(
    settings: EvalSettings, found: Sampler | None, metrics: Sequence[Metric], make_extractor: Callable[[], Extractor]
) -> list[dict[str, Any]]:
    """What metrics of images say, for each threshold, with the protocol. Raises GanError."""
    with ranks.one_first():
        judged, real, source = _sets(settings, found, any(isinstance(m, LabelMetric) for m in metrics))
    extractor: Extractor | None = None
    if any(m.needs_extractor() for m in metrics):
        extractor = make_extractor()
    kept = KeptFeatures() if settings.cache else None
    evaluator = Evaluator(metrics, real, extractor, source, reporter(), kept, intervals=True)
    made = []
    for fake in judged:
        began = time.perf_counter()
        made.append(evaluator.judge(fake).as_json())
        made[-1]["seconds"] = time.perf_counter() - began
        made[-1]["reference_was_cached"] = evaluator.was_kept
        made[-1]["warnings"] += [note for note in map(_resized, (fake, real)) if note]
    if settings.export_reference is not None and World.of_group().first:
        assert extractor is not None
        assert isinstance(real, ImageSet)
        write_reference(Path(settings.export_reference), evaluator.features_of_real(), real.protocol, extractor)
    return made


def _blank(settings: EvalSettings, found: Sampler | None, threshold: float | None) -> dict[str, Any]:
    """A result that holds nothing yet but its protocol."""
    fake = {"seed": settings.seed} | (found.truncated(threshold).protocol() if found else {})
    return {
        "protocol": {"n_fake": settings.n, "n_real": 0, "fake": fake, "reference": None},
        "warnings": [],
        "seconds": 0.0,
    }


def _refuse_run(settings: EvalSettings, found: Sampler | None, metrics: Sequence[Metric]) -> None:
    """Raise MetricError for metrics of a run that this one cannot have, before a network is loaded for them."""
    for threshold in settings.thresholds() if found is not None else ():
        for metric in metrics:
            if isinstance(metric, FeatureRunMetric) and found is not None:
                metric.refuse(found.truncated(threshold))


def _judge_run(
    settings: EvalSettings,
    found: Sampler,
    metrics: Sequence[RunMetric | FeatureRunMetric],
    values: dict[str, Any],
    make_extractor: Callable[[], Extractor],
) -> dict[str, Pixels]:
    """Add what metrics of a run say to its results, and the time that took; their pictures. Raises MetricError."""
    began = time.perf_counter()
    pictures: dict[str, Pixels] = {}
    for metric in metrics:
        if isinstance(metric, FeatureRunMetric):
            extractor = make_extractor() if metric.needs_extractor() else None
            findings = metric.measure(extractor, found, settings.n, settings.seed, reporter())
            if extractor is not None:
                values["protocol"] |= extractor.protocol()
        else:
            findings = metric.measure(found, settings.n, settings.seed, reporter())
        values |= findings.values | findings.details
        values["warnings"] += [note for note in findings.notes if note not in values["warnings"]]
        pictures |= findings.pictures
        values["protocol"][metric.name] = metric.settings(settings.n, 0)
    if metrics:
        about = {"name": found.facts.name, "fingerprint": found.facts.fingerprint}
        about |= {key: found.config["dataset"].get(key) for key in ("split", "limit")}
        values["protocol"]["trained_on"] = about
    values["seconds"] += time.perf_counter() - began
    return pictures


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


def _resized(images: ImageSet | Reference | None) -> str:
    """A warning where a folder's images were not looked at as they are; empty where they were."""
    sizes = [] if images is None else images.protocol.get("file_sizes", [])
    shape = None if images is None else images.protocol.get("shape")
    if not shape or all(size == shape[1:] for size in sizes):
        return ""
    return (
        f"files of {' and '.join(f'{h}x{w}' for h, w in sizes[:3])} pixels{' and more' if len(sizes) > 3 else ''} were"
        f" cropped and resized to {shape[1]}x{shape[2]} before the extractor's own resize: numbers compare only with"
        " others made so"
    )


def _sets(
    settings: EvalSettings, found: Sampler | None, labelled: bool
) -> tuple[list[ImageSet], ImageSet | Reference | None, Source | None]:
    """What is judged (a set for each threshold), what it is compared with (None: nothing), and the data behind that.

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
        fake = from_source(judged, count, seed, folder=str(settings.input), file_sizes=file_sizes(settings.input))
        if given is not None or settings.reference is None:
            return [fake], given, None
        reference = _folder("reference", settings.reference)
        facts: dict[str, Any] = {"file_sizes": file_sizes(settings.reference)}
        real = from_source(reference, n_real or min(count, len(reference)), seed, exact=n_real is not None, **facts)
        return [fake], real, reference
    images_only(found, "eval")
    source: Source
    facts = {}
    if given is None and settings.reference is not None:
        source = _folder("reference", settings.reference, size=list(found.shape))
        facts = {"file_sizes": file_sizes(settings.reference)}
    else:
        source = make(found.config["dataset"], "dataset")
        facts = {"split": found.config["dataset"].get("split")}
        if source.fingerprint != found.facts.fingerprint and (given is None or labelled):
            raise MetricError(
                f"the data set {source.name} has changed since the run was trained on it"
                f" ({found.facts.differences(DataFacts.of(source))}): give reference=FOLDER instead"
            )
    if given is not None:
        real = given
    else:
        real = from_source(source, n_real or min(settings.n, len(source)), seed, exact=n_real is not None, **facts)
    cut = [found.truncated(threshold) for threshold in settings.thresholds()]
    return [from_sampler(each, settings.n, seed, labelled) for each in cut], real, source


def file_sizes(folder: str | None) -> list[list[int]]:
    """The sizes [H, W] of a folder's images, upright, each once; of the first 1,000, by their headers."""
    return sizes(folder or "")


def _folder(key: str, path: str | None, **choice: Any) -> Source:
    """A folder of images; what is wrong with it is said of the key that named it."""
    try:
        source = folder_source(path, **choice)
        for note in source.notes if World.of_group().first else ():
            print(f"{key}={path}: {note}".replace("dataset.", f"{key}."), file=sys.stderr, flush=True)
        return source
    except (DataError, ConfigError) as error:
        raise DataError(str(error).replace("dataset.root", key)) from None


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
