"""Memorisation: the share of samples that copy training images, and a sheet of samples and nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gancli.config.settings import at_least
from gancli.data.source import order
from gancli.draw.charts import Panel, chart
from gancli.draw.pictures import Pixels, sheet, with_names
from gancli.errors import ConfigError
from gancli.metrics.metric import Better, named
from gancli.metrics.neighbours import beside_training, nearest
from gancli.metrics.run_metric import Findings
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images, picked, told

COMPARED, BINS = 5000, 40
LISTED, SHOWN = 1000, 5  # copies in the results, and in the printed line
# Of the length of a feature vector: below it two images are equal. A batch of another size changes rounding by 1e-5.
EQUAL = 1e-4


def ratios(samples: Tensor, training: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return samples' distances to the training images, relative to the training images' own distances nearby.

    samples [N, D], training [M, D] -> the ratio [N] of the distance to the nearest training image and that image's
    distance to its own nearest neighbour; then the distances [N] and the images' numbers [N]. A copy has 0; a new
    image of the data distribution has about 1, in dense and in sparse regions.

    >>> training = torch.tensor([[0.0], [1.0], [10.0], [14.0]])
    >>> ratios(torch.tensor([[0.5], [10.0], [18.0]]), training)[0].tolist()
    [0.5, 0.0, 1.0]
    """
    distance, apart, row = beside_training(samples, training)
    return _share(distance, apart), distance, row


def left_out(training: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return `ratios` and distances of training images, each against all others (leave-one-out): [len(rows)] twice.

    >>> left_out(torch.tensor([[0.0], [1.0], [3.0]]), torch.arange(3))[0].tolist()
    [0.5, 0.3333333432674408, 2.0]
    """
    distance, row = (part[:, 1] for part in _others(training, rows, 2))
    # The neighbour's own nearest without this image: its second if this image is its first.
    there, where = torch.unique(row, return_inverse=True)
    distances, numbers = _others(training, there, 3)
    first_is_this = numbers[where, 1] == rows
    return _share(distance, torch.where(first_is_this, distances[where, 2], distances[where, 1])), distance


def nearer_share(samples: Tensor, training: Tensor, unseen: Tensor) -> float:
    """Return the share of samples nearer to a training image than to any of as many unseen ones; ties count half.

    >>> nearer_share(torch.tensor([[0.1], [5.0], [9.0]]), torch.tensor([[0.0], [4.0]]), torch.tensor([[6.0], [9.0]]))
    0.5
    """
    count = min(len(training), len(unseen))
    chosen = torch.from_numpy(order(len(training), "memorisation")[:count])
    seen, fresh = (nearest(samples, images, 1)[0][:, 0] for images in (training[chosen], unseen[:count]))
    return float(((seen < fresh).double() + 0.5 * (seen == fresh).double()).mean())


def _others(training: Tensor, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return `nearest` of training images, with each image itself first even if another is equal to it."""
    distance, number = nearest(training[rows], training, k)
    at = (number == rows[:, None]).int().argmax(1)  # also 0 if more than k are equal
    swap = torch.arange(len(rows))
    number[swap, at] = number[:, 0].clone()
    number[:, 0] = rows
    return distance, number


def _share(distance: Tensor, scale: Tensor) -> Tensor:
    """Return distance / scale, and 1 if both are 0: an image that is duplicated in the data is not a copy."""
    return torch.where((distance == 0) & (scale == 0), torch.ones_like(distance), distance / scale.clamp_min(1e-12))


@dataclass(frozen=True)
class Memorisation(TrainingMetric):
    """The share of samples nearer to a training image than real images are to each other, and a sheet of the nearest.

    A sample counts as a copy if its ratio (`ratios`) is below the q-quantile of the leave-one-out ratios of training
    images; of new images of the data distribution a share of q would be. A sample with a training image's features is
    a copy, also of an image that the data hold twice. The details list the copies, the first of them with their
    numbers and files and those of the nearest training images. The run is flagged if the share of copies is
    above `limit`. Each distance is relative to its own neighbourhood, so a generator that draws only typical images,
    from dense regions, does not count as copying; nor does an untrained one, whose samples are far from all images.
    Copies with noise are far from all images, too: if dataset.limit excluded images from training, as many of them are
    searched as well, and the run is flagged if more than a share `nearer` of the samples, instead of half, are nearer
    to training images. Sources: Meehan et al. 2020 (the comparison with unseen images), Alaa et al. 2022, section 3.3
    (the scale by the neighbour).

    quantile: q. limit: share of copies above which the run is flagged. rows: of the sheet, half of them the samples
    with the lowest ratio, half the first drawn. neighbours: training images in each row. images: training images to
    search, at most; null: all.
    """

    name: ClassVar[str] = "memorisation"
    # Neither: noise also has a share of copies of 0.
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
                raise ConfigError(f"metrics.memorisation.{key}={value:g}: type a number above 0 and below 1")
        at_least(1, **{"metrics.memorisation.rows": self.rows, "metrics.memorisation.neighbours": self.neighbours})
        check_images(self.name, self.images)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Quantile, limits, and how many training images were searched at most."""
        return {"quantile": self.quantile, "limit": self.limit, "nearer": self.nearer, "images": self.images}

    def compare(self, sides: Compared) -> Findings:
        """Return memorisation, the share of copies; in the details `memorised`, whether it is flagged; the sheet."""
        extractor = sides.extractor
        train, training = sides.of_training(self.images)
        samples = sides.of_samples()
        ratio, distance, row = ratios(samples, training)
        evaluated = torch.from_numpy(order(len(training), "memorisation")[:COMPARED])
        bar_ratio, bar_distance = left_out(training, evaluated)
        bar = float(bar_ratio.quantile(self.quantile))
        equal = distance <= EQUAL * training[row].norm(dim=1)
        copied = (ratio < bar) | equal
        share = float(copied.double().mean())
        values, nearer = {named(self.name, extractor): share}, 0.5
        fresh = sides.excluded(len(training))
        if fresh is not None:
            unseen = sides.of(fresh, "images excluded by dataset.limit")
            nearer = nearer_share(samples, training, unseen)
            values[named("nearer_to_training", extractor)] = nearer
        details: dict[str, Any] = {
            "memorised": share > self.limit or nearer > self.nearer,
            "memorisation_rule": f"a copy has a ratio below {bar:.4f}, the {self.quantile:g}-quantile of real images,"
            f" or a training image's features; flagged if the share of copies is above {self.limit:g} (new images:"
            f" {self.quantile:g}) or if more than {self.nearer:g} of the samples are nearer to training images than to"
            " as many excluded from training",
            "nearest_ratio_median": {"samples": float(ratio.median()), "data": float(bar_ratio.median())},
            "nearest_distance_median": {"samples": float(distance.median()), "data": float(bar_distance.median())},
            "training_images": len(training),
        }
        first = _nearest_first(ratio, copied, equal)
        listed = [
            {
                "sample": told(sides.samples, k),
                "training_image": told(train, int(row[k])),
                "ratio": float(ratio[k]),
                "distance": float(distance[k]),
                "equal_features": bool(equal[k]),
            }
            for k in first[:LISTED].tolist()
        ]
        details["copies"] = {"found": len(first), "equal_features": int(equal.sum()), "nearest_first": listed}
        notes = [*_found(details["copies"]), *extractor.notes()]
        if train.mixed or sides.samples.mixed:
            return Findings(values, details, notes=[*notes, "memorisation: no sheet of images of different sizes"])
        rows = _chosen(ratio, self.rows)
        numbers = nearest(samples[rows], training, min(self.neighbours, len(training)))[1]
        neighbours = picked(train, numbers.flatten())
        own = picked(sides.samples, rows)
        channels = max(own.shape[1], neighbours.shape[1])  # files may be grey on one side only
        page = _sheet(
            own.expand(-1, channels, -1, -1),
            neighbours.expand(-1, channels, -1, -1).reshape(*numbers.shape, channels, *own.shape[2:]),
            [f"{ratio[r]:.2f}" for r in rows],
        )
        charts = chart(
            [
                _histogram("relative distance to the nearest", ratio, bar_ratio, bar),
                _histogram("distance to the nearest", distance, bar_distance, None),
            ]
        )
        return Findings(values, details, {self.name: _stacked(page, charts)}, notes)


def _nearest_first(ratio: Tensor, copied: Tensor, equal: Tensor) -> Tensor:
    """Return the positions of the copies: first those with a training image's features, then by ascending ratio."""
    rows = torch.nonzero(copied).flatten()
    return rows[torch.where(equal, -1.0, ratio)[rows].argsort(stable=True)]


def _found(copies: Mapping[str, Any]) -> list[str]:
    """Return a line that names the first copies; none if there are none."""
    names = [str(one["sample"].get("file", one["sample"]["number"])) for one in copies["nearest_first"][:SHOWN]]
    if not names:
        return []
    more = f" and {copies['found'] - len(names)} more" if copies["found"] > len(names) else ""
    return [
        f"memorisation: {copies['found']} samples are judged copies, of which {copies['equal_features']} have a"
        f" training image's features: {', '.join(names)}{more}; the results list each with its training image"
    ]


def _chosen(ratio: Tensor, rows: int) -> Tensor:
    """Return the sheet's rows: half are the samples of the lowest ratio, ascending; the rest are the first drawn."""
    near = ratio.argsort(stable=True)[: (rows + 1) // 2]
    others = torch.arange(len(ratio))
    return torch.cat([near, others[~torch.isin(others, near)][: rows - len(near)]])


def _sheet(samples: Tensor, neighbours: Tensor, names: list[str]) -> Pixels:
    """Draw a row per sample: its ratio, the sample, a line, its nearest training images."""
    right = sheet(neighbours.flatten(0, 1), neighbours.shape[1])
    left = sheet(samples, 1)
    line = np.full((len(left), 6, 3), 255, np.uint8)
    line[:, 2:4] = 0
    return with_names(np.concatenate([left, line, right], 1), names)


def _histogram(title: str, samples: Tensor, real: Tensor, bar: float | None) -> Panel:
    """Return histograms of samples and of real images, the latter leave-one-out."""
    top = float(torch.cat([samples, real]).quantile(0.99)) or 1.0
    edges = torch.linspace(0, top, BINS + 1)

    def steps(values: Tensor) -> list[tuple[float, float]]:
        counts = torch.histc(values.clamp(0, top), BINS, 0, top) / len(values)
        return [(float(x), float(c)) for k, c in enumerate(counts) for x in (edges[k], edges[k + 1])]

    curves = {"samples": steps(samples), "real, leave-one-out": steps(real)}
    if bar is not None:
        high = max(y for curve in curves.values() for _, y in curve)
        curves["below: a copy"] = [(bar, 0.0), (bar, high)]
    return Panel(title, curves)


def _stacked(above: Pixels, below: Pixels) -> Pixels:
    """Stack two pictures vertically, on white."""
    width = max(above.shape[1], below.shape[1])
    page = np.full((len(above) + len(below), width, 3), 255, np.uint8)
    page[: len(above), : above.shape[1]] = above
    page[len(above) :, : below.shape[1]] = below
    return page
