"""The game of the 2014 GAN and all its kin: G makes images of noise, D tells them from real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.augment.ada import Ada
from gancli.augment.augment import Augment
from gancli.compute.dist import gathered
from gancli.compute.rng import Rng
from gancli.config.build import convert
from gancli.config.settings import at_least, at_most
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Couples, Game, Move, Outcome, Result
from gancli.games.latent import Latent
from gancli.games.stages import Moment
from gancli.losses.adversarial import AdversarialLoss, Energy
from gancli.losses.penalties import Context, Penalty
from gancli.nets.layers.spectral import full_precision, is_spectral
from gancli.nets.layers.together import REFERENCE, Referenced
from gancli.nets.verdict import Verdict
from gancli.train.ramp import Ramp

MOST_REPEATS = 10_000  # of D's moves in a step, which a stop waits for; of batches and samples that stay together


class NoiseGame(Game):
    """D takes `d_steps` moves, then G one on `g_size` times as many images (Goodfellow et al. 2014, algorithm 1).

    Where D names classes too (AC-GAN), both players pay `class_weight` times its cross entropy; D on its real images
    and, with `class_fakes`, on fakes by the class they were asked for (Odena et al. 2017, eq. 3). pack: how many
    samples of one source D judges at once, joined in their channels (Lin et al. 2018, section 3). adversarial: weight
    of the objective in G's loss. augment: what is done to all that D is shown. ramp: how penalties' weights and the
    augmentation's p change over the run. Raises CombinationError where the parts make no sense together.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        *,
        d_steps: int = 1,
        g_size: int = 1,
        class_weight: float = 1.0,
        class_fakes: bool = True,
        pack: int = 1,
        adversarial: float = 1.0,
        ramp: Ramp | None = None,
    ):
        super().__init__()
        at_least(1, **{"game.d_steps": d_steps, "game.g_size": g_size, "game.pack": pack})
        at_most(MOST_REPEATS, **{"game.d_steps": d_steps, "game.g_size": g_size, "game.pack": pack})
        at_least(0, **{"game.class_weight": class_weight, "game.adversarial": adversarial})
        self.class_weight, self.class_fakes, self.pack, self.adversarial = class_weight, class_fakes, pack, adversarial
        missing = {"G", "D"} - set(nets)
        if missing:
            raise ConfigError(f"missing key model.{min(missing)}: this game is played by G and D")
        self.nets = nn.ModuleDict(nets)
        self.loss, self.penalties, self.latent, self.classes = loss, dict(penalties), latent, classes
        self.labelled = any(getattr(net, "conditional", False) for net in nets.values())
        self.d_has_batch_norm = any(isinstance(m, _BatchNorm) for m in nets["D"].modules())
        self.separate = self.d_has_batch_norm or any(getattr(m, "couples", 1) != 1 for m in nets["D"].modules())
        self.augment, self.ramp = augment, ramp
        self.couples = self._couples()
        self._memories()
        self._seen = 0
        self._refuse_nonsense()
        if any(p.per_sample for p in self.penalties.values()):
            self.eager = {"D": "its gradient penalty needs a second derivative"}

        lazy = {name: p for name, p in self.penalties.items() if p.every > 1}
        self._moves = (
            Move("D", self.discriminator_loss, self.discriminator_feeds(), repeat=d_steps),
            *(
                Move(p.player, self._penalty_loss(name), ("real",) if p.player == "D" else (), every=p.every, name=name)
                for name, p in lazy.items()
            ),
            Move("G", self.generator_loss, feeds=("real",) if self._g_needs_real() else (), size=g_size),
        )

    @classmethod
    def shape_for(cls, network: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, ...]:
        """D judges `pack` samples at once, joined in their channels."""
        pack: int = convert(options.get("pack", 1), int, "game.pack")
        return (shape[0] * max(1, pack), *shape[1:]) if network == "D" else shape  # below 1: refused when it is built

    def setup_rows(self, images: int) -> int:
        """As many as networks that fit themselves to the data ask for; a reference batch for each pack."""
        virtual = REFERENCE * self.pack if any(isinstance(m, Referenced) for m in self.nets.modules()) else 0
        return max(virtual, *(min(images, getattr(net, "fit_rows", 0)) for net in self.nets.values()))

    @torch.no_grad()
    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Let networks fit themselves to real images; give those with virtual batch norm their reference batches.

        The reference of G is of latents, D's of real images.
        """
        for name, net in self.nets.items():
            if rows := getattr(net, "fit_rows", 0):
                fit: Any = net.fit
                with torch.random.fork_rng([rng.device] if rng.device.type == "cuda" else []):
                    torch.manual_seed(rng.seed("fit"))
                    fit(real["x"][:rows].to(next(net.parameters()).dtype))
            for module in net.modules():
                if isinstance(module, Referenced):
                    rows = self.latents(rng) if name == "G" else self._real(dict(real))[0]
                    rows = rows if name == "G" else self.shown(rows, rng, "reference").flatten(1)
                    module.refer(rows[:REFERENCE].reshape(module.reference.shape))

    def enter(self, at: Moment) -> None:
        """Remember how far the run is, and lead the augmentation's p along its ramp."""
        self._seen = at.seen
        if self.ramp is not None and self.ramp.augment is not None:
            assert isinstance(self.augment, Ada)
            self.augment.p.fill_(self.ramp.between(self.augment.first, self.ramp.augment, at.seen))

    def moves(self, at: Moment) -> Sequence[Move]:
        """D, the lazy penalties that are due, G: the same at every step."""
        return self._moves

    def discriminator_feeds(self) -> tuple[str, ...]:
        """The streams that D's moves are dealt from."""
        return ("real",)

    def latents(self, noise: Rng, **knobs: Any) -> Tensor:
        """z, [rows, latent.dim]; the knob `truncation` bounds its numbers."""
        return self.latent.draw(noise, knobs.get("truncation"))

    def render(self, nets: Mapping[str, nn.Module], latents: Tensor, y: Tensor | None = None, **knobs: Any) -> Tensor:
        """G(z, y)."""
        return nets["G"](latents, y)  # type: ignore[no-any-return]

    def judge(self, rng: Rng, **sources: tuple[Tensor, Tensor | None]) -> dict[str, Verdict]:
        """What D says of each source: one joint pass, or one pass each where D must not mix them."""
        D = self.nets["D"]
        shown = {name: (self.shown(x, rng, name), y) for name, (x, y) in sources.items()}
        if self.separate or len(shown) == 1:
            return {name: D(x, y) for name, (x, y) in shown.items()}
        images, labels = zip(*shown.values(), strict=True)
        y = None if labels[0] is None else torch.cat(labels)
        verdicts = D(torch.cat([x.to(images[0].dtype) for x in images]), y).split([len(x) for x in images])
        return dict(zip(shown, verdicts, strict=True))

    def shown(self, x: Tensor, rng: Rng, source: str) -> Tensor:
        """Images as D is shown them: with instance noise, augmented, packed."""
        sigma = self.loss.noise_at(self._seen)
        if sigma:
            x = x + sigma * rng.normal(f"noise {source}", *x.shape[1:]).to(x.dtype)
        if self.augment is not None:
            x = self.augment(x, rng, source)
        return packed(x, self.pack)

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's D side on real images and fresh fakes, and the penalties paid at every step."""
        (x, y), (fake, y_fake) = self._real(batch), self._fakes(rng, batch)
        verdicts = self.judge(rng, real=(x, y), fake=(fake, y_fake))
        real_scales, fake_scales = verdicts["real"].scales(), verdicts["fake"].scales()
        pairs = [self._flipped(r, f, rng) for r, f in zip(real_scales, fake_scales, strict=True)]
        losses = {"loss_D": sum_of([self.loss.discriminator(r, f) for r, f in pairs]) / len(pairs)}
        told = [(verdicts["real"], y), (verdicts["fake"], y_fake)][: 2 if self.class_fakes else 1]
        losses |= self._class_loss("class_D", told)
        losses |= self._penalties("D", self._context(x, fake, y, y_fake, rng, verdicts))
        return Outcome(losses, self._stats(real_scales, fake_scales))

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's G side on fresh fakes."""
        y_fake = self._labels(rng, batch)
        z = self.latents(rng)
        fake = self.nets["G"](z, y_fake)
        verdicts = self.judge(rng, fake=(fake, y_fake))
        if self._g_needs_real():
            with torch.no_grad():  # what D says of real images does not depend on G
                verdicts |= self.judge(rng, real=self._real(batch))
        losses = {}
        if self.adversarial:
            fakes = verdicts["fake"].scales()
            reals = verdicts["real"].scales() if self.loss.needs_real else [None] * len(fakes)
            terms = [self.loss.generator(*self._best(f, r)) for f, r in zip(fakes, reals, strict=True)]
            losses["loss_G"] = self.adversarial * sum_of(terms) / len(terms)
        losses |= self._class_loss("class_G", [(verdicts["fake"], y_fake)])
        return Outcome(losses | self._penalties("G", self._context(None, fake, None, y_fake, rng, verdicts, z)))

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> None:
        """Let the player's penalties move its weights back and remember; tell the augmentation how D fares."""
        stats = result.stats
        net = self.nets[move.player]
        for name, penalty in self.penalties.items():
            if penalty.player == move.player:
                penalty.project(net)
                penalty.remember(self._memory(name), net, stats)
        if self.augment is not None and "D_sign" in stats:
            self.augment.feedback(stats, rng.total)

    def _stats(self, reals: Sequence[Tensor], fakes: Sequence[Tensor]) -> dict[str, Tensor]:
        """What a move of D says of its logits; their sign is what the augmentation listens to."""
        stats = {"D_real": mean_of(reals), "D_fake": mean_of(fakes)}
        return stats if self.augment is None else stats | {"D_sign": mean_of([r.sign() for r in reals])}

    def _flipped(self, real: Tensor, fake: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Some pairs of logits with each other's label."""
        if not self.loss.flip:
            return real, fake
        return exchanged(real, fake, rng.uniform("flip")[:: self.pack] < self.loss.flip)

    def _best(self, fake: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits of the images that G learns from, and of the real ones that they are compared with."""
        share = self.loss.top_at(self._seen)
        if share == 1:
            return fake, real
        fake = gathered(fake)  # the best of the whole batch
        scores = fake.detach().flatten(1).mean(1) if fake.dim() > 1 else fake.detach()
        kept = scores.topk(max(1, math.ceil(share * len(fake)))).indices
        return fake[kept], gathered(real)[kept] if real is not None and self.loss.paired else real

    def _class_loss(self, name: str, told: Sequence[tuple[Verdict, Tensor | None]]) -> dict[str, Tensor]:
        """The auxiliary classifier's cross entropy over some sources, where D has one."""
        terms = [cross_entropy(v.classes.float(), y) for v, y in told if v.classes is not None and y is not None]
        return {name: self.class_weight * sum_of(terms)} if terms and self.class_weight else {}

    def _penalties(self, player: str, context: Context) -> dict[str, Tensor]:
        """What a player pays at every step beside its objective."""
        due = {name: p for name, p in self.penalties.items() if p.player == player and p.every == 1}
        costs = {name: penalty(replace(context, memory=self._memory(name))) for name, penalty in due.items()}
        return {f"penalty_{name}": self._weight(due[name]) * cost for name, cost in costs.items() if cost is not None}

    def _weight(self, penalty: Penalty) -> float:
        """λ at this moment of the run."""
        return penalty.weight * (1.0 if self.ramp is None else self.ramp.weight(self._seen))

    def _penalty_loss(self, name: str) -> Any:
        penalty = self.penalties[name]

        def loss(batch: Batch, rng: Rng) -> Outcome:
            x, y = self._real(batch) if penalty.player == "D" else (None, None)
            fake, y_fake = self._fakes(rng, graph=penalty.player == "G") if penalty.needs_fake else (None, None)
            cost = penalty(replace(self._context(x, fake, y, y_fake, rng, {}), memory=self._memory(name)))
            return Outcome({} if cost is None else {f"penalty_{name}": self._weight(penalty) * cost})

        return loss

    def _real(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        return batch["x"], batch["y"] if self.labelled else None

    def _labels(self, rng: Rng, batch: Batch | None = None) -> Tensor | None:
        """Classes that G is asked for: drawn evenly, or those of the real images that the fakes are paired with."""
        if not self.labelled:
            return None
        return batch["y"] if self.loss.paired and batch and "y" in batch else rng.integers("y", self.classes)

    def _fakes(self, rng: Rng, batch: Batch | None = None, graph: bool = False) -> tuple[Tensor, Tensor | None]:
        y = self._labels(rng, batch)
        with torch.set_grad_enabled(graph):
            return self.nets["G"](self.latents(rng), y), y

    def _context(
        self,
        x: Tensor | None,
        fake: Tensor | None,
        y: Tensor | None,
        y_fake: Tensor | None,
        rng: Rng,
        verdicts: Mapping[str, Verdict],
        z: Tensor | None = None,
    ) -> Context:
        """What penalties may look at."""
        dtype = next(self.nets["D"].parameters()).dtype

        def judge(images: Tensor, labels: Tensor | None, source: str = "penalty") -> Tensor:
            # A gradient of a gradient in half precision over- or underflows; the penalty leaves autocast.
            with full_precision(images):
                said: Verdict = self.nets["D"](self.shown(images, rng, source), labels)
                return said.scores()

        def generate(latents: Tensor, labels: Tensor | None) -> Tensor:
            return self.nets["G"](latents, labels)  # type: ignore[no-any-return]

        def draw(purpose: str) -> Tensor:
            return self.latent.draw(rng, purpose=purpose)

        real, fake = (None if images is None else images.to(dtype) for images in (x, fake))
        z = self.latents(rng) if z is None else z
        return Context(dict(self.nets.items()), judge, real, fake, y, y_fake, rng, verdicts, z, generate, draw)

    def _g_needs_real(self) -> bool:
        """Whether G's move looks at what D says of real images."""
        wanted = any(p.needs_real and p.player == "G" and p.every == 1 for p in self.penalties.values())
        return wanted or bool(self.loss.needs_real and self.adversarial)

    def _couples(self) -> Couples:
        """How many samples belong together, by all parts."""
        parts = [self.loss.couples, *(p.couples for p in self.penalties.values() if p.weight)]
        return "all" if "all" in parts or self.loss.top < 1 else self.pack

    def _memories(self) -> None:
        """What penalties remember, as buffers."""
        for name, penalty in self.penalties.items():
            for key, value in penalty.memory(self.nets[penalty.player]).items():
                self.register_buffer(f"memory_{name}_{key}", value)

    def _memory(self, name: str) -> dict[str, Tensor]:
        prefix = f"memory_{name}_"
        return {key.removeprefix(prefix): b for key, b in self.named_buffers(recurse=False) if key.startswith(prefix)}

    def _refuse_nonsense(self) -> None:
        spectral = any(is_spectral(m) for m in self.nets["D"].modules())
        if self.loss.lipschitz and not spectral and not any(p.lipschitz and p.weight for p in self.penalties.values()):
            raise CombinationError(
                "the wasserstein loss needs a critic of bounded slope and nothing bounds this one:"
                " add penalty=wgan_gp, penalty=r1 or penalty=clip, or take a D with spectral norm (model=sngan)"
            )
        if not self.adversarial and not any(p.player == "G" and p.weight for p in self.penalties.values()):
            raise CombinationError(
                "game.adversarial=0 leaves G without anything to learn: set game.adversarial=1,"
                " or add penalty=feature_matching"
            )
        if self.pack > 1 and self.labelled:
            raise CombinationError(
                f"game.pack={self.pack} joins samples of different classes and this model is told of classes:"
                " set game.pack=1 or model.conditioning=none"
            )
        if isinstance(self.loss, Energy) and not self.loss.plain and not getattr(self.nets["D"], "energy", False):
            raise CombinationError(
                "loss=energy needs a D whose output is an energy, and this one's is any number: take model=ebgan,"
                " or set loss.plain=true (softplus of it is the energy)"
            )
        ramps_p = self.ramp is not None and self.ramp.augment is not None
        if ramps_p and not (isinstance(self.augment, Ada) and self.augment.target is None):
            raise CombinationError(
                "ramp.augment is where p of augment=ada leads: add augment=ada augment.target=null,"
                " or set ramp.augment=null"
            )
        for name, penalty in self.penalties.items():
            if penalty.per_sample and self.d_has_batch_norm:
                raise CombinationError(
                    f"penalty={name} looks at each image's own gradient and D's batch norm mixes the images of a batch:"
                    " set model.D.norm=auto (layer norm here), layer or none"
                )
            if penalty.needs_features and penalty.every > 1:
                raise CombinationError(
                    f"penalty={name} belongs to the objective of each step: leave penalty.{name}.every=1"
                )
            if penalty.undone_by_spectral and spectral:
                raise CombinationError(
                    f"penalty={name} bounds weights that spectral norm divides by their size again, so it does nothing:"
                    " use penalty=none, or a D without spectral norm (model=dcgan)"
                )


def packed(x: Tensor, count: int) -> Tensor:
    """Each `count` consecutive samples joined in their channels: [B, C, ...] -> [B / count, count · C, ...].

    >>> packed(torch.arange(4.0).view(4, 1), 2).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    return x.reshape(len(x) // count, count * x.shape[1], *x.shape[2:]) if count > 1 else x


def exchanged(real: Tensor, fake: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """The logits [B, ...] of both kinds with each other's label in the chosen pairs, bool [B].

    >>> a, b = exchanged(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0]), torch.tensor([False, True]))
    >>> a.tolist(), b.tolist()
    ([1.0, -2.0], [-1.0, 2.0])
    """
    chosen = chosen.view(-1, *[1] * (real.dim() - 1))
    return torch.where(chosen, fake, real), torch.where(chosen, real, fake)


def sum_of(terms: Sequence[Tensor]) -> Tensor:
    """Sum of scalars or equal shapes, without the integer 0 that `sum` starts from."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def mean_of(scales: Sequence[Tensor]) -> Tensor:
    """Mean of all logits, each scale with the same weight, detached."""
    return sum_of([s.detach().float().mean() for s in scales]) / len(scales)
