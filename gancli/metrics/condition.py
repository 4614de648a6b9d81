"""Whether D uses the condition: its logits of true pairs against those of pairs with exchanged conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from gancli.draw.given import Rows
from gancli.errors import MetricError
from gancli.games.critic import Critic
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric
from gancli.train.streams import data_set

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

CHUNK = 32


@dataclass
class Condition(RunMetric):
    """How much D's mean logit drops if the conditions of true pairs are exchanged.

    condition: the drop; condition_error: its standard error over pairs; condition_true, condition_exchanged: both
    means. Each pair gets the condition of the next one in the order of the seed. split: held-out or training rows.
    """

    name: ClassVar[str] = "condition"
    better: ClassVar[Mapping[str, Better]] = {
        "condition": "high",
        "condition_error": "neither",
        "condition_true": "neither",
        "condition_exchanged": "neither",
    }
    asks_critic: ClassVar[bool] = True
    split: Literal["held_out", "train"] = "held_out"

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a D that judges single images."""
        critic = next(iter(sampler.game.judging()), None)
        if critic is None or len(critic.images) < 2 or set(critic.columns) != set(critic.images):
            raise MetricError(
                "metrics=condition needs a D that judges pairs, and this one judges single images: leave it out of"
                " metrics"
            )

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Compute the drop over n pairs, or over all if there are fewer."""
        critic = next(iter(sampler.game.judging()))
        rows = sampler.rows
        if self.split == "train":
            rows = Rows(data_set(sampler.config["dataset"], sampler.config["game"]))
        there = min(len(rows.source(name)[0]) for name in critic.columns)
        count = min(n, there)
        if count < 2:
            raise MetricError("metrics=condition exchanges conditions and needs at least two pairs: give more rows")
        pairs = [(seed, k) for k in range(count)]
        columns = {name: rows.take(name, pairs) for name in critic.columns}
        moved = {name: x if name == critic.sample else x.roll(-1, 0) for name, x in columns.items()}
        logits = [_logits(critic, given, sampler, progress) for given in (columns, moved)]
        drop = (logits[0] - logits[1]).double()
        values = {"condition": float(drop.mean()), "condition_error": float(drop.std() / count**0.5)}
        values |= {"condition_true": float(logits[0].mean()), "condition_exchanged": float(logits[1].mean())}
        return Findings(values, {"condition_pairs": count})

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The split of the pairs, and what is exchanged."""
        return {"split": self.split, "exchanged": "each pair has the condition of the next one"}


def _logits(critic: Critic, columns: Mapping[str, torch.Tensor], sampler: Sampler, progress: Progress) -> torch.Tensor:
    """Return D's mean logit of each row, [n] on the CPU."""
    rows = [columns[name] for name in critic.columns]
    found = []
    for start in range(0, len(rows[0]), CHUNK):
        part = [x[start : start + CHUNK].to(sampler.compute.device) for x in rows]
        found.append(critic.said(*part).float().cpu())
        progress("pairs", start + len(part[0]), len(rows[0]))
    return torch.cat(found)
