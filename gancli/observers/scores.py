"""Metrics of the averaged generator during training."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from gancli.config.build import make
from gancli.config.compose import compose
from gancli.config.settings import SAMPLES
from gancli.data.source import Source
from gancli.draw.given import Rows
from gancli.draw.sampling import Sampler
from gancli.errors import CombinationError, ConfigError, MetricError
from gancli.games.game import draws_freely, sample_of
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor, flattered
from gancli.metrics.images import ImageSet, enough, from_sampler, from_source, shape_of
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric, PairMetric
from gancli.metrics.outputs import from_rows, look_back, made_of_rows, reference, refuse_classes, refuse_pairs, table_of
from gancli.metrics.results import finished
from gancli.metrics.run_metric import FeatureRunMetric, RunMetric
from gancli.observers.drawn import stream_of
from gancli.observers.extractors import ExtractorChoice, ReadsFeatures, words
from gancli.observers.observer import Event, Keep, RunView, Say, Scored, Values
from gancli.observers.options import refuse_options
from gancli.observers.sampled import sampler_of

OWN = frozenset({"metrics", "n", "extractor", "standing_stats"})  # keys that gan eval and the observer share


class Scores(ReadsFeatures):
    """Every `every` steps (null: never), `metrics` of `n` samples of the averaged generator; then a checkpoint.

    n: null: 1000, or all held-out rows of the first direction if the game has inputs.

    The results equal those of `gan eval` on that checkpoint with the same keys: they are written with their protocol to
    the run's eval/, where observers.checkpoints.best reads them, and as a row of metrics.jsonl. metrics, extractor:
    names of choices of those groups. weights: the extractor's file. options: further keys metrics.* and extractor.* of
    gan eval, such as metrics.kid.subset_size=500. With several ranks each processes its share. Raises ConfigError for
    a wrong name or key, CombinationError for metrics that do not fit the data.
    """

    everywhere: ClassVar[bool] = True

    def __init__(
        self,
        every: int | None = None,
        metrics: Sequence[str] = ("kid",),
        n: int | None = None,
        extractor: str = "inception",
        weights: str | None = None,
        standing_stats: int | None = None,
        options: Sequence[str] = (),
    ):
        if (every is not None and every < 1) or (n is not None and n < 2) or (standing_stats or 0) < 0 or not metrics:
            raise ConfigError(
                "observers.scores: every must be at least 1 or null, n at least 2 or null, standing_stats at least 0,"
                f" and metrics not empty, got every={every} n={n} standing_stats={standing_stats}"
                f" metrics={list(metrics)}"
            )
        refuse_options("observers.scores", options, OWN)
        self.every, self.n, self.standing_stats = every, n, standing_stats
        self._evaluator: Evaluator | None = None
        self._rows: Rows | None = None
        self._warned = False  # whether a warning about the extractor was printed
        self._notes: list[str] = []
        keys = [f"metrics=[{','.join(metrics)}]", *options, *words(extractor, weights)]
        self._metrics: list[Metric] = []
        self._extractor: Extractor | None = None
        if every is not None:  # raises for missing weights or packages before anything is written
            self._load(compose("eval", keys))

    def _load(self, config: Mapping[str, Any]) -> None:
        self._metrics = [make(node, f"metrics.{name}") for name, node in config["metrics"].items() if node]
        for metric in self._metrics:
            if isinstance(metric, (RunMetric, FeatureRunMetric)):
                raise CombinationError(f"observers.scores.metrics: {metric.name} needs a finished run: use gan eval")
        if any(metric.needs_extractor() for metric in self._metrics):
            self.chosen = ExtractorChoice("observers.scores", config["extractor"])
            self._extractor = self.chosen.load()
        if not self._metrics:
            raise ConfigError("observers.scores.options removes all metrics: type observers.scores.metrics=[kid]")

    def results(self) -> tuple[str, ...]:
        """Return the names of its results, in the order of its metrics; () if it is off."""
        return tuple(name for metric in self._metrics for name in metric.results(self._extractor))

    @property
    def _compares(self) -> bool:
        return any(metric.compares for metric in self._metrics)

    def refuse(self, view: RunView) -> None:
        """Raises MetricError if samples are not images or a metric does not apply, ConfigError if n is too large."""
        if self.every is not None and view.steps:
            shape_of(sample_of(view.engine.game)[1])
            view.refuse_many("scores.n", self.n or SAMPLES)
            game = view.engine.game
            if not draws_freely(game, game.directions()[0]):
                self._refuse(self._sampler(view))
            elif of_pairs := [metric.name for metric in self._metrics if isinstance(metric, PairMetric)]:
                raise MetricError(
                    f"observers.scores.metrics: {of_pairs[0]} needs a game with input images, and this one has none:"
                    " use fid or kid"
                )

    def open(self, view: RunView) -> None:
        """Load the real images to compare with, and move networks to the device."""
        if self.every is None or not view.steps:
            return
        if self._extractor is not None:
            self._extractor.to(view.engine.compute.device)
        sampler = self._sampler(view)
        real, source = self._real(view, sampler)
        self._evaluator = Evaluator(self._metrics, real, self._extractor, source, intervals=True)
        for metric in self._evaluator.by_pair:
            metric.begin(view.engine.compute.device)

    def _real(self, view: RunView, sampler: Sampler) -> tuple[ImageSet | None, Source]:
        """Return the real images to compare with, and the training data of that domain. Raises GanError if missing."""
        if made_of_rows(sampler):
            self._refuse(sampler)
            feeds = {feed: stream.source for feed, stream in view.engine.streams.items()}
            self._notes = sampler.notes
            looks = any(m.compares or isinstance(m, ImageMetric) for m in self._metrics)
            return reference(sampler) if looks else None, table_of(feeds, sampler.column)
        found = stream_of(view, sample_of(view.engine.game)[0])
        if found is None:
            raise CombinationError(
                "observers.scores compares samples with real images, and this run's data have none: type"
                " observers.scores.every=null"
            )
        source = found[0].source
        count, self._notes = enough(source.name, len(source), self._count(sampler))
        return from_source(source, count, 0, split=view.config["dataset"].get("split")), source

    def _refuse(self, sampler: Sampler) -> None:
        """Load the rows that samples are made from. Raises MetricError if a metric needs something they lack."""
        self._rows = sampler.rows
        refuse_pairs(sampler, [metric for metric in self._metrics if isinstance(metric, PairMetric)])
        for metric in self._metrics:
            if isinstance(metric, LabelMetric):
                refuse_classes(sampler, metric.name)

    def _count(self, sampler: Sampler) -> int:
        """Return the number of samples, as in gan eval."""
        return self.n or sampler.most or SAMPLES

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a result, its row and a checkpoint when they are due."""
        if self._evaluator is None or self.every is None or not view.due(self.every):
            return
        result = self.evaluated(view, self._evaluator)
        for line in flattered(view.engine.game.pretrained, self._extractor) if not self._warned else ():
            yield Say(f"scores: {line}")
        self._warned = True
        yield Scored(result)
        yield Values({"step": view.step, "seen": view.seen} | {k: v for k, v in result.items() if isinstance(v, float)})
        yield Keep(None)

    @torch.no_grad()
    def evaluated(self, view: RunView, evaluator: Evaluator) -> dict[str, Any]:
        """Evaluate copies of the networks, so that the run does not change; returns the result with its protocol."""
        began = time.perf_counter()
        sampler = self._sampler(view)
        n = self._count(sampler)
        of_rows = made_of_rows(sampler)
        fake = (
            from_rows(sampler, n, 0, look_back(self._metrics))
            if of_rows
            else from_sampler(sampler, n, 0, bool(evaluator.by_label))
        )
        result = evaluator.evaluate(fake).as_json()
        if self.chosen is not None and evaluator.samples is not None and self.standing_stats is None and not of_rows:
            self.chosen.keep(view.step, n, evaluator.samples)
        result["warnings"] += self._notes if of_rows or self._compares else []
        result["warnings"] += flattered(view.engine.game.pretrained, self._extractor)
        return finished(result, view.step, time.perf_counter() - began)

    def _sampler(self, view: RunView) -> Sampler:
        """Return the sampler that `gan sample` would use at this step."""
        return sampler_of(view, self.standing_stats, self._rows)
