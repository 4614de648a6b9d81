"""What a discriminator says of a batch of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Verdict:
    """A discriminator's answer for one source (real, fake, ...).

    logits: [B] or [B, ...] (patches); a list where D judges at several scales.
    classes: [B, classes] logits of an auxiliary classifier, or None.
    features: D's inner activations, each [B, ...], or None.
    codes: [B, ...] what a further head reads out of a sample, such as the code that it was made of, or None.
    """

    logits: Tensor | list[Tensor]
    classes: Tensor | None = None
    features: list[Tensor] | None = None
    codes: Tensor | None = None

    def split(self, sizes: Sequence[int]) -> list[Verdict]:
        """Undo the joining of several sources into one batch: one verdict for each of `sizes` rows."""

        def cut(tensor: Tensor) -> list[Tensor]:
            return list(torch.split(tensor, list(sizes)))

        def cut_each(tensors: list[Tensor]) -> list[list[Tensor]]:
            return [list(parts) for parts in zip(*map(cut, tensors), strict=True)]

        logits = cut_each(self.logits) if isinstance(self.logits, list) else cut(self.logits)
        classes = cut(self.classes) if self.classes is not None else None
        features = cut_each(self.features) if self.features is not None else None
        codes = cut(self.codes) if self.codes is not None else None
        return [
            Verdict(
                logits[k],
                classes[k] if classes else None,
                features[k] if features else None,
                codes[k] if codes else None,
            )
            for k in range(len(sizes))
        ]

    def scales(self) -> list[Tensor]:
        """The logits as a list, one entry a scale, in float32 at least: losses are not averaged in half precision."""
        scales = self.logits if isinstance(self.logits, list) else [self.logits]
        return [s.float() if s.dtype in (torch.float16, torch.bfloat16) else s for s in scales]

    def scores(self) -> Tensor:
        """One number an image, [B]: the mean over patches, the sum over scales."""
        scales = [s.flatten(1).mean(1) if s.dim() > 1 else s for s in self.scales()]
        return scales[0] if len(scales) == 1 else torch.stack(scales).sum(0)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Sum of scalars or equal shapes, without the integer 0 that `sum` starts from."""
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
