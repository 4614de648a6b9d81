"""Conditioning on labels: of a generator by its latent or its norms, and of a discriminator's output."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.layers.direction import sliced
from gancli.nets.layers.norms import LabelBatchNorm2d, LinearBatchNorm2d, Norm, norm
from gancli.nets.layers.recipe import Recipe
from gancli.nets.verdict import Verdict

Conditioning = Literal["none", "input", "hidden", "ac", "projection"]
Labels = Literal["norm", "input"]
SkipZ = Literal["none", "split", "whole"]
HIDDEN_WIDTH = 128  # of the embedding that "hidden" concatenates (Miyato and Koyama 2018, released code)


class Condition(nn.Module):
    """Computes each generator part's condition from the latent and the label.

    labels: "none"; "input", a one-hot vector concatenated to z (Mirza and Osindero 2014); "norm", conditional gains and
    biases of the norms. shared: width of one embedding, from which all norms compute gain and bias linearly; 0: each
    norm has its own lookup table (Miyato and Koyama 2018). skip_z: "split" gives the first layer and each part an equal
    chunk of z, "whole" gives all of them the whole z and embedding (Brock et al. 2019, figure 15 and appendix B).
    Raises ConfigError for incompatible values.
    """

    def __init__(
        self,
        latent_dim: int,
        classes: int,
        parts: int,
        *,
        labels: Literal["none", "norm", "input"],
        shared: int = 0,
        skip_z: SkipZ = "none",
        recipe: Recipe,
    ):
        super().__init__()
        by_norm = labels == "norm"
        if skip_z != "none" and by_norm and not shared:
            raise ConfigError(
                "model.skip_z=true needs norms that are linear in a shared embedding: set model.shared=128,"
                " or model.skip_z=false"
            )
        if skip_z == "split" and latent_dim % (parts + 1):
            raise ConfigError(
                f"model.latent.dim={latent_dim}: model.skip_z splits z into {parts + 1} equal chunks here:"
                f" set a multiple of {parts + 1}, or null"
            )
        self.classes, self.labels, self.skip_z, self.parts = classes, labels, skip_z, parts
        # In G the table itself has no spectral norm and no orthogonal regularisation; the layers that use it have.
        plain = Recipe(init=recipe.init)
        self.embed = plain.embedding(classes, shared) if by_norm and shared else None
        self.chunk = latent_dim // (parts + 1) if skip_z == "split" else latent_dim
        # Width of the condition of linear norms.
        self.width = (shared if self.embed is not None else 0) + (self.chunk if skip_z != "none" else 0)
        self.first = self.width if skip_z == "whole" else self.chunk + (classes if labels == "input" else 0)
        self._recipe = recipe

    def norm(self, eps: float, momentum: float) -> Norm:
        """The factory of the conditional norms."""
        if self.width:
            return lambda channels: LinearBatchNorm2d(channels, self.width, self._recipe, eps=eps, momentum=momentum)
        if self.labels == "norm":
            return lambda channels: LabelBatchNorm2d(channels, self.classes, eps=eps, momentum=momentum)
        return norm("batch", eps=eps, momentum=momentum)

    def forward(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """z [B, latent_dim] and labels -> input of the first layer, [B, first], and the condition of each part."""
        if self.labels == "norm" and self.embed is None:
            return z, [y] * self.parts
        embedded = None if self.embed is None or y is None else self.embed(y)
        if self.skip_z == "whole":
            joined = z if embedded is None else torch.cat([z, embedded.to(z.dtype)], 1)
            return joined, [joined] * self.parts
        chunks = list(torch.split(z, self.chunk, 1)) if self.skip_z == "split" else [z]
        first = chunks[0]
        if self.labels == "input" and y is not None:
            first = torch.cat([first, shares(y, self.classes, first)], 1)
        if self.skip_z == "none":
            return first, [embedded] * self.parts
        return first, [c if embedded is None else torch.cat([c, embedded.to(c.dtype)], 1) for c in chunks[1:]]


def shares(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels [B] as one-hot rows [B, classes]; a mixture of classes unchanged."""
    return (y if y.is_floating_point() else F.one_hot(y, classes)).to(like.dtype)


class Judge(nn.Module):
    """The head of a discriminator: features summed over pixels, a dense logit, and the use of labels.

    "projection" adds the inner product with the label's embedding (Miyato and Koyama 2018, eq. 3), "ac" a classifier
    (Odena et al. 2017); otherwise y is ignored. san: SAN's last layer (`layers.direction`), without spectral norm; with
    labels a sample's direction is that of the weight plus the embedding.
    """

    def __init__(
        self,
        width: int,
        classes: int,
        conditioning: Conditioning,
        recipe: Recipe,
        *,
        bias: bool = True,
        san: bool = False,
    ):
        super().__init__()
        last = replace(recipe, spectral=recipe.spectral and not san)
        self.san = san
        self.logit = last.linear(width, 1, bias=bias)
        self.embed = last.embedding(classes, width) if conditioning == "projection" else None
        self.classifier = recipe.linear(width, classes) if conditioning == "ac" else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B] and, with "ac", classes [B, classes]."""
        summed = features.sum((2, 3))
        classes = None if self.classifier is None else self.classifier(summed)
        assert self.embed is None or y is not None, "a projection discriminator without labels"
        if self.san:
            weight = self.logit.weight if self.embed is None else self.logit.weight + self.embed(y)
            return sliced(summed, weight, self.logit.bias, classes=classes, features=[summed])
        logits = self.logit(summed).squeeze(1)
        if self.embed is not None:
            logits = logits + (self.embed(y) * summed).sum(1)
        return Verdict(logits, classes, [summed])

    def directions(self) -> list[Tensor]:
        """The weight; none with labels, since directions are then sums."""
        return [self.logit.weight] if self.embed is None else []


def need_classes(conditioning: Conditioning, classes: int) -> bool:
    """Whether a network is conditional. Raises ConfigError if it is and the data have no classes."""
    if conditioning != "none" and classes < 1:
        raise ConfigError(
            f"model.conditioning={conditioning} needs labels, but this data set has no classes:"
            " set model.conditioning=none, or use a data set with classes"
        )
    return conditioning != "none"
