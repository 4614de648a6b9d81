"""Test errors of a discriminator that classifies, as in semi-supervised GANs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from gancli.errors import MetricError
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric, critic_of, data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

CHUNK = 1000


@dataclass
class Errors(RunMetric):
    """Misclassified images of the whole test split, by the EMA of D if there is one."""

    name: ClassVar[str] = "errors"
    better: ClassVar[Mapping[str, Better]] = {"errors": "low", "error_rate": "low"}
    asks_critic: ClassVar[bool] = True

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a D without class outputs."""
        if not getattr(critic_of(sampler), "names_classes", False):
            raise MetricError("metrics=errors counts test errors of a D that classifies: train with game=semisup")

    @torch.no_grad()
    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return errors, a count, and error_rate."""
        D = critic_of(sampler)
        assert D is not None
        test = data(sampler, "test", self.name)
        wrong = 0
        for start in range(0, len(test), CHUNK):
            rows = test.rows(np.arange(start, min(start + CHUNK, len(test))))
            x = test.fields["x"].ready(rows["x"].to(sampler.compute.device))
            wrong += int((D(x).classes.argmax(1).cpu() != rows["y"]).sum())
            progress("test images", start + len(x), len(test))
        return Findings({"errors": float(wrong), "error_rate": wrong / len(test)}, {"test_images": len(test)})
