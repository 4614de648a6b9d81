"""What outputs have to beat and needs no training: the input, the targets' mean, the nearest input's partner."""

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

LARGEST = 64  # pixels at which inputs are compared with each other, at most
CHUNK = 256  # rows at once
WHAT = {
    "copy": "the input itself, of which it all comes back",
    "mean": "the mean of the training rows' targets, in each pixel",
    "nearest": f"the partner of the training input nearest in pixels, these averaged down to {LARGEST} a side at most",
}


class Controls:
    """The controls of a direction, for n rows in the order of `seed`. training: what the run was trained on.

    notes: which there are none of, and why.
    """

    def __init__(self, sampler: Sampler, n: int, seed: int, training: Callable[[], DataSet], progress: Progress):
        self.sampler, self.n, self.seed, self.progress = sampler, n, seed, progress
        self._training = training
        self.notes: list[str] = []

    def sets(self, pairs: bool) -> Iterator[tuple[str, ImageSet]]:
        """Each with its name. pairs: whether those are wanted, too, that only metrics of pairs look at."""
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
            self.notes.append("controls: training rows have no partner, so that there is no _nearest")
            return
        name = input_of(self.sampler)
        assert name is not None
        nearest = self._nearest(table_of(feeds_of(data), name))
        yield "nearest", self._set(lambda numbers, given: targets.rows(nearest[numbers], columns=["x"])["x"])

    def _copy(self) -> ImageSet | None:
        """The inputs as they are, grey ones in colour where outputs are; None where that is no output."""
        name, field = input_of(self.sampler), self.sampler.field
        assert name is not None
        eaten = self.sampler.game.input_fields(self.sampler.direction)[name]
        grey = eaten.shape[0] == 1 and eaten.shape[1:] == field.shape[1:]
        if (eaten.shape != field.shape and not grey) or levels_of(eaten) != levels_of(field):
            self.notes.append(f"controls: inputs are {eaten.told} and outputs {field.told}, so that there is no _copy")
            return None
        return self._set(lambda numbers, given: given.expand(-1, field.shape[0], -1, -1), back=True)

    def _set(self, made: Callable[[Index, Tensor], Tensor], back: bool = False) -> ImageSet:
        """made: what stands in for the outputs of these numbers and inputs, as saved. back: the inputs come back."""

        def part(start: int, stop: int) -> Shown:
            pairs = [(self.seed, k) for k in range(start, stop)]
            given = inputs_of(self.sampler, pairs)
            shown = made(np.arange(start, stop), given)
            return beside(self.sampler, start, pairs, given, shown, given if back else None)

        return in_parts(self.sampler, self.n, self.seed, part)

    def _mean(self, targets: Source) -> Tensor:
        """As saved, [C, H, W]."""
        total = torch.zeros(targets.shape, dtype=torch.float64)
        for start in range(0, len(targets), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(targets)))
            total += targets.rows(rows, columns=["x"])["x"].double().sum(0)
            self.progress("controls: mean target", int(rows[-1]) + 1, len(targets))
        return (total / len(targets)).round().to(targets.rows(rows[:1], columns=["x"])["x"].dtype)

    def _nearest(self, inputs: Source) -> Index:
        """The number of the training input nearest to each input, int64 [n]."""
        numbers = range(0, self.n, CHUNK)
        parts = [[(self.seed, k) for k in range(start, min(start + CHUNK, self.n))] for start in numbers]
        wanted = torch.cat([_small(inputs_of(self.sampler, pairs)) for pairs in parts])
        best, found = torch.full((self.n,), float("inf")), torch.zeros(self.n, dtype=torch.int64)
        for start in range(0, len(inputs), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(inputs)))
            there = _small(inputs.rows(rows, columns=["x"])["x"])
            # Differences, not a product of matrices: an equal image is at a distance of exactly 0.
            distance, at = torch.cdist(wanted, there, compute_mode="donot_use_mm_for_euclid_dist").min(1)
            nearer = distance < best
            best, found = torch.where(nearer, distance, best), torch.where(nearer, at + start, found)
            self.progress("controls: nearest training inputs", int(rows[-1]) + 1, len(inputs))
        return found.numpy()


def _small(stored: Tensor) -> Tensor:
    """Rows of numbers, float32 [B, D], of images averaged down."""
    x = stored.float()
    side = min(x.shape[2:])
    if side > LARGEST:
        x = interpolate(x, size=[round(s * LARGEST / side) for s in x.shape[2:]], mode="area")
    return x.flatten(1)


def add(values: dict[str, Any], controls: Controls, evaluator: Evaluator) -> None:
    """Add what the evaluator's metrics say of the controls to a result of theirs, as NAME_CONTROL.

    Features, and classes, are looked at of the inputs alone: the other controls hold no image worth that.
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
