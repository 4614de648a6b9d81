"""The game of the 2014 GAN and all its kin: G makes images of noise, D tells them from real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Context, Penalty
from gancli.nets.layers.spectral import is_spectral
from gancli.nets.verdict import Verdict
from gancli.rng import Rng
from gancli.settings import at_least


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The distribution of z: `dim` independent numbers, standard normal or uniform on [-1, 1]."""

    dim: int = 128
    kind: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.latent.dim={self.dim}: a latent has at least 1 number")

    def draw(self, rng: Rng, truncation: float | None = None) -> Tensor:
        """Latents, [rows, dim], each number within ± `truncation`.

        A normal number beyond the threshold is not redrawn: all are moved to where they stand in the truncated
        distribution, which has the same law as redrawing (Brock et al. 2019, section 3.1) and keeps images comparable
        between thresholds.
        """
        if self.kind == "uniform":
            return (rng.uniform("z", self.dim) * 2 - 1) * min(1.0, truncation or 1.0)
        z = rng.normal("z", self.dim)
        if truncation is None:
            return z
        share = torch.erf(z.double() / math.sqrt(2)) * math.erf(truncation / math.sqrt(2))
        return (torch.erfinv(share) * math.sqrt(2)).to(z.dtype)


class NoiseGame(Game):
    """D takes `d_steps` moves, then G one on `g_size` times as many images (Goodfellow et al. 2014, algorithm 1).

    Where D names classes too (AC-GAN), both players pay `class_weight` times its cross entropy; D on its real images
    and, with `class_fakes`, on fakes by the class they were asked for (Odena et al. 2017, eq. 3).
    Raises CombinationError where the parts make no sense together.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        *,
        d_steps: int = 1,
        g_size: int = 1,
        class_weight: float = 1.0,
        class_fakes: bool = True,
    ):
        super().__init__()
        if d_steps < 1 or g_size < 1:
            raise ConfigError(f"game.d_steps and game.g_size are at least 1, not {d_steps} and {g_size}")
        at_least(0, **{"game.class_weight": class_weight})
        self.class_weight, self.class_fakes = class_weight, class_fakes
        missing = {"G", "D"} - set(nets)
        if missing:
            raise ConfigError(f"missing key model.{min(missing)}: this game is played by G and D")
        self.nets = nn.ModuleDict(nets)
        self.loss, self.penalties, self.latent, self.classes = loss, dict(penalties), latent, classes
        self.labelled = any(getattr(net, "conditional", False) for net in nets.values())
        self.d_has_batch_norm = any(isinstance(m, _BatchNorm) for m in nets["D"].modules())
        self._refuse_nonsense()
        self.twice = {"D"} if any(p.per_sample for p in self.penalties.values()) else set()

        lazy = {name: p for name, p in self.penalties.items() if p.every > 1}
        self._moves = (
            Move("D", self.discriminator_loss, repeat=d_steps),
            *(
                Move(p.player, self._penalty_loss(name), ("real",) if p.player == "D" else (), every=p.every, name=name)
                for name, p in lazy.items()
            ),
            Move("G", self.generator_loss, feeds=("real",) if loss.needs_real else (), size=g_size),
        )

    def moves(self, seen: int) -> Sequence[Move]:
        """D, the lazy penalties that are due, G: the same at every step."""
        return self._moves

    def latents(self, noise: Rng, **knobs: Any) -> Tensor:
        """z, [rows, latent.dim]; the knob `truncation` bounds its numbers."""
        return self.latent.draw(noise, knobs.get("truncation"))

    def render(self, nets: Mapping[str, nn.Module], latents: Tensor, y: Tensor | None = None, **knobs: Any) -> Tensor:
        """G(z, y)."""
        return nets["G"](latents, y)  # type: ignore[no-any-return]

    def judge(self, rng: Rng, **sources: tuple[Tensor, Tensor | None]) -> dict[str, Verdict]:
        """What D says of each source: one joint pass, or one pass each where batch statistics must not mix them."""
        D = self.nets["D"]
        if self.d_has_batch_norm or len(sources) == 1:
            return {name: D(x, y) for name, (x, y) in sources.items()}
        images, labels = zip(*sources.values(), strict=True)
        y = None if labels[0] is None else torch.cat(labels)
        verdicts = D(torch.cat([x.to(images[0].dtype) for x in images]), y).split([len(x) for x in images])
        return dict(zip(sources, verdicts, strict=True))

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's D side on real images and fresh fakes, and the penalties paid at every step."""
        (x, y), (fake, y_fake) = self._real(batch), self._fakes(rng)
        verdicts = self.judge(rng, real=(x, y), fake=(fake, y_fake))
        real_scales, fake_scales = verdicts["real"].scales(), verdicts["fake"].scales()
        pairs = zip(real_scales, fake_scales, strict=True)
        losses = {"loss_D": sum_of([self.loss.discriminator(r, f) for r, f in pairs]) / len(real_scales)}
        told = [(verdicts["real"], y), (verdicts["fake"], y_fake)][: 2 if self.class_fakes else 1]
        losses |= self._class_loss("class_D", told)
        losses |= self._penalties("D", self._context(x, fake, y, y_fake, rng))
        return Outcome(losses, {"D_real": mean_of(real_scales), "D_fake": mean_of(fake_scales)})

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's G side on fresh fakes."""
        y_fake = self._labels(rng)
        sources = {"fake": (self.nets["G"](self.latents(rng), y_fake), y_fake)}
        if self.loss.needs_real:
            sources["real"] = self._real(batch)
        judged = self.judge(rng, **sources)
        verdicts = {name: verdict.scales() for name, verdict in judged.items()}
        reals = verdicts.get("real", [None] * len(verdicts["fake"]))
        terms = [self.loss.generator(f, r) for f, r in zip(verdicts["fake"], reals, strict=True)]
        losses = {"loss_G": sum_of(terms) / len(terms)} | self._class_loss("class_G", [(judged["fake"], y_fake)])
        return Outcome(losses | self._penalties("G", self._context(None, None, None, y_fake, rng)))

    def after(self, move: Move, stats: Mapping[str, Tensor], carry: Mapping[str, Tensor], rng: Rng, seen: int) -> None:
        """Let D's penalties move its weights back into their allowed set."""
        for penalty in self.penalties.values():
            if penalty.player == move.player:
                penalty.project(self.nets[move.player])

    def _class_loss(self, name: str, told: Sequence[tuple[Verdict, Tensor | None]]) -> dict[str, Tensor]:
        """The auxiliary classifier's cross entropy over some sources, where D has one."""
        terms = [cross_entropy(v.classes.float(), y) for v, y in told if v.classes is not None and y is not None]
        return {name: self.class_weight * sum_of(terms)} if terms and self.class_weight else {}

    def _penalties(self, player: str, context: Context) -> dict[str, Tensor]:
        """What a player pays at every step beside its objective."""
        due = {name: p for name, p in self.penalties.items() if p.player == player and p.every == 1}
        costs = {name: penalty(context) for name, penalty in due.items()}
        return {f"penalty_{name}": due[name].weight * cost for name, cost in costs.items() if cost is not None}

    def _penalty_loss(self, name: str) -> Any:
        penalty = self.penalties[name]

        def loss(batch: Batch, rng: Rng) -> Outcome:
            x, y = self._real(batch) if penalty.player == "D" else (None, None)
            fake, y_fake = self._fakes(rng) if penalty.needs_fake else (None, None)
            cost = penalty(self._context(x, fake, y, y_fake, rng))
            return Outcome({} if cost is None else {f"penalty_{name}": penalty.weight * cost})

        return loss

    def _real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return batch["x"], batch["y"] if self.labelled else None

    def _labels(self, rng: Rng) -> Tensor | None:
        return rng.integers("y", self.classes) if self.labelled else None

    @torch.no_grad()
    def _fakes(self, rng: Rng) -> tuple[Tensor, Tensor | None]:
        y = self._labels(rng)
        return self.nets["G"](self.latents(rng), y), y

    def _context(
        self, x: Tensor | None, fake: Tensor | None, y: Tensor | None, y_fake: Tensor | None, rng: Rng
    ) -> Context:
        """What penalties may look at; images for D's only."""
        dtype = next(self.nets["D"].parameters()).dtype

        def judge(images: Tensor, labels: Tensor | None) -> Tensor:
            # A gradient of a gradient in half precision over- or underflows; the penalty leaves autocast.
            with torch.autocast(images.device.type, enabled=False):
                scales = self.nets["D"](images, labels).scales()
                return sum_of([s.flatten(1).mean(1) for s in scales]) if scales[0].dim() > 1 else sum_of(scales)

        real, fake = (None if images is None else images.to(dtype) for images in (x, fake))
        return Context(dict(self.nets.items()), judge, real, fake, y, y_fake, rng)

    def _refuse_nonsense(self) -> None:
        spectral = any(is_spectral(m) for m in self.nets["D"].modules())
        if self.loss.lipschitz and not spectral and not any(p.lipschitz and p.weight for p in self.penalties.values()):
            raise CombinationError(
                "the wasserstein loss needs a critic of bounded slope and nothing bounds this one:"
                " add penalty=wgan_gp, penalty=r1 or penalty=clip, or take a D with spectral norm (model=sngan)"
            )
        for name, penalty in self.penalties.items():
            if penalty.per_sample and self.d_has_batch_norm:
                raise CombinationError(
                    f"penalty={name} looks at each image's own gradient and D's batch norm mixes the images of a batch:"
                    " set model.D.norm=auto (layer norm here), layer or none"
                )
            if penalty.undone_by_spectral and spectral:
                raise CombinationError(
                    f"penalty={name} bounds weights that spectral norm divides by their size again, so it does nothing:"
                    " use penalty=none, or a D without spectral norm (model=dcgan)"
                )


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Sum of scalars or equal shapes, without the integer 0 that `sum` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def mean_of(scales: Sequence[Tensor]) -> Tensor:
    """Mean of all logits, each scale with the same weight, detached."""
    return sum_of([s.detach().float().mean() for s in scales]) / len(scales)
