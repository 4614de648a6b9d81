"""What is evaluated at the end of training: the settings; `gancli.verbs.ending` does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from gancli.compute import ranks
from gancli.config.build import make
from gancli.config.compose import compose
from gancli.config.settings import MOST_EVALUATED, SAMPLES, at_most
from gancli.draw.sampling import Sampler
from gancli.errors import CombinationError, ConfigError, MetricError
from gancli.games.game import sample_of
from gancli.metrics.directions import directed
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.images import from_sampler, from_source, shape_of
from gancli.metrics.metric import LabelMetric, Metric
from gancli.metrics.outputs import made_of_rows
from gancli.metrics.refusals import parted, refuse_run
from gancli.observers.drawn import stream_of
from gancli.observers.extractors import ExtractorChoice, ReadsFeatures, words
from gancli.observers.observer import Observer, RunView
from gancli.observers.options import refuse_options
from gancli.observers.sampled import sampler_of

OWN = frozenset({"metrics", "n", "extractor"})  # keys that gan eval and the observer share


class Final(ReadsFeatures):
    """`metrics` (null: none) of the best checkpoint, once the training has ended: by steps, max_time or an observer.

    The results are those of `gan eval checkpoint=best` with the same metrics, n and options. They are printed as a
    table and written to the run's eval/. A run that a signal ends is not evaluated, but it is when resumed. extractor,
    weights, options: as in observers.scores, whose results choose the best checkpoint and whose network is shared.
    Metrics that `gan eval` would refuse for this run are refused before the first step. Raises ConfigError for a wrong
    name or key.
    """

    everywhere: ClassVar[bool] = True  # all ranks evaluate together

    def __init__(
        self,
        metrics: Sequence[str] | None = None,
        n: int | None = None,
        extractor: str = "inception",
        weights: str | None = None,
        options: Sequence[str] = (),
    ):
        if (n is not None and n < 2) or (metrics is not None and not metrics):
            raise ConfigError(
                "observers.final: n must be at least 2 or null, and metrics not empty or null, got"
                f" n={n} metrics={None if metrics is None else list(metrics)}"
            )
        at_most(MOST_EVALUATED, **{"observers.final.n": n})
        refuse_options("observers.final", options, OWN)
        self.n = n
        self.evaluation: dict[str, Any] | None = None  # the configuration of `gan eval`; None: nothing is evaluated
        self.metrics: list[Metric] = []
        if metrics is None:
            return
        self.evaluation = compose("eval", [f"metrics=[{','.join(metrics)}]", *options, *words(extractor, weights)])
        self.evaluation["n"] = n
        nodes = self.evaluation["metrics"].items()
        self.metrics = [make(node, f"metrics.{name}") for name, node in nodes if node]
        if any(metric.needs_extractor() for metric in self.metrics):
            self.chosen = ExtractorChoice("observers.final", self.evaluation["extractor"])

    def meet(self, others: Sequence[Observer]) -> None:
        """Load the extractor, or share that of another observer.

        Raises WeightsError, and CombinationError if no observer computes results that choose the best checkpoint.
        """
        if self.evaluation is None:
            return
        if not any(directed(name) for other in others for name in other.results()):
            raise CombinationError(
                "observers.final.metrics evaluates the best checkpoint, which observers.scores chooses: type"
                " observers.scores.every=1000, or observers.final.metrics=null"
            )
        if self.chosen is not None:
            self.chosen.load(others)

    def refuse(self, view: RunView) -> None:
        """Raises MetricError for metrics that `gan eval` refuses for this run, ConfigError if n is too large."""
        if self.evaluation is None or not view.steps:
            return
        shape_of(sample_of(view.engine.game)[1])
        view.refuse_many("final.n", self.n or SAMPLES)
        sampler = sampler_of(view, standing_stats=0)  # they take time and cannot fail
        sampler.run = Path("this run")
        try:
            with ranks.one_first():  # data of another split may have to be prepared
                refuse_run(self.metrics, sampler)
                self._refuse_counts(view, sampler)
        except MetricError as error:
            raise MetricError(f"observers.final.metrics: {error}") from error

    def _refuse_counts(self, view: RunView, sampler: Sampler) -> None:
        """Raise MetricError if there are too few samples or real images for a metric of images, or too few inputs."""
        of_images = parted(self.metrics)[1]
        if made_of_rows(sampler):
            n = self.n or sampler.most or SAMPLES
            sampler.given([(0, n - 1)])  # raises for more rows than there are
        elif of_images and (found := stream_of(view, sampler.column)) is not None:
            n, source = self.n or SAMPLES, found[0].source
            real = from_source(source, min(n, len(source)), 0)
            labelled = any(isinstance(metric, LabelMetric) for metric in of_images)
            extractor = None if self.chosen is None else self.chosen.load()
            Evaluator(of_images, real, extractor, source).check(from_sampler(sampler, n, 0, labelled))
