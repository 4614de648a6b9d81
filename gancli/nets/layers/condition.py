"""How labels reach a network: beside a generator's latent or through its norms; into a discriminator or its verdict."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.layers.norms import LabelBatchNorm2d, LinearBatchNorm2d, Norm, norm
from gancli.nets.layers.recipe import Recipe
from gancli.nets.verdict import Verdict

Conditioning = Literal["none", "input", "hidden", "ac", "projection"]
Labels = Literal["norm", "input"]
SkipZ = Literal["none", "split", "whole"]
HIDDEN_WIDTH = 128  # of the embedding that "hidden" joins to D's features (Miyato and Koyama 2018, released code)


class Condition(nn.Module):
    """What each part of a generator hears of the latent and the label.

    labels: "none"; "input", a one-hot vector beside z (Mirza and Osindero 2014); "norm", gains and biases of the norms.
    shared: width of one embedding that all norms are linear in; 0: each norm looks up its own (Miyato and Koyama 2018).
    skip_z: "split" gives the first layer and each part an equal chunk of z, "whole" all of z and of the embedding to
    all (Brock et al. 2019, figure 15 and appendix B). Raises ConfigError where these do not go together.
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
            raise ConfigError("model.skip_z=true needs norms that are linear: set model.shared=128, or skip_z=false")
        if skip_z == "split" and latent_dim % (parts + 1):
            raise ConfigError(
                f"model.latent.dim={latent_dim}: model.skip_z cuts z into {parts + 1} equal chunks here:"
                f" set a multiple of {parts + 1}, or null"
            )
        self.classes, self.labels, self.skip_z, self.parts = classes, labels, skip_z, parts
        # The table itself is not spectrally normalised in G, nor orthogonally regularised: only what reads it is.
        plain = Recipe(init=recipe.init)
        self.embed = plain.embedding(classes, shared) if by_norm and shared else None
        self.chunk = latent_dim // (parts + 1) if skip_z == "split" else latent_dim
        heard = (shared if self.embed is not None else 0) + (self.chunk if skip_z != "none" else 0)
        self.width = heard  # of what a linear norm reads
        self.first = heard if skip_z == "whole" else self.chunk + (classes if labels == "input" else 0)
        self._recipe = recipe

    def norm(self, eps: float, momentum: float) -> Norm:
        """The norms of the parts that hear a condition."""
        if self.width:
            return lambda channels: LinearBatchNorm2d(channels, self.width, self._recipe, eps=eps, momentum=momentum)
        if self.labels == "norm":
            return lambda channels: LabelBatchNorm2d(channels, self.classes, eps=eps, momentum=momentum)
        return norm("batch", eps=eps, momentum=momentum)

    def forward(self, z: Tensor, y: Tensor | None) -> tuple[Tensor, list[Tensor | None]]:
        """z [B, latent_dim] and labels -> what the first layer reads, [B, first], and what each part hears."""
        if self.labels == "norm" and self.embed is None:
            return z, [y] * self.parts
        embedded = None if self.embed is None or y is None else self.embed(y)
        if self.skip_z == "whole":
            heard = z if embedded is None else torch.cat([z, embedded.to(z.dtype)], 1)
            return heard, [heard] * self.parts
        chunks = list(torch.split(z, self.chunk, 1)) if self.skip_z == "split" else [z]
        first = chunks[0]
        if self.labels == "input" and y is not None:
            first = torch.cat([first, shares(y, self.classes, first)], 1)
        if self.skip_z == "none":
            return first, [embedded] * self.parts
        return first, [c if embedded is None else torch.cat([c, embedded.to(c.dtype)], 1) for c in chunks[1:]]


def shares(y: Tensor, classes: int, like: Tensor) -> Tensor:
    """Labels [B] as one-hot rows [B, classes]; a mixture of classes as it is."""
    return (y if y.is_floating_point() else F.one_hot(y, classes)).to(like.dtype)


class Judge(nn.Module):
    """The end of a discriminator: features summed over pixels, a dense logit, and what it says of the class.

    "projection" adds the inner product with the label's embedding (Miyato and Koyama 2018, eq. 3), "ac" a classifier
    (Odena et al. 2017); otherwise y is ignored here.
    """

    def __init__(self, width: int, classes: int, conditioning: Conditioning, recipe: Recipe, *, bias: bool = True):
        super().__init__()
        self.logit = recipe.linear(width, 1, bias=bias)
        self.embed = recipe.embedding(classes, width) if conditioning == "projection" else None
        self.classifier = recipe.linear(width, classes) if conditioning == "ac" else None

    def forward(self, features: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B] and, of an auxiliary classifier, classes [B, classes]."""
        summed = features.sum((2, 3))
        logits = self.logit(summed).squeeze(1)
        if self.embed is not None:
            assert y is not None, "a projection discriminator without labels"
            logits = logits + (self.embed(y) * summed).sum(1)
        return Verdict(logits, None if self.classifier is None else self.classifier(summed), [summed])


def need_classes(conditioning: Conditioning, classes: int) -> bool:
    """Whether a network is conditional. Raises ConfigError where it should be and the data have no classes."""
    if conditioning != "none" and classes < 1:
        raise ConfigError(
            f"model.conditioning={conditioning} needs labels and this data set has no classes:"
            " set model.conditioning=none, or take a data set with classes"
        )
    return conditioning != "none"
