"""What is evaluated at the end of training: the settings; `gancli.verbs.ending` does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from gancli.config.build import make
from gancli.config.compose import compose
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import sample_of
from gancli.metrics.directions import directed
from gancli.metrics.images import shape_of
from gancli.metrics.metric import Metric
from gancli.observers.extractors import ExtractorChoice, ReadsFeatures, words
from gancli.observers.observer import Observer, RunView


class Final(ReadsFeatures):
    """`metrics` (null: none) of the best checkpoint, once the training has ended: by steps, max_time or an observer.

    The results are those of `gan eval checkpoint=best` with the same metrics, n and options. They are printed as a
    table and written to the run's eval/. A run that a signal ends is not evaluated, but it is when resumed. extractor,
    weights, options: as in observers.scores, whose results choose the best checkpoint and whose network is shared.
    Raises ConfigError for a wrong name or key.
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
        """Raises MetricError if samples are not images."""
        if self.evaluation is not None and view.steps:
            shape_of(sample_of(view.engine.game)[1])
