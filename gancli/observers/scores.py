"""Metrics of the averaged generator while it trains."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from gancli.assemble import DataFacts
from gancli.build import make
from gancli.config import compose
from gancli.errors import CombinationError, ConfigError
from gancli.observers.observer import Event, Keep, Observer, Row, RunView, Scored
from gancli.sampling import Sampler, settle

if TYPE_CHECKING:
    from gancli.metrics.evaluation import Evaluator


class Scores(Observer):
    """Every `every` steps (null: never), `metrics` of `n` samples of the averaged generator; then a checkpoint.

    What `gan eval` says of that checkpoint with the same keys: results with their protocol are kept in the run's eval/,
    from where observers.checkpoints.best chooses, and a row of metrics.jsonl has the numbers. metrics, extractor: names
    of choices of those groups. weights: the extractor's file. options: further keys of gan eval, such as
    metrics.kid.subset_size=500. Of several ranks each draws and looks at its share. Raises ConfigError for a wrong name
    or key, CombinationError for metrics that do not fit the data.
    """

    everywhere: ClassVar[bool] = True

    def __init__(
        self,
        every: int | None = None,
        metrics: Sequence[str] = ("kid",),
        n: int = 1000,
        extractor: str = "inception",
        weights: str | None = None,
        standing_stats: int = 16,
        options: Sequence[str] = (),
    ):
        if (every is not None and every < 1) or n < 2 or standing_stats < 0 or not metrics:
            raise ConfigError(
                "observers.scores: every is at least 1 or null, n at least 2, standing_stats at least 0, and metrics"
                f" names one at least, not every={every} n={n} standing_stats={standing_stats} metrics={list(metrics)}"
            )
        self.every, self.n, self.standing_stats = every, n, standing_stats
        self._evaluator: Evaluator | None = None
        keys = [f"metrics=[{','.join(metrics)}]", f"extractor={extractor}", *options]
        keys += [f"extractor.weights='{weights}'"] if weights is not None else []
        self._config = compose("eval", keys) if every is not None else {}

    def open(self, view: RunView) -> None:
        """Load the extractor before the first step, so that what it lacks is said then."""
        if self.every is not None and view.steps:
            self._evaluator = self._prepared(view)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """A result, its row and a checkpoint, when they are due."""
        if (
            self._evaluator is None
            or self.every is None
            or not view.due(self.every)
            or not (view.logs or view.step == 0)
        ):
            return
        result = self.judged(view, self._evaluator)
        yield Scored(result)
        yield Row({"step": view.step, "seen": view.seen} | {k: v for k, v in result.items() if isinstance(v, float)})
        yield Keep(None)

    @torch.no_grad()
    def judged(self, view: RunView, evaluator: Evaluator) -> dict[str, Any]:
        """The result with its protocol, from copies: judging leaves no trace in the run."""
        from gancli.metrics.images import from_sampler
        from gancli.metrics.results import finished

        began = time.perf_counter()
        sampler = self._sampler(view)
        result = evaluator.judge(from_sampler(sampler, self.n, 0, bool(evaluator.by_label))).as_json()
        return finished(result, view.step, time.perf_counter() - began)

    def _prepared(self, view: RunView) -> Evaluator:
        from gancli.metrics.evaluation import Evaluator
        from gancli.metrics.images import from_source
        from gancli.metrics.metric import LabelMetric
        from gancli.metrics.run_metric import RunMetric

        source = view.engine.streams["real"].source
        chosen = [make(node, f"metrics.{name}") for name, node in self._config["metrics"].items() if node]
        for metric in chosen:
            if isinstance(metric, RunMetric):
                raise CombinationError(
                    f"observers.scores.metrics: {metric.name} looks into a finished run; use gan eval"
                )
        extractor = None
        if not all(isinstance(m, LabelMetric) for m in chosen):
            extractor = make(self._config["extractor"], "extractor")
            extractor.to(view.engine.compute.device)
        real = from_source(source, min(self.n, len(source)), 0)
        return Evaluator(chosen, real, extractor, source)

    def _sampler(self, view: RunView) -> Sampler:
        """The generator as `gan sample` would draw with it at this step."""
        engine = view.engine
        nets, averaged = engine.networks(), bool(engine.averages)
        passes = self.standing_stats if averaged else 0
        G = nets["G"]
        nets["G"] = settle(G, engine.game, engine.compute, passes) if passes else copy.deepcopy(G).eval()
        sampler = Sampler(engine.game, nets, DataFacts.of(engine.streams["real"].source), engine.compute)
        sampler.run, sampler.step = view.folder, view.step
        sampler.about = {"ema": averaged, "standing_stats": passes, "seen": view.seen}
        return sampler
