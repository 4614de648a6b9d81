"""The output of discriminators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """A discriminator's output for one source (real, fake, ...).

    logits: [B] or [B, ...] (patches); a list if D judges at several scales.
    classes: [B, classes] logits of an auxiliary classifier, or None.
    features: D's inner activations, each [B, ...], or None.
    codes: [B, ...] output of another head, such as an estimate of the latent code, or None.
    direction: the logits again, but with a gradient for the last layer's direction only (SAN), or None.
    """

    logits: Tensor | list[Tensor]
    classes: Tensor | None = None
    features: list[Tensor] | None = None
    codes: Tensor | None = None
    direction: Tensor | list[Tensor] | None = None

    def split(self, sizes: Sequence[int]) -> list[Verdict]:
        """Split the output for several sources in one batch: one verdict for each of `sizes` rows."""

        def cut(tensor: Tensor) -> list[Tensor]:
            return list(torch.split(tensor, list(sizes)))

        def cut_each(tensors: list[Tensor]) -> list[list[Tensor]]:
            return [list(parts) for parts in zip(*map(cut, tensors), strict=True)]

        def cut_scales(scales: Tensor | list[Tensor]) -> Sequence[Tensor | list[Tensor]]:
            return cut_each(scales) if isinstance(scales, list) else cut(scales)

        logits = cut_scales(self.logits)
        classes = cut(self.classes) if self.classes is not None else None
        features = cut_each(self.features) if self.features is not None else None
        codes = cut(self.codes) if self.codes is not None else None
        direction = cut_scales(self.direction) if self.direction is not None else None
        return [
            Verdict(
                logits[k],
                classes[k] if classes else None,
                features[k] if features else None,
                codes[k] if codes else None,
                direction[k] if direction else None,
            )
            for k in range(len(sizes))
        ]

    def along(self) -> Verdict:
        """The same with the logits that have a gradient for the direction only (SAN)."""
        assert self.direction is not None, "a discriminator without SAN"
        return replace(self, logits=self.direction)

    def scales(self) -> list[Tensor]:
        """The logits as a list, one entry per scale, in float32 at least: losses are not averaged in half precision."""
        scales = self.logits if isinstance(self.logits, list) else [self.logits]
        return [s.float() if s.dtype in (torch.float16, torch.bfloat16) else s for s in scales]

    def scores(self) -> Tensor:
        """One number per image, [B]: the mean over patches, the sum over scales."""
        scales = [s.flatten(1).mean(1) if s.dim() > 1 else s for s in self.scales()]
        return scales[0] if len(scales) == 1 else torch.stack(scales).sum(0)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Sum of tensors of equal shape, without the integer 0 that `sum` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def mean_over_scales(terms: Sequence[Tensor]) -> Tensor:
    """Mean of one number for each of D's scales.

    >>> mean_over_scales([torch.tensor(1.0), torch.tensor(4.0)]).item()
    2.5
    """
    return sum_of(terms) / len(terms)


def mean_logit(scales: Sequence[Tensor]) -> Tensor:
    """Mean of all logits, each scale with the same weight, detached."""
    return sum_of([s.detach().mean() for s in scales]) / len(scales)


def with_logits(verdicts: Mapping[str, Verdict], **logits: list[Tensor]) -> dict[str, Verdict]:
    """Replace the logits of each source by a list of scales; an empty list leaves a source unchanged."""
    changed = {name: replace(verdicts[name], logits=scales) for name, scales in logits.items() if scales}
    return {**verdicts, **changed}
