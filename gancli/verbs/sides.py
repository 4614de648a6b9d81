"""The two sides of an evaluation: what is evaluated, and the real images that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gancli.config.commands import word
from gancli.config.settings import EvalSettings
from gancli.data.facts import DataFacts
from gancli.data.source import DataSet, Source
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, MetricError
from gancli.metrics.given import Given, find, holds_images
from gancli.metrics.images import ImageSet, enough, from_sampler, from_source, shape_of
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric
from gancli.metrics.outputs import from_rows, like_samples, look_back, made_of_rows, reference
from gancli.metrics.reference import SUFFIXES, Reference
from gancli.metrics.reference import read as read_reference
from gancli.store.rundir import RunDir
from gancli.train.dealing import data_set


@dataclass(frozen=True)
class Sides:
    """evaluated: a set for each threshold. real: None where nothing is compared. source: the run's data.

    notes: what was left out or changed on the way to them.
    """

    evaluated: list[ImageSet]
    real: ImageSet | Reference | None
    source: Source | None = None
    notes: list[str] = field(default_factory=list)


def of(settings: EvalSettings, sampler: Sampler | None, metrics: Sequence[Metric]) -> Sides:
    """Both sides as the settings ask for them, for these metrics of images.

    Raises DataError, MetricError, RunError or ConfigError.
    """
    statistics = _statistics(settings)
    if statistics is not None and settings.n_real is not None:
        raise ConfigError(
            f"n_real={settings.n_real}: reference={settings.reference} is a file, taken whole; leave n_real out"
        )
    if sampler is None:
        return _of_files(settings, statistics)
    shape_of(sampler.field)
    labelled = any(isinstance(m, LabelMetric) for m in metrics)
    if made_of_rows(sampler):
        return _of_rows(settings, sampler, statistics, metrics, labelled)
    return _of_run(settings, sampler, statistics, any(m.compares for m in metrics), labelled)


def _statistics(settings: EvalSettings) -> Reference | None:
    """The features or statistics that `reference=` names; None where it names images, or nothing."""
    if settings.reference is None:
        return None
    path = Path(settings.reference).expanduser()
    if path.is_file() and path.suffix.lower() in (*SUFFIXES, ".pkl") and not holds_images(path):
        return read_reference(path)
    return None


def _of_files(settings: EvalSettings, statistics: Reference | None) -> Sides:
    """Finished images against others or against statistics."""
    assert settings.input is not None
    size, seed = settings.sides(), settings.seed
    if RunDir(Path(settings.input).expanduser()).started():
        run = word("run", settings.input)
        raise ConfigError(f"input={settings.input} is a run, not a folder of finished images: type {run}")
    given = find("input", settings.input, size)
    asked = settings.count()
    n = min(asked, len(given))
    fake, notes = given.images(n, seed), list[str]()
    if n < asked:
        notes.append(f"n={asked:,} asked for, and input has {len(given):,}: all of them are evaluated")
    if statistics is not None or settings.reference is None:
        return Sides([fake], statistics, None, notes + _unlike((given, fake)))
    other = find("reference", settings.reference, size)
    real, more = _real(settings, other, n)
    return Sides([fake], real, other.source, notes + more + _unlike((given, fake), (other, real)))


def _of_run(
    settings: EvalSettings, sampler: Sampler, statistics: Reference | None, compares: bool, labelled: bool
) -> Sides:
    """A run's samples, at each threshold."""
    n = settings.count()
    evaluated = [from_sampler(sampler.truncated(t), n, settings.seed, labelled) for t in settings.thresholds()]
    if settings.reference is not None and statistics is None:
        other = find("reference", settings.reference, list(sampler.field.shape))
        real, notes = _real(settings, other, n)
        return Sides(evaluated, real, other.source, notes + _unlike((other, real)))
    if statistics is not None and not labelled:
        return Sides(evaluated, statistics)
    source = like_samples(unchanged(sampler), sampler)
    if statistics is not None:
        return Sides(evaluated, statistics, source)
    count, notes = _count(settings, source.name, len(source), n)
    split = sampler.config["dataset"].get("split")
    real = from_source(source, count, settings.seed, exact=settings.n_real is not None, split=split)
    return Sides(evaluated, real, source, notes if compares else [])


def _of_rows(
    settings: EvalSettings,
    sampler: Sampler,
    statistics: Reference | None,
    metrics: Sequence[Metric],
    labelled: bool,
) -> Sides:
    """What a run makes of held-out rows, each once, against held-out rows of what that is to be like."""
    n = settings.count(sampler.most)
    sampler.given([(settings.seed, n - 1)])  # more than there are is said now
    back = look_back(metrics)
    evaluated = [from_rows(sampler.truncated(t), n, settings.seed, back) for t in settings.thresholds()]
    source, notes = None, list(sampler.notes)
    if labelled:  # the classifier learns from what the run was trained on
        source = like_samples(unchanged(sampler), sampler)
    if settings.reference is not None and statistics is None:
        other = find("reference", settings.reference, list(sampler.field.shape))
        real, more = _real(settings, other, n)
        return Sides(evaluated, real, source, notes + more + _unlike((other, real)))
    if statistics is not None:
        return Sides(evaluated, statistics, source, notes)
    looks = any(m.compares or isinstance(m, ImageMetric) for m in metrics)
    if looks and not labelled:
        unchanged(sampler)
    return Sides(evaluated, reference(sampler, settings.n_real, settings.seed) if looks else None, source, notes)


def unchanged(sampler: Sampler) -> DataSet:
    """What the run was trained on. Raises MetricError where that is not what it was."""
    found = data_set(sampler.config["dataset"], sampler.config.get("game") or {})
    if found.fingerprint != sampler.facts.fingerprint:
        raise MetricError(
            f"the data set {found.name} has changed since the run was trained on it"
            f" ({sampler.facts.differences(DataFacts.of(found))}): type dataset.root=PATH with the data as they were,"
            " or reference=FOLDER"
        )
    return found


def _real(settings: EvalSettings, given: Given, n: int) -> tuple[ImageSet, list[str]]:
    """Real images out of files, as many as asked for, and what to say of their number."""
    if settings.n_real is not None and settings.n_real > len(given):
        raise MetricError(
            f"n_real={settings.n_real}: reference={settings.reference} has {len(given)} images: type a smaller n_real,"
            " or null"
        )
    count, notes = _count(settings, "reference", len(given), n)
    return given.images(count, settings.seed), notes


def _count(settings: EvalSettings, name: str, there: int, n: int) -> tuple[int, list[str]]:
    """How many real images are taken, and a note where that is not as many as were asked for, or leaves many out."""
    if settings.n_real is not None:
        return settings.n_real, []
    if n < settings.count() and there > n:
        return n, [f"{n:,} of the {there:,} images of {name} are compared with, as many as there are samples:"
                   f" n_real={there} takes all"]  # fmt: skip
    return enough(name, there, n)


def _unlike(*sides: tuple[Given, ImageSet]) -> list[str]:
    """Notes on files that were left out, or not looked at as they are; sides of which the same holds share one."""
    said: dict[str, list[str]] = {}
    for given, images in sides:
        for text in filter(None, (*given.left_out, given.resizing(images.shape))):
            said.setdefault(text, []).append(given.key)
    return [f"{' and '.join(keys)}: {text}" for text, keys in said.items()]
