"""Does a generator copy its training images? Its samples beside their nearest ones, and a number that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gancli.config.settings import at_least
from gancli.data.fields import Image
from gancli.data.source import Source, order
from gancli.draw.charts import Panel, chart
from gancli.draw.pictures import Pixels, sheet, with_names
from gancli.errors import ConfigError, MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import Progress, extract, from_sampler, from_source
from gancli.metrics.metric import Better, named
from gancli.metrics.neighbours import nearest
from gancli.metrics.run_metric import FeatureRunMetric, Findings, kept_out, training_data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

LEAST, COMPARED, BINS = 10, 5000, 40


def ratios(samples: Tensor, training: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How near samples are to training images, told by how near training images are to each other there.

    samples [N, D], training [M, D] -> the ratio [N] of the distance to the nearest training image and that image's
    distance to its own nearest neighbour; then the distances [N] and the images' numbers [N]. A copy has 0; a fresh
    image of the data has about 1, in dense and in empty regions alike.

    >>> training = torch.tensor([[0.0], [1.0], [10.0], [14.0]])
    >>> ratios(torch.tensor([[0.5], [10.0], [18.0]]), training)[0].tolist()
    [0.5, 0.0, 1.0]
    """
    distance, row = (part[:, 0] for part in nearest(samples, training, 1))
    there, where = torch.unique(row, return_inverse=True)
    apart = nearest(training[there], training, 2)[0][:, 1]
    return _share(distance, apart[where]), distance, row


def left_out(training: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """`ratios` and distances of training images themselves, each held against all the others: [len(rows)] twice.

    >>> left_out(torch.tensor([[0.0], [1.0], [3.0]]), torch.arange(3))[0].tolist()
    [0.5, 0.3333333432674408, 2.0]
    """
    distance, row = (part[:, 1] for part in _others(training, rows, 2))
    # The neighbour's own nearest, were this image not there: its second where this one is its first.
    there, where = torch.unique(row, return_inverse=True)
    distances, numbers = _others(training, there, 3)
    first_is_this = numbers[where, 1] == rows
    return _share(distance, torch.where(first_is_this, distances[where, 2], distances[where, 1])), distance


def nearer_share(samples: Tensor, training: Tensor, unseen: Tensor) -> float:
    """The share of samples nearer to a training image than to any of as many unseen ones; half of those in between.

    >>> nearer_share(torch.tensor([[0.1], [5.0], [9.0]]), torch.tensor([[0.0], [4.0]]), torch.tensor([[6.0], [9.0]]))
    0.5
    """
    count = min(len(training), len(unseen))
    chosen = torch.from_numpy(order(len(training), "memorisation")[:count])
    seen, fresh = (nearest(samples, images, 1)[0][:, 0] for images in (training[chosen], unseen[:count]))
    return float(((seen < fresh).double() + 0.5 * (seen == fresh).double()).mean())


def _others(training: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`nearest` of training images, with each itself in the first place even where another is equal to it."""
    distance, number = nearest(training[rows], training, k)
    at = (number == rows[:, None]).int().argmax(1)  # 0, too, where more than k are equal
    swap = torch.arange(len(rows))
    number[swap, at] = number[:, 0].clone()
    number[:, 0] = rows
    return distance, number


def _share(distance: Tensor, scale: Tensor) -> Tensor:
    """distance / scale, and 1 where both are 0: among equal images an equal one is nothing special."""
    return torch.where((distance == 0) & (scale == 0), torch.ones_like(distance), distance / scale.clamp_min(1e-12))


@dataclass(frozen=True)
class Memorisation(FeatureRunMetric):
    """The share of samples nearer to a training image than real images are to each other; the nearest, as a sheet.

    A sample counts as a copy when its ratio (`ratios`) is below the q-quantile of the ratios of training images held
    against the others, one by one: of fresh images of the data a share of q would be. The run is flagged where the
    share of copies is above `limit`. Because each distance is measured by its own neighbourhood, a generator that draws
    typical images only, where the data lie dense, is not taken for one that copies; and because bad samples are far
    from everything, an untrained one is not either. Copies with noise are far from everything, too: where dataset.limit
    kept images from the run, as many of them are searched as well, and the run is flagged where more than `nearer` of
    the samples have their nearest image among those it was trained on, instead of half. Sources: Meehan et al. 2020
    (the comparison with fresh images), Alaa et al. 2022, section 3.3 (the scale of the neighbour).

    quantile: q. limit: share of copies from which the run is flagged. rows: of the sheet, half of them the most
    suspicious samples, half the first drawn. neighbours: training images in each row. images: training images that are
    searched, at most; null: all.
    """

    name: ClassVar[str] = "memorisation"
    # Neither: a share of copies is 0 for noise, too.
    better: ClassVar[Mapping[str, Better]] = {"memorisation": "neither", "nearer_to_training": "neither"}
    quantile: float = 0.05
    limit: float = 0.2
    nearer: float = 0.75
    rows: int = 16
    neighbours: int = 7
    images: int | None = None

    def __post_init__(self) -> None:
        for key, value in (("quantile", self.quantile), ("limit", self.limit), ("nearer", self.nearer)):
            if not 0 < value < 1:
                raise ConfigError(f"metrics.memorisation.{key}={value:g}: a share above 0 and below 1")
        at_least(1, **{"metrics.memorisation.rows": self.rows, "metrics.memorisation.neighbours": self.neighbours})
        at_least(LEAST, **{"metrics.memorisation.images": self.images})

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The rule: quantile, limit, and how many training images were searched at most."""
        return {"quantile": self.quantile, "limit": self.limit, "nearer": self.nearer, "images": self.images}

    def refuse(self, found: Sampler) -> None:
        """Raises MetricError for a run of points, or of fewer than ten images."""
        if not isinstance(found.field, Image):
            raise MetricError("metrics=memorisation looks at images; for points use metrics=[modes,divergences]")
        if len(training_data(found, self.name)) < LEAST:
            raise MetricError(f"metrics=memorisation needs at least {LEAST} training images to tell near from far")

    def measure(self, extractor: Extractor | None, found: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """memorisation: the share of copies; `memorised`, the verdict, in the details; memorisation.png."""
        assert extractor is not None
        source = training_data(found, self.name)
        real_set = from_source(source, self.images, 0)
        training = extract(real_set, extractor, progress, "training images")
        fake_set = from_sampler(found, n, seed)
        samples = extract(fake_set, extractor, progress, "memorisation: samples")
        ratio, distance, _ = ratios(samples, training)
        evaluated = torch.from_numpy(order(len(training), "memorisation")[:COMPARED])
        bar_ratio, bar_distance = left_out(training, evaluated)
        bar = float(bar_ratio.quantile(self.quantile))
        share = float((ratio < bar).double().mean())
        values, nearer = {named(self.name, extractor): share}, 0.5
        fresh = kept_out(found, source)
        if fresh is not None:
            as_many = from_source(fresh, min(len(training), len(fresh)), 0)
            unseen = extract(as_many, extractor, progress, "images kept from the run")
            nearer = nearer_share(samples, training, unseen)
            values[named("nearer_to_training", extractor)] = nearer
        details = {
            "memorised": share > self.limit or nearer > self.nearer,
            "memorisation_rule": f"a copy has a ratio below {bar:.4f}, the {self.quantile:g}-quantile of real images'; "
            f"flagged above a share of {self.limit:g}, expected of fresh images {self.quantile:g}, or where over"
            f" {self.nearer:g} of the samples are nearer to training images than to as many kept from the run",
            "nearest_ratio_median": {"samples": float(ratio.median()), "data": float(bar_ratio.median())},
            "nearest_distance_median": {"samples": float(distance.median()), "data": float(bar_distance.median())},
            "training_images": len(training),
        }
        rows = _chosen(ratio, self.rows)
        numbers = nearest(samples[rows], training, min(self.neighbours, len(training)))[1]
        everything = torch.cat(list(fake_set.chunks()))[rows]
        page = _sheet(everything, _images(source, real_set.n, numbers), [f"{ratio[r]:.2f}" for r in rows])
        charts = chart(
            [
                _histogram("relative distance to the nearest", ratio, bar_ratio, bar),
                _histogram("distance to the nearest", distance, bar_distance, None),
            ]
        )
        return Findings(values, details, {"memorisation": _stacked(page, charts)}, extractor.notes())


def _chosen(ratio: Tensor, rows: int) -> Tensor:
    """Half the rows: the nearest samples, the nearest first; the rest: the first drawn."""
    near = ratio.argsort(stable=True)[: (rows + 1) // 2]
    others = torch.arange(len(ratio))
    return torch.cat([near, others[~torch.isin(others, near)][: rows - len(near)]])


def _images(source: Source, n: int, numbers: Tensor) -> Tensor:
    """Training images [R, k, C, H, W] by their numbers among the n that `from_source` takes."""
    taken = np.sort(order(len(source), 0, "evaluation")[:n])
    images = source.rows(taken[numbers.flatten().numpy()])["x"]
    return images.reshape(*numbers.shape, *images.shape[1:])


def _sheet(samples: Tensor, neighbours: Tensor, names: list[str]) -> Pixels:
    """A row a sample: its ratio, the sample, a line, its nearest training images."""
    right = sheet(neighbours.flatten(0, 1), neighbours.shape[1])
    left = sheet(samples, 1)
    line = np.full((len(left), 6, 3), 255, np.uint8)
    line[:, 2:4] = 0
    return with_names(np.concatenate([left, line, right], 1), names)


def _histogram(title: str, samples: Tensor, real: Tensor, bar: float | None) -> Panel:
    """Shares of samples and of real images by value, the latter each held against the others."""
    top = float(torch.cat([samples, real]).quantile(0.99)) or 1.0
    edges = torch.linspace(0, top, BINS + 1)

    def steps(values: Tensor) -> list[tuple[float, float]]:
        counts = torch.histc(values.clamp(0, top), BINS, 0, top) / len(values)
        return [(float(x), float(c)) for k, c in enumerate(counts) for x in (edges[k], edges[k + 1])]

    curves = {"samples": steps(samples), "real, left out": steps(real)}
    if bar is not None:
        high = max(y for curve in curves.values() for _, y in curve)
        curves["below: a copy"] = [(bar, 0.0), (bar, high)]
    return Panel(title, curves)


def _stacked(above: Pixels, below: Pixels) -> Pixels:
    """Two pictures, one over the other, on white."""
    width = max(above.shape[1], below.shape[1])
    page = np.full((len(above) + len(below), width, 3), 255, np.uint8)
    page[: len(above), : above.shape[1]] = above
    page[len(above) :, : below.shape[1]] = below
    return page
