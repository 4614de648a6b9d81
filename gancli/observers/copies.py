"""The share of samples that copy training images, while training; ends a run whose copies grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.compose import compose
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import draws_freely, sample_of
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.images import extract, from_sampler, from_source, mirrored, shape_of
from gancli.metrics.memorisation import among_training, judged
from gancli.metrics.training_metric import LEAST
from gancli.observers.drawn import stream_of
from gancli.observers.extractors import ExtractorChoice, ReadsFeatures, words
from gancli.observers.observer import Alarm, Event, Observer, RunView, Stop, Values
from gancli.observers.sampled import sampler_of


class Copies(ReadsFeatures):
    """Every `every` steps (null: never), the share of `n` samples of the averaged generator that copy training images.

    A copy is what `gan eval metrics=[memorisation]` counts as one: its distance to the nearest training image, relative
    to that image's own nearest, is below the `quantile` of the training images' leave-one-out ratios, so that of new
    images a share of `quantile` are; or it has a training image's features. Where the data are mirrored at random
    (dataset.flip), the mirrored training images are searched, too. The share is that of `gan eval` with the same n,
    extractor and quantile, and a row of metrics.jsonl. A share above `limit` in `patience` checks in a row ends the
    run, without an error. extractor, weights: as in observers.scores, whose network and whose samples, if they are as
    many, are used again. With several ranks each processes its share. Source: the ratio of Alaa et al. 2022, section
    3.3.
    """

    everywhere: ClassVar[bool] = True

    def __init__(
        self,
        every: int | None = None,
        n: int = 200,
        limit: float = 0.2,
        patience: int = 3,
        quantile: float = 0.05,
        extractor: str = "inception",
        weights: str | None = None,
    ):
        if (every is not None and every < 1) or n < 2 or patience < 1:
            raise ConfigError(
                "observers.copies: every must be at least 1 or null, n at least 2 and patience at least 1, got"
                f" every={every} n={n} patience={patience}"
            )
        for name, value in (("limit", limit), ("quantile", quantile)):
            if not 0 < value < 1:
                raise ConfigError(f"observers.copies.{name}={value:g}: type a number above 0 and below 1")
        self.every, self.n, self.limit, self.patience, self.quantile = every, n, limit, patience, quantile
        self._training, self._bar, self._strikes = torch.empty(0), 0.0, 0
        self._mirrored: Tensor | None = None
        if every is not None:
            config = compose("eval", ["metrics=[memorisation]", *words(extractor, weights)])
            self.chosen = ExtractorChoice("observers.copies", config["extractor"])

    def meet(self, others: Sequence[Observer]) -> None:
        """Load the extractor, or share that of another observer. Raises WeightsError."""
        if self.chosen is not None:
            self.chosen.load(others)

    def refuse(self, view: RunView) -> None:
        """Raises MetricError if samples are not images, CombinationError if they are made from data or data are few."""
        if self.chosen is None or not view.steps:
            return
        game = view.engine.game
        column, field = sample_of(game)
        shape_of(field)
        found = stream_of(view, column)
        off = "type observers.copies.every=null"
        if found is None or not draws_freely(game, game.directions()[0]):
            raise CombinationError(
                f"observers.copies is for samples drawn from latents, and this game has inputs: {off}"
            )
        if len(found[0].source) < LEAST:
            raise CombinationError(
                f"observers.copies needs at least {LEAST} training images, got {len(found[0].source)}: {off}"
            )
        view.refuse_many("copies.n", self.n)

    def open(self, view: RunView) -> None:
        """Compute the training images' features, or read them from the cache, and the ratio below which copies are."""
        if self.chosen is None or not view.steps:
            return
        extractor = self.chosen.load()
        extractor.to(view.engine.compute.device)
        found = stream_of(view, sample_of(view.engine.game)[0])
        assert found is not None
        real = from_source(found[0].source, None, 0)
        self._training, _ = FeatureCache().features(real, extractor, what="training images")
        if found[0].source.flip:
            self._mirrored, _ = FeatureCache().features(mirrored(real), extractor, what="mirrored training images")
        self._bar = World.of_group().from_first(lambda: among_training(self._training, self.quantile).bar)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a row when it is due, though not before the first step: an untrained G copies nothing.

        An alarm for the first share above the limit; Stop after `patience` of them.
        """
        if self.chosen is None or self.every is None or not view.logs or not view.due(self.every):
            return
        share = self.share(view)
        self._strikes = self._strikes + 1 if share > self.limit else 0
        yield Values({"step": view.step, "seen": view.seen, "copies": share})
        many = f"{round(share * self.n)} of {self.n} samples copy training images"
        if self._strikes == 1:
            yield Alarm("copies", f"{many}, above the limit of {self.limit:g}; of new images {self.quantile:g} would")
        if self._strikes >= self.patience:
            yield Stop(
                f"{many}, above observers.copies.limit={self.limit:g} for {self._strikes} checks in a row; the best"
                " checkpoint is the one to use (observers.copies.every=null trains on)"
            )

    @torch.no_grad()
    def share(self, view: RunView) -> float:
        """Return the share of samples that are copies; the samples are those of `gan eval` at this step."""
        assert self.chosen is not None
        samples = self.chosen.samples.get((view.step, self.n))
        if samples is None:
            samples = extract(from_sampler(sampler_of(view), self.n, 0), self.chosen.load())
        return World.of_group().from_first(lambda: judged(samples, self._training, self._bar, self._mirrored).share)

    def state(self) -> dict[str, Any]:
        """Return the number of checks in a row with a share above the limit."""
        return {"strikes": self._strikes}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore that number."""
        self._strikes = int(state["strikes"])
