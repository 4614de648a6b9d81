"""Metrics of a conditional run by class: FID within each class, and a classifier trained on samples only (CAS)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gancli.config.settings import at_least
from gancli.data.pixels import eight
from gancli.data.source import Source, order, table
from gancli.errors import DataError, MetricError
from gancli.metrics.classifier import VERSION, obtain, split, taught
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Fid
from gancli.metrics.images import ImageSet, Progress, extract, from_source, shape_of
from gancli.metrics.metric import Better, named
from gancli.metrics.run_metric import (
    FeatureRunMetric,
    Findings,
    RunMetric,
    data,
    refuse_unlabelled,
    training_data,
)

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


@dataclass(frozen=True)
class FidPerClass(FeatureRunMetric):
    """Intra-FID: the FID within each class, and their mean over classes (Miyato, Koyama 2018, section 5).

    per_class: samples of each class; null: n divided by the number of classes. The same number of real images is used,
    or all of the class if it has fewer.
    """

    name: ClassVar[str] = "fid_per_class"
    better: ClassVar[Mapping[str, Better]] = {"fid_per_class": "low"}
    per_class: int | None = None

    def __post_init__(self) -> None:
        at_least(2, **{"metrics.fid_per_class.per_class": self.per_class})

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Samples of each class; null: n divided by the number of classes."""
        return {"per_class": self.per_class}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run without classes."""
        refuse_unlabelled(sampler, self.name)

    def measure(self, extractor: Extractor | None, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return the mean under the metric's name; the FID and the image counts of each class in the details."""
        assert extractor is not None
        each = self.per_class or n // len(sampler.classes)
        if each < 2:
            raise MetricError(
                f"metrics=fid_per_class divides n={n} among {len(sampler.classes)} classes and needs two samples of"
                f" each: type n={2 * len(sampler.classes)} or more"
            )
        source = training_data(sampler, self.name)
        name = named(self.name, extractor)
        values: dict[str, float] = {}
        counts: dict[str, list[int]] = {}
        left_out: list[str] = []
        fewest = each
        for number, title in enumerate(sampler.classes):
            rows = np.flatnonzero(source.labels == number)
            if len(rows) < 2:
                left_out.append(title)
                continue
            real = from_source(source.only(rows), each, seed)
            fake = _of_class(sampler, each, seed, number)
            a, b = (extract(s, extractor, progress, f"class {title}") for s in (fake, real))
            values[title] = next(iter(Fid().score(a, b, extractor).values()))
            counts[title] = [fake.n, real.n]
            fewest = min(fewest, real.n)
        if not values:
            raise MetricError("metrics=fid_per_class needs a class with at least two real images")
        mean = sum(values.values()) / len(values)
        notes = [note.replace("fid:", f"{name}, in each class:", 1) for note in Fid().check(extractor, each, fewest)]
        if left_out:
            shown = ", ".join(left_out[:5]) + (f" and {len(left_out) - 5} more" if len(left_out) > 5 else "")
            notes.append(
                f"{name}: the mean is over {len(values)} of {len(sampler.classes)} classes; {shown}: fewer than two"
                " real images"
            )
        short = [title for title, (_, real) in counts.items() if real < each]
        if short:
            notes.append(
                f"{name}: {len(short)} classes have fewer than {each} real images; the {each} samples are compared with"
                " those there are (images_by_class)"
            )
        details = {f"{name}_by_class": values, "images_by_class": counts, "classes_left_out": left_out}
        return Findings({name: mean}, details, notes=[*notes, *extractor.notes()])


def _of_class(sampler: Sampler, n: int, seed: int, number: int) -> ImageSet:
    """Return n samples of one class."""
    return ImageSet(n, shape_of(sampler.field), lambda: sampler.samples(n, seed, number))


@dataclass(frozen=True)
class Cas(RunMetric):
    """Classification accuracy score (CAS): a classifier trained on samples only, evaluated on real images.

    It measures whether samples have the features that distinguish the classes, and their variety: a classifier trained
    on few poses fails on the others. The baseline is the same classifier trained on real images. samples: how many are
    drawn to train on. images: training images of each classifier, counted with repeats. The real images are those of
    the test split if the data set has one, else the fifth held out from the baseline's training. Source: Ravuri,
    Vinyals 2019, section 3.
    """

    name: ClassVar[str] = "cas"
    better: ClassVar[Mapping[str, Better]] = {"cas": "high", "cas_real": "neither"}
    samples: int = 10_000
    images: int = 60_000

    def __post_init__(self) -> None:
        at_least(2, **{"metrics.cas.samples": self.samples})
        at_least(1, **{"metrics.cas.images": self.images})

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The classifier's architecture and its training set."""
        kind = f"five convolutions, version {VERSION}"
        return {"classifier": kind, "samples": self.samples, "images": self.images}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run without classes."""
        refuse_unlabelled(sampler, self.name)

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return cas, and cas_real of the baseline on the same real images; cas_by_class in the details."""
        source = training_data(sampler, self.name)
        images, labels, notes = self._test(sampler, source)
        drawn = list(sampler.labelled_samples(self.samples, seed))
        content, asked = (torch.cat(part).numpy() for part in zip(*drawn, strict=True))
        made = table("samples", eight(content), asked, source.classes, flip=source.flip)
        fake = taught(made, self.images, progress)
        real = obtain(source, self.images, progress)
        right = (fake.predict(images) == labels).double()
        by_class = {c: float(right[labels == k].mean()) for k, c in enumerate(source.classes) if (labels == k).any()}
        scores = {"cas": float(right.mean()), "cas_real": float((real.predict(images) == labels).double().mean())}
        return Findings(scores, {"cas_by_class": by_class, "cas_images": len(labels)}, notes=notes)

    def _test(self, sampler: Sampler, source: Source) -> tuple[Tensor, Tensor, list[str]]:
        """Return held-out real images and labels, and a note if they are not from a test split."""
        try:
            test = data(sampler, "test", self.name)
        except (MetricError, DataError):  # the data set has no such split, or it is not on this machine
            kept = source.rows(split(source)[1].numpy())
            note = f"cas: {source.name} has no test images: evaluated on {len(kept['y']):,} of its training images"
            return kept["x"], kept["y"], [f"{note} that neither classifier was trained on"]
        rows = test.rows(order(len(test), "cas"))
        return rows["x"], rows["y"], []
