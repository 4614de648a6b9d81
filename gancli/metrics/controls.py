"""Baselines without training for translated images: the input, the mean target, the nearest input's target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gancli.data.columns import Index
from gancli.data.source import DataSet, Source, feeds_of
from gancli.draw.given import Rows
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.images import ImageSet, Progress, Shown
from gancli.metrics.outputs import beside, in_parts, input_of, inputs_of, levels_of, table_of

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

LARGEST = 64  # the shorter side, in pixels, of inputs that are compared with each other: larger ones are downsampled
CHUNK = 256  # rows per batch
WHAT = {
    "copy": "the input itself, of which it all comes back",
    "mean": "the mean of the training rows' targets, in each pixel",
    "nearest": f"the partner of the training input nearest in pixels, these averaged down to {LARGEST} a side at most",
}


class Controls:
    """The controls of a direction, for n rows in the order of `seed`. training: loads the run's training data.

    notes: which controls are missing, and why.
    """

    def __init__(self, sampler: Sampler, n: int, seed: int, training: Callable[[], DataSet], progress: Progress):
        self.sampler, self.n, self.seed, self.progress = sampler, n, seed, progress
        self._training = training
        self.notes: list[str] = []

    def sets(self, pairs: bool) -> Iterator[tuple[str, ImageSet]]:
        """Yield the name and the images of each control. pairs: whether to include those that only PairMetrics use."""
        copies = self._copy()
        if copies is not None:
            yield "copy", copies
        if not pairs or self.sampler.target is None:
            return
        data = self._training()
        targets = table_of(feeds_of(data), self.sampler.target)
        mean = self._mean(targets)
        yield "mean", self._set(lambda numbers, given: mean.expand(len(numbers), -1, -1, -1))
        if not Rows(data).aligned:
            self.notes.append("controls: training rows are not paired, so there is no _nearest")
            return
        name = input_of(self.sampler)
        assert name is not None
        nearest = self._nearest(table_of(feeds_of(data), name))
        yield "nearest", self._set(lambda numbers, given: targets.rows(nearest[numbers], columns=["x"])["x"])

    def _copy(self) -> ImageSet | None:
        """Return the unchanged inputs, greyscale repeated to the outputs' channels; None, with a note, if they differ.

        They differ if their shape or levels are not those of the outputs.
        """
        name, field = input_of(self.sampler), self.sampler.field
        assert name is not None
        accepted = self.sampler.game.input_fields(self.sampler.direction)[name]
        grey = accepted.shape[0] == 1 and accepted.shape[1:] == field.shape[1:]
        if (accepted.shape != field.shape and not grey) or levels_of(accepted) != levels_of(field):
            self.notes.append(f"controls: inputs are {accepted.told} and outputs {field.told}, so there is no _copy")
            return None
        return self._set(lambda numbers, given: given.expand(-1, field.shape[0], -1, -1), back=True)

    def _set(self, made: Callable[[Index, Tensor], Tensor], back: bool = False) -> ImageSet:
        """Return the set of one control.

        made: from row numbers and inputs to the images that replace the outputs, as saved. back: use the inputs as
        their own reconstructions.
        """

        def part(start: int, stop: int) -> Shown:
            pairs = [(self.seed, k) for k in range(start, stop)]
            given = inputs_of(self.sampler, pairs)
            shown = made(np.arange(start, stop), given)
            return beside(self.sampler, start, pairs, given, shown, given if back else None)

        return in_parts(self.sampler, self.n, self.seed, part)

    def _mean(self, targets: Source) -> Tensor:
        """Return the mean target, as saved, [C, H, W]."""
        total = torch.zeros(targets.shape, dtype=torch.float64)
        for start in range(0, len(targets), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(targets)))
            total += targets.rows(rows, columns=["x"])["x"].double().sum(0)
            self.progress("controls: mean target", int(rows[-1]) + 1, len(targets))
        return (total / len(targets)).round().to(targets.rows(rows[:1], columns=["x"])["x"].dtype)

    def _nearest(self, inputs: Source) -> Index:
        """Return the row number of the training input nearest to each input, int64 [n]."""
        numbers = range(0, self.n, CHUNK)
        parts = [[(self.seed, k) for k in range(start, min(start + CHUNK, self.n))] for start in numbers]
        wanted = torch.cat([_small(inputs_of(self.sampler, pairs)) for pairs in parts])
        best, found = torch.full((self.n,), float("inf")), torch.zeros(self.n, dtype=torch.int64)
        for start in range(0, len(inputs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(inputs)))
            there = _small(inputs.rows(rows, columns=["x"])["x"])
            # By differences, not by a matrix product, so that an equal image has a distance of exactly 0.
            distance, at = torch.cdist(wanted, there, compute_mode="donot_use_mm_for_euclid_dist").min(1)
            nearer = distance < best
            best, found = torch.where(nearer, distance, best), torch.where(nearer, at + start, found)
            self.progress("controls: nearest training inputs", int(rows[-1]) + 1, len(inputs))
        return found.numpy()


def _small(stored: Tensor) -> Tensor:
    """Downsample images by area and flatten them, float32 [B, D]."""
    x = stored.float()
    side = min(x.shape[2:])
    if side > LARGEST:
        x = interpolate(x, size=[round(s * LARGEST / side) for s in x.shape[2:]], mode="area")
    return x.flatten(1)


def add(values: dict[str, Any], controls: Controls, evaluator: Evaluator) -> None:
    """Add the evaluator's metrics of the controls to `values`, as NAME_CONTROL.

    Metrics of features and of classes are computed for the copied inputs only: the mean and nearest targets are no
    baseline for them.
    """
    of_outputs = [metric for metric in evaluator.by_pair if metric.wants != "back"]
    by_pair = Evaluator(of_outputs, None, None, progress=evaluator.progress, intervals=evaluator.intervals)
    told = {}
    for name, images in controls.sets(bool(of_outputs)):
        of = evaluator if name == "copy" else by_pair
        found = of.evaluate(images)
        values |= {f"{key}_{name}": value for key, value in found.values.items()}
        if "intervals" in values:
            intervals = found.details.get("intervals", {})
            values["intervals"] |= {f"{key}_{name}": each for key, each in intervals.items()}
        told[name] = WHAT[name]
    values["protocol"]["controls"] = told
    values["warnings"] += controls.notes
