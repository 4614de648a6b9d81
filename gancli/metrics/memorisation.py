"""Memorisation: the share of samples that copy training images, and a sheet of samples and nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gancli.augment.transforms import flip
from gancli.config.settings import at_least
from gancli.data.source import order
from gancli.draw.charts import Panel, chart
from gancli.draw.pictures import Pixels, sheet, with_names
from gancli.errors import ConfigError
from gancli.metrics.images import ImageSet
from gancli.metrics.metric import Better, named
from gancli.metrics.neighbours import beside_training, nearest
from gancli.metrics.run_metric import Findings
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images, picked, told

COMPARED, BINS = 5000, 40
LISTED, SHOWN = 1000, 5  # copies in the results, and in the printed line
# Of the length of a feature vector: below it two images are equal. A batch of another size changes rounding by 1e-5.
EQUAL = 1e-4

Images = tuple[Tensor, Tensor | None]  # features of images, and of the mirrored images


@dataclass(frozen=True)
class Judged:
    """Samples beside the training images, [N] each.

    ratio: the distance to the nearest training image, relative to that image's own nearest; a copy has 0; a new image
    of the data distribution has about 1, in dense and in sparse regions. distance, row: to the image, and its number.
    mirrored: whether that image is the nearest when mirrored. equal: whether it has the sample's features. copied:
    whether the sample is judged a copy.
    """

    ratio: Tensor
    distance: Tensor
    row: Tensor
    mirrored: Tensor
    equal: Tensor
    copied: Tensor

    @property
    def share(self) -> float:
        """The share of copies."""
        return float(self.copied.double().mean())


def judged(samples: Tensor, training: Tensor, bar: float, mirrored: Tensor | None = None) -> Judged:
    """Judge samples [N, D]: a copy has a ratio below `bar`, or the features of an image of `training` [M, D].

    mirrored: features of the training images mirrored left to right, [M, D], of which samples may be copies, too; the
    ratio's scale is always that of the images as they are.

    >>> found = judged(torch.tensor([[0.5], [10.0], [18.0]]), torch.tensor([[0.0], [1.0], [10.0], [14.0]]), 0.6)
    >>> found.ratio.tolist(), found.copied.tolist()
    ([0.5, 0.0, 1.0], [True, True, False])
    """
    distance, apart, row, is_mirrored = beside_training(samples, training, mirrored)
    ratio, length = _share(distance, apart), training[row].norm(dim=1)
    if mirrored is not None:
        length = torch.where(is_mirrored, mirrored[row].norm(dim=1), length)
    equal = distance <= EQUAL * length
    return Judged(ratio, distance, row, is_mirrored, equal, (ratio < bar) | equal)


@dataclass(frozen=True)
class Among:
    """Training images beside each other: `left_out` of at most `COMPARED` of them, and `bar`, a quantile of ratios."""

    ratio: Tensor
    distance: Tensor
    bar: float


def among_training(training: Tensor, quantile: float) -> Among:
    """Return the ratios of training images [M, D], and the ratio that a share `quantile` of them are below."""
    rows = torch.from_numpy(order(len(training), "memorisation")[:COMPARED])
    ratio, distance = left_out(training, rows)
    return Among(ratio, distance, float(ratio.quantile(quantile)))


def left_out(training: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return ratios and distances of training images, each against all others (leave-one-out): [len(rows)] twice.

    >>> left_out(torch.tensor([[0.0], [1.0], [3.0]]), torch.arange(3))[0].tolist()
    [0.5, 0.3333333432674408, 2.0]
    """
    distance, row = (part[:, 1] for part in _others(training, rows, 2))
    # The neighbour's own nearest without this image: its second if this image is its first.
    there, where = torch.unique(row, return_inverse=True)
    distances, numbers = _others(training, there, 3)
    first_is_this = numbers[where, 1] == rows
    return _share(distance, torch.where(first_is_this, distances[where, 2], distances[where, 1])), distance


def nearer_share(samples: Tensor, training: Images, unseen: Images) -> float:
    """Return the share of samples nearer to a training image than to any of as many unseen ones; ties count half.

    training, unseen: features of the images, and of the mirrored ones, which are searched, too; None: they are not.

    >>> sides = (torch.tensor([[0.0], [4.0]]), None), (torch.tensor([[6.0], [9.0]]), None)
    >>> nearer_share(torch.tensor([[0.1], [5.0], [9.0]]), *sides)
    0.5
    """
    count = min(len(training[0]), len(unseen[0]))
    chosen = torch.from_numpy(order(len(training[0]), "memorisation")[:count])
    seen, fresh = (
        nearest(samples, torch.cat([part[rows] for part in images if part is not None]), 1)[0][:, 0]
        for images, rows in ((training, chosen), (unseen, torch.arange(count)))
    )
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

    A sample counts as a copy if its ratio (`Judged`) is below the q-quantile of the leave-one-out ratios of training
    images; of new images of the data distribution a share of q would be. A sample with a training image's features is a
    copy, also of an image that the data hold twice. Of a run whose data were mirrored at random (dataset.flip) the
    mirrored training images are searched, too, and details say which were the nearest; the leave-one-out ratios and the
    scale of each ratio remain those of the images as they are, without the mirrored ones. The details list the copies,
    the first of them with their numbers and files and those of the nearest training images. The run is flagged if the
    share of copies is above `limit`. Each distance is relative to its own neighbourhood, so a generator that draws only
    typical images, from dense regions, does not count as copying; nor does an untrained one, whose samples are far from
    all images. Copies with noise are far from all images, too: if dataset.limit excluded images from training, as many
    of them are searched as well, and the run is flagged if more than a share `nearer` of the samples, instead of half,
    are nearer to training images. Sources: Meehan et al. 2020 (the comparison with unseen images), Alaa et al. 2022,
    section 3.3 (the scale by the neighbour).

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
        mirrored, samples = sides.of_mirrored_training(self.images), sides.of_samples()
        among = among_training(training, self.quantile)
        found = judged(samples, training, among.bar, mirrored)
        values, nearer = {named(self.name, extractor): found.share}, 0.5
        fresh = sides.excluded(len(training))
        if fresh is not None:
            nearer = nearer_share(samples, (training, mirrored), sides.of_excluded(fresh))
            values[named("nearer_to_training", extractor)] = nearer
        listed = _listed(found, sides.samples, train)
        details = {
            "memorised": found.share > self.limit or nearer > self.nearer,
            "memorisation_rule": self._rule(among.bar, sides.flipped),
            "nearest_ratio_median": {"samples": float(found.ratio.median()), "data": float(among.ratio.median())},
            "nearest_distance_median": {
                "samples": float(found.distance.median()),
                "data": float(among.distance.median()),
            },
            **sides.searched(len(training)),
            "copies": listed,
        }
        notes = [*_found(listed), *extractor.notes()]
        if train.mixed or sides.samples.mixed:
            return Findings(values, details, notes=[*notes, "memorisation: no sheet of images of different sizes"])
        bank = training if mirrored is None else torch.cat([training, mirrored])
        page = _stacked(self._page(sides.samples, train, found.ratio, samples, bank), _charts(found, among))
        return Findings(values, details, {self.name: page}, notes)

    def _rule(self, bar: float, flipped: bool) -> str:
        """Return a sentence on what is judged a copy, and when a run is flagged."""
        either = ", mirrored or not" if flipped else ""
        return (
            f"a copy has a ratio below {bar:.4f}, the {self.quantile:g}-quantile of real images, or a training image's"
            f" features{either}; flagged if the share of copies is above {self.limit:g} (new images: {self.quantile:g})"
            f" or if more than {self.nearer:g} of the samples are nearer to training images than to as many excluded"
            " from training"
        )

    def _page(self, samples: ImageSet, train: ImageSet, ratio: Tensor, features: Tensor, bank: Tensor) -> Pixels:
        """Draw the sheet. bank: features of the training images, then those of the mirrored ones, if any."""
        rows = _chosen(ratio, self.rows)
        numbers = nearest(features[rows], bank, min(self.neighbours, len(bank)))[1]
        row, own = numbers.flatten(), picked(samples, rows)
        neighbours = flip(picked(train, row % train.n), row >= train.n)
        channels = max(own.shape[1], neighbours.shape[1])  # files may be grey on one side only
        return _sheet(
            own.expand(-1, channels, -1, -1),
            neighbours.expand(-1, channels, -1, -1).reshape(*numbers.shape, channels, *own.shape[2:]),
            [f"{ratio[r]:.2f}" for r in rows],
        )


def _listed(found: Judged, samples: ImageSet, train: ImageSet) -> dict[str, Any]:
    """Return how many copies were found, and the first of them with their training images, as plain JSON values."""
    first = _nearest_first(found.ratio, found.copied, found.equal)
    listed = [
        {
            "sample": told(samples, k),
            "training_image": told(train, int(found.row[k])),
            "mirrored": bool(found.mirrored[k]),
            "ratio": float(found.ratio[k]),
            "distance": float(found.distance[k]),
            "equal_features": bool(found.equal[k]),
        }
        for k in first[:LISTED].tolist()
    ]
    return {"found": len(first), "equal_features": int(found.equal.sum()), "nearest_first": listed}


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


def _charts(found: Judged, among: Among) -> Pixels:
    """Draw the histograms of ratios and of distances."""
    return chart(
        [
            _histogram("relative distance to the nearest", found.ratio, among.ratio, among.bar),
            _histogram("distance to the nearest", found.distance, among.distance, None),
        ]
    )


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
