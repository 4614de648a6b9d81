"""Linear probe: accuracy of a linear classifier on D's features, as in the DCGAN paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.data.fields import Image
from gancli.data.source import Source, order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric, critic_of, data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

CHUNK, POOLED = 256, 4


@dataclass
class LinearProbe(RunMetric):
    """Test accuracy of a linear SVM on features of D (Radford et al. 2016, section 5.1).

    Every convolution's activations are max-pooled to 4×4, flattened and concatenated, as in the paper; those of dense
    layers are used unchanged. limit: how many training and test images at most. cost: the SVM's C.
    """

    name: ClassVar[str] = "linear_probe"
    better: ClassVar[Mapping[str, Better]] = {"linear_probe": "high"}
    asks_critic: ClassVar[bool] = True
    limit: int = 10_000
    cost: float = 0.01

    def __post_init__(self) -> None:
        if self.limit < 2 or not self.cost > 0:
            raise ConfigError(
                f"metrics.linear_probe.limit={self.limit}, cost={self.cost:g}: type a limit of at least 2 and a cost"
                " above 0"
            )

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """How many images, and the SVM's cost."""
        return {"limit": self.limit, "cost": self.cost}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run without classes, a packed D, a D of points, or a conditional D."""
        if not sampler.facts.classes:
            raise MetricError(f"metrics=linear_probe needs classes and {sampler.facts.name} has none")
        if any(critic.pack > 1 for critic in sampler.game.judging()) or not isinstance(sampler.field, Image):
            raise MetricError("metrics=linear_probe needs a D of single images: leave it out of metrics")
        if getattr(critic_of(sampler), "conditional", False):
            raise MetricError(
                "metrics=linear_probe predicts labels from D's features, and this D has the labels as input: train"
                " without classes"
            )

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return linear_probe, the accuracy on test images."""
        try:
            from sklearn.svm import LinearSVC  # type: ignore[import-untyped]
        except ImportError:
            raise MetricError("metrics=linear_probe needs scikit-learn: type pip install scikit-learn") from None
        train, test = (data(sampler, split, self.name) for split in ("train", "test"))
        rows = [order(len(s), "probe", seed)[: self.limit] for s in (train, test)]
        features = [embed(sampler, s, r, progress) for s, r in zip((train, test), rows, strict=True)]
        mean, scale = features[0].mean(0), features[0].std(0) + 1e-6
        svm = LinearSVC(C=self.cost, dual=False, tol=1e-3, random_state=0)
        progress("linear SVM", 0, 1)
        svm.fit(((features[0] - mean) / scale).numpy(), train.labels[rows[0]])
        share = svm.score(((features[1] - mean) / scale).numpy(), test.labels[rows[1]])
        counts = {"probe_features": features[0].shape[1], "probe_images": [len(r) for r in rows]}
        return Findings({"linear_probe": float(share)}, counts)


@torch.no_grad()
def embed(sampler: Sampler, source: Source, rows: np.ndarray[Any, np.dtype[np.int64]], progress: Progress) -> Tensor:
    """Return D's features of images, float32 [n, features] on the CPU."""
    D = critic_of(sampler)
    assert D is not None
    caught: list[Tensor] = []

    def catch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        pooled = F.adaptive_max_pool2d(output, POOLED) if output.dim() == 4 and output.shape[2] > POOLED else output
        caught.append(pooled.flatten(1).float())

    hooks = [m.register_forward_hook(catch) for m in activations(D)]
    parts = []
    try:
        for start in range(0, len(rows), CHUNK):
            caught.clear()
            images = source.rows(rows[start : start + CHUNK])["x"]
            D(source.fields["x"].ready(images.to(sampler.compute.device)))
            parts.append(torch.cat(caught, 1).cpu())
            progress("features", start + len(images), len(rows))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat(parts)


def activations(D: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs are features: activation modules, else residual blocks, else layers.

    Raises MetricError if there are none of these.
    """
    kinds = (nn.LeakyReLU, nn.ReLU, nn.Tanh, nn.Softplus)
    named = ("Maxout", "Activation", "Softplus")
    found = [m for m in D.modules() if isinstance(m, kinds) or type(m).__name__ in named]
    found = found or list(getattr(D, "blocks", [])) or list(getattr(D, "layers", []))
    if not found:
        raise MetricError("metrics=linear_probe finds no layers in this discriminator: leave it out of metrics")
    return found
