"""The two image sets of an evaluation: the evaluated images, and the real images that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gancli.config.commands import word
from gancli.config.settings import EvalSettings
from gancli.data.facts import DataFacts
from gancli.data.source import DataSet, Source
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, MetricError
from gancli.metrics.finished_images import Given, find, holds_images
from gancli.metrics.images import ImageSet, enough, from_sampler, from_source, shape_of
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric
from gancli.metrics.outputs import from_rows, like_samples, look_back, made_of_rows, reference
from gancli.metrics.reference import SUFFIXES, Reference
from gancli.metrics.reference import read as read_reference
from gancli.store.rundir import RunDir
from gancli.train.streams import data_set


@dataclass(frozen=True)
class Sides:
    """evaluated: one set per threshold. real: None if nothing is compared. source: the run's data.

    notes: which images were skipped or resized.
    """

    evaluated: list[ImageSet]
    real: ImageSet | Reference | None
    source: Source | None = None
    notes: list[str] = field(default_factory=list)


def of(settings: EvalSettings, sampler: Sampler | None, metrics: Sequence[Metric]) -> Sides:
    """Return both sides for the settings and these image metrics.

    Raises DataError, MetricError, RunError or ConfigError.
    """
    statistics = _statistics(settings)
    if statistics is not None and settings.n_real is not None:
        raise ConfigError(
            f"n_real={settings.n_real}: reference={settings.reference} is a file, used as a whole; leave n_real out"
        )
    if sampler is None:
        return _of_files(settings, statistics)
    shape_of(sampler.field)
    labelled = any(isinstance(m, LabelMetric) for m in metrics)
    if made_of_rows(sampler):
        return _of_rows(settings, sampler, statistics, metrics, labelled)
    return _of_run(settings, sampler, statistics, any(m.compares for m in metrics), labelled)


def _statistics(settings: EvalSettings) -> Reference | None:
    """Return the features or statistics that `reference=` names; None if it names images or is null."""
    if settings.reference is None:
        return None
    path = Path(settings.reference).expanduser()
    if path.is_file() and path.suffix.lower() in (*SUFFIXES, ".pkl") and not holds_images(path):
        return read_reference(path)
    return None


def _of_files(settings: EvalSettings, statistics: Reference | None) -> Sides:
    """Compare images from files with other images or with statistics."""
    assert settings.input is not None
    size, seed = settings.sides(), settings.seed
    if RunDir(Path(settings.input).expanduser()).started():
        run = word("run", settings.input)
        raise ConfigError(f"input={settings.input} is a run, not a folder of images: type {run}")
    given = find("input", settings.input, size)
    asked = settings.count()
    n = min(asked, len(given))
    fake, notes = given.images(n, seed), list[str]()
    if n < asked:
        notes.append(f"n={asked:,}, but input has {len(given):,} images: all of them are evaluated")
    if statistics is not None or settings.reference is None:
        return Sides([fake], statistics, None, notes + _unlike((given, fake)))
    other = find("reference", settings.reference, size)
    real, more = _real(settings, other, n)
    return Sides([fake], real, other.source, notes + more + _unlike((given, fake), (other, real)))


def _of_run(
    settings: EvalSettings, sampler: Sampler, statistics: Reference | None, compares: bool, labelled: bool
) -> Sides:
    """Compare a run's samples, at each threshold, with real images or statistics."""
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
    """Compare a run's outputs for held-out inputs, each used once, with the held-out targets."""
    n = settings.count(sampler.most)
    sampler.given([(settings.seed, n - 1)])  # raises for more rows than there are
    back = look_back(metrics)
    evaluated = [from_rows(sampler.truncated(t), n, settings.seed, back) for t in settings.thresholds()]
    source, notes = None, list(sampler.notes)
    if labelled:  # the classifier is trained on the run's training data
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


def copied(settings: EvalSettings) -> tuple[ImageSet, Given, list[str]]:
    """Return images from files, the training images that they may copy (all of `reference=`), and notes.

    Raises DataError or ConfigError.
    """
    assert settings.input is not None
    if settings.reference is None or _statistics(settings) is not None:
        raise ConfigError(
            f"input={settings.input}: these metrics search the training images themselves for copies: type"
            " reference=FOLDER with the training images"
        )
    fake = _of_files(replace(settings, reference=None), None)
    samples, there = fake.evaluated[0], fake.evaluated[0].protocol["images"]
    few = f"{samples.n:,} of the {there:,} images of input are evaluated: n={there} evaluates all"
    training = find("reference", settings.reference, settings.sides())
    return samples, training, fake.notes + ([few] if samples.n < there else [])


def unchanged(sampler: Sampler) -> DataSet:
    """Return the run's training data. Raises MetricError if they have changed."""
    found = data_set(sampler.config["dataset"], sampler.config.get("game") or {})
    if found.fingerprint != sampler.facts.fingerprint:
        raise MetricError(
            f"the data set {found.name} has changed since the run was trained on it"
            f" ({sampler.facts.differences(DataFacts.of(found))}): type dataset.root=PATH with the original data,"
            " or reference=FOLDER"
        )
    return found


def _real(settings: EvalSettings, given: Given, n: int) -> tuple[ImageSet, list[str]]:
    """Return the requested number of real images from files, and notes about their number."""
    if settings.n_real is not None and settings.n_real > len(given):
        raise MetricError(
            f"n_real={settings.n_real}: reference={settings.reference} has {len(given)} images: type a smaller n_real,"
            " or null"
        )
    count, notes = _count(settings, "reference", len(given), n)
    return given.images(count, settings.seed), notes


def _count(settings: EvalSettings, name: str, there: int, n: int) -> tuple[int, list[str]]:
    """Return the number of real images, and a note if it is smaller than requested or omits many images."""
    if settings.n_real is not None:
        return settings.n_real, []
    if n < settings.count() and there > n:
        return n, [f"{n:,} of the {there:,} images of {name} are used, as many as there are samples:"
                   f" n_real={there} uses all"]  # fmt: skip
    return enough(name, there, n)


def _unlike(*sides: tuple[Given, ImageSet]) -> list[str]:
    """Return notes about skipped and resized files; both sides share a note if it is the same."""
    said: dict[str, list[str]] = {}
    for given, images in sides:
        for text in filter(None, (*given.left_out, given.resizing(images.shape))):
            said.setdefault(text, []).append(given.key)
    return [f"{' and '.join(keys)}: {text}" for text, keys in said.items()]
