"""A critic: one discriminator with its inputs, objective and penalties, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.augment.ada import Ada
from gancli.augment.augment import Augment
from gancli.augment.blur import Blur
from gancli.compute.dist import gathered
from gancli.compute.rng import Rng
from gancli.config.settings import at_least, at_most
from gancli.errors import CombinationError, ConfigError
from gancli.games.incompatible import refuse
from gancli.losses.adversarial import AdversarialLoss, Couples, Judged, exchanged
from gancli.losses.penalties import Beside, Context, Penalty, Side
from gancli.nets.layers.direction import renormalise
from gancli.nets.layers.noise import Noisy
from gancli.nets.layers.spectral import full_precision
from gancli.nets.verdict import Verdict, mean_logit, sum_of, with_logits
from gancli.train.ramp import Ramp

MOST_PACKED = 10_000  # samples that stay together in a batch

Columns = tuple[Tensor | None, ...]  # of one source, in the order of the critic's `columns`
Verdicts = dict[str, Verdict]


class Critic(nn.Module):
    """Judges the samples of a `generator` and real ones, and computes the losses of both sides.

    name, generator: networks of `nets`; a tuple of generators shares the penalties. columns: the columns of a source
    that D judges, in the order of its network's arguments; `sample`: the column that penalties use (None: the last
    image); images: columns that instance noise, augmentation (one draw for all of them) and packing change; label: the
    column of classes, which G may be conditioned on.
    augment: applied to all of D's input. pack: how many samples of one source D judges at once, joined in their
    channels (Lin et al. 2018, section 3). adversarial: weight of the objective in the generator's loss. If D also
    classifies (AC-GAN), both losses include `class_weight` times its cross entropy: D's on real samples and, with
    `class_fakes`, on fakes with the class that G was given (Odena et al. 2017, eq. 3). ramp: how penalties' weights and
    the augmentation's p change over the run. lone: this is the game's only critic, so the names of its losses omit its
    own. blur: of D's images, before augmentation. latents: whether the game passes latents to penalties; lazy: whether
    it plays the moves of lazy penalties, which apply at some steps; styles: whether it passes fakes' styles. Raises
    CombinationError for incompatible parts.
    """

    def __init__(
        self,
        name: str,
        nets: nn.ModuleDict,
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty] | None = None,
        augment: Augment | None = None,
        *,
        generator: str | tuple[str, ...] = "G",
        columns: tuple[str, ...] = ("x", "y"),
        images: tuple[str, ...] = ("x",),
        sample: str | None = None,
        label: str = "y",
        pack: int = 1,
        adversarial: float = 1.0,
        class_weight: float = 1.0,
        class_fakes: bool = True,
        ramp: Ramp | None = None,
        labelled: bool = False,
        lone: bool = True,
        latents: bool = False,
        lazy: bool = False,
        styles: bool = False,
        blur: Blur | None = None,
    ):
        super().__init__()
        at_least(1, **{"game.pack": pack})
        at_most(MOST_PACKED, **{"game.pack": pack})
        at_least(0, **{"game.class_weight": class_weight, "game.adversarial": adversarial})
        self.generators = (generator,) if isinstance(generator, str) else tuple(generator)
        self.name, self.generator, self.lone = name, "+".join(self.generators), lone
        missing = {name, *self.generators} - set(nets)
        if missing:
            played = " and ".join((*self.generators, name))
            raise ConfigError(f"missing key model.{min(missing)}: this game needs the networks {played}")
        # In tuples: otherwise the state dict would contain each network twice.
        self._nets = (nets,)
        self._drawing = (nn.ModuleList(nets[each] for each in self.generators),)
        self.columns, self.images, self.label = columns, images, label
        self.sample = sample or images[-1]
        self.loss, self.penalties, self.augment, self.ramp, self.blur = loss, dict(penalties or {}), augment, ramp, blur
        self.pack, self.adversarial, self.labelled = pack, adversarial, labelled
        self.class_weight, self.class_fakes = class_weight, class_fakes
        self.has_batch_norm = any(isinstance(m, _BatchNorm) for m in self.net.modules())
        self.separate = self.has_batch_norm or any(getattr(m, "couples", 1) != 1 for m in self.net.modules())
        self._seen = 0
        refuse(self, latents, lazy, styles)
        for module in self.net.modules():
            if isinstance(module, Noisy):
                module.joins = pack
        self._kept: dict[str, dict[str, str]] = {}  # owner (penalty or objective): name of a state: name of its buffer
        for each, penalty in self.penalties.items():
            self._keep(f"memory_{each}", penalty.memory(self.nets[penalty.side]))
        self._keep("objective", loss.memory(self.net))

    # -- its networks --------------------------------------------------------------------------------------------------

    @property
    def net(self) -> nn.Module:
        """The discriminator."""
        return self._nets[0][self.name]

    @property
    def nets(self) -> dict[Side, nn.Module]:
        """The networks of both sides."""
        drawing: nn.Module = self._drawing[0] if len(self.generators) > 1 else self._drawing[0][0]
        return {"discriminator": self.net, "generator": drawing}

    @property
    def twice(self) -> bool:
        """Whether the discriminator is differentiated twice."""
        return any(p.per_sample and not p.by_difference for p in self.penalties.values())

    def couplings(self) -> list[Couples]:
        """How many samples each of its parts couples."""
        parts = [self.loss.couples, *(p.couples for p in self.penalties.values() if p.weight)]
        return [self.pack, *parts, "all" if self.loss.top < 1 else 1]

    def compares(self) -> bool:
        """Whether the generator's move uses D's output for real samples."""
        wanted = any(p.needs_real and p.side == "generator" and p.every == 1 for p in self.penalties.values())
        return wanted or bool(self.loss.needs_real and self.adversarial)

    # -- D's inputs and outputs ----------------------------------------------------------------------------------------

    def enter(self, seen: int) -> None:
        """Store how many real images were seen, and set the augmentation's p by its ramp."""
        self._seen = seen
        if self.ramp is not None and self.ramp.augment is not None:
            assert isinstance(self.augment, Ada)
            self.augment.p.fill_(self.ramp.between(self.augment.first, self.ramp.augment, seen))

    def judge(self, rng: Rng, **sources: Columns) -> Verdicts:
        """Return D's output for each source: in one joint pass, or in one pass each if D couples samples.

        Raises CombinationError for a source that is not a tuple of columns.
        """
        for name, source in sources.items():
            if not isinstance(source, tuple):
                columns = ", ".join(self.columns)
                raise CombinationError(f"judge({name}=...): pass a tuple ({columns}), with None for a missing column")
        shown = {name: self.shown(columns, rng, name) for name, columns in sources.items()}
        if self.separate or len(shown) == 1:
            return {name: self.net(*columns) for name, columns in shown.items()}
        place = self.columns.index(self.sample)
        sizes = [len(columns[place]) for columns in shown.values()]  # type: ignore[arg-type]
        joint: Verdict = self.net(*(_joined(parts) for parts in zip(*shown.values(), strict=True)))
        return dict(zip(shown, joint.split(sizes), strict=True))

    def shown(self, columns: Columns, rng: Rng, source: str) -> Columns:
        """Return a source's columns as D's input: images with instance noise, blurred, augmented, packed."""
        sigma, own = self.loss.noise_at(self._seen), self._purpose(source)
        if self.augment is not None and len({x.shape[2:] for x in self._images(columns)}) > 1:
            raise CombinationError(
                f"augment needs images of one size, and those that {self.name} judges together differ in size:"
                " set augment=none"
            )

        def changed(name: str, x: Tensor) -> Tensor:
            if sigma:
                purpose = f"noise {own}" if name == self.sample else f"noise {own} {name}"
                x = x + sigma * rng.normal(purpose, *x.shape[1:]).to(x.dtype)
            if self.blur is not None:
                x = self.blur(x, self._seen)
            if self.augment is not None:
                x = self.augment(x, rng, own)  # the same purpose, the same numbers for all columns
            return packed(x, self.pack)

        named = zip(self.columns, columns, strict=True)
        return tuple(x if x is None or name not in self.images else changed(name, x) for name, x in named)

    @torch.no_grad()
    def said(self, *columns: Tensor | None) -> Tensor:
        """D's scores [B] of unchanged samples, in evaluation mode; if D packs, each sample is packed with itself."""
        named = zip(self.columns, columns, strict=False)
        shown = (x if x is None or name not in self.images else torch.cat([x] * self.pack, 1) for name, x in named)
        with _evaluated(self.net):
            verdict: Verdict = self.net(*shown)
        return verdict.scores()

    # -- losses of both sides ------------------------------------------------------------------------------------------

    def discriminator_losses(self, verdicts: Verdicts, rng: Rng, **sources: Columns) -> dict[str, Tensor]:
        """D's objective on "real" and "fake", its direction's loss (SAN) and the auxiliary classifier's."""
        told = [(verdicts[name], self._labels(sources[name])) for name in ("real", "fake")]
        losses = {f"loss_{self.name}": self.objective(verdicts, rng, **sources)}
        if verdicts["real"].direction is not None:
            along = {name: verdicts[name].along() for name in ("real", "fake")}
            losses[f"direction_{self.name}"] = self.loss.of_direction(self._judged(along, rng, sources))
        return losses | self._class_losses(self.name, told[: 2 if self.class_fakes else 1])

    def objective(self, verdicts: Verdicts, rng: Rng, **sources: Columns) -> Tensor:
        """D's objective alone."""
        return self.loss.of_discriminator(self._judged(verdicts, rng, sources))

    def _judged(self, verdicts: Verdicts, rng: Rng, sources: Mapping[str, Columns]) -> Judged:
        """The input of D's objective, with labels flipped in some pairs (loss.flip)."""
        if self.loss.flip:
            real, fake = (verdicts[name].scales() for name in ("real", "fake"))
            pairs = [self.flipped(r, f, rng) for r, f in zip(real, fake, strict=True)]
            verdicts = with_logits(verdicts, real=[r for r, _ in pairs], fake=[f for _, f in pairs])
        return Judged(verdicts, sources, self.memory("objective"), partial(self._drawn, rng))

    def _drawn(self, rng: Rng, purpose: str, logits: Tensor) -> Tensor:
        return rng.uniform(self._purpose(purpose), *logits.shape[1:])[:: self.pack].to(logits.dtype)

    def flipped(self, real: Tensor, fake: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The logits, with labels flipped in some pairs."""
        return exchanged(real, fake, rng.uniform(self._purpose("flip"))[:: self.pack] < self.loss.flip)

    def generator_losses(self, verdicts: Verdicts, **sources: Columns) -> dict[str, Tensor]:
        """G's objective on "fake" (and on "real", if it compares), and the auxiliary classifier's loss."""
        told = verdicts
        if self.loss.top_at(self._seen) < 1:
            fakes = verdicts["fake"].scales()
            reals = verdicts["real"].scales() if self.loss.needs_real else [None] * len(fakes)
            best = [self.best(f, r) for f, r in zip(fakes, reals, strict=True)]
            told = with_logits(told, fake=[f for f, _ in best], real=[r for _, r in best if r is not None])
        name = self.generator if self.lone else f"{self.generator}_{self.name}"
        losses = {}
        if self.adversarial:
            cost = self.loss.of_generator(Judged(told, sources, self.memory("objective")))
            losses[f"loss_{name}"] = self.adversarial * cost
        return losses | self._class_losses(name, [(verdicts["fake"], self._labels(sources["fake"]))])

    def best(self, fake: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits of the fakes that G learns from (loss.top), and of the real samples compared with them."""
        share = self.loss.top_at(self._seen)
        if share == 1:
            return fake, real
        fake = gathered(fake)  # the best of the whole batch
        scores = fake.detach().flatten(1).mean(1) if fake.dim() > 1 else fake.detach()
        kept = scores.topk(max(1, math.ceil(share * len(fake)))).indices
        return fake[kept], gathered(real)[kept] if real is not None and self.loss.paired else real

    def stats(self, verdicts: Verdicts) -> dict[str, Tensor]:
        """Mean logits of D's move and, for the augmentation (ADA), the mean sign of the real ones."""
        real, fake = (verdicts[name].scales() for name in ("real", "fake"))
        found = {"real": mean_logit(real), "fake": mean_logit(fake)}
        if self.augment is not None:
            found["sign"] = mean_logit([r.sign() for r in real])
        return {f"{self.name}_{name}": value for name, value in found.items()}

    # -- penalties -----------------------------------------------------------------------------------------------------

    def context(
        self,
        rng: Rng,
        verdicts: Mapping[str, Verdict] | None = None,
        *,
        real: Columns | None = None,
        fake: Columns | None = None,
        z: Tensor | None = None,
        generate: Callable[[Tensor, Any], Tensor] | None = None,
        draw: Callable[[str], Tensor] | None = None,
        magnified: int = 1,
    ) -> Context:
        """The input of penalties; arguments as in `Context`."""
        dtype = next(self.net.parameters()).dtype

        def judge(sample: Tensor, beside: Beside, source: str = "penalty") -> Tensor:
            # Second derivatives over- or underflow in half precision, so penalties run outside autocast.
            with full_precision(sample):
                said: Verdict = self.net(*self.shown(self._columns(sample, beside), rng, source))
                return said.scores()

        (x, y), (x_fake, y_fake) = self._sample(real, dtype), self._sample(fake, dtype)
        told = dict(verdicts or {})
        return Context(self.nets, judge, x, x_fake, y, y_fake, rng, told, z, generate, draw, magnified=magnified)

    def due(self, side: Side, context: Context) -> dict[str, Tensor]:
        """The penalties of a side that apply at every step."""
        names = [name for name, p in self.penalties.items() if p.side == side and p.every == 1]
        return {key: cost for name in names for key, cost in self.pay(name, context).items()}

    def lazy(self) -> dict[str, Penalty]:
        """Penalties that apply at some steps only, each in a move of its own."""
        return {name: p for name, p in self.penalties.items() if p.every > 1}

    def pay(self, name: str, context: Context) -> dict[str, Tensor]:
        """One penalty times its weight; empty if there is nothing to differentiate."""
        cost = self.penalties[name](replace(context, memory=self.memory(f"memory_{name}")))
        key = f"penalty_{name}" if self.lone else f"penalty_{self.name}_{name}"
        return {} if cost is None else {key: self.weight(self.penalties[name]) * cost}

    def weight(self, penalty: Penalty) -> float:
        """λ at the current point of the run."""
        return penalty.weight * (1.0 if self.ramp is None else self.ramp.weight(self._seen))

    def after(self, networks: Collection[str], stats: Mapping[str, Tensor], images: int) -> None:
        """After a move of these networks, project their weights and update the state of penalties and objective.

        After D's move the augmentation also gets its statistics. images: rows of the move. Raises CombinationError if
        augment=ada misses these.
        """
        names = {f"D_{kind}": f"{self.name}_{kind}" for kind in ("real", "fake", "sign")}
        own = {told: stats[name] for told, name in names.items() if name in stats}
        sides = {"discriminator": self.name in networks, "generator": self.generators[0] in networks}
        if sides["discriminator"]:
            renormalise(self.net)
        for name, penalty in self.penalties.items():
            if sides[penalty.side]:
                net = self.nets[penalty.side]
                penalty.project(net)
                told = own | {key: stats[key] for key in penalty.reports if key in stats}
                penalty.remember(self.memory(f"memory_{name}"), net, told)
        if sides["discriminator"]:
            self.loss.remember(self.memory("objective"), self.net, own)
            if self.augment is not None and "D_sign" in own:
                self.augment.feedback(own, images)
            elif isinstance(self.augment, Ada) and self.augment.target is not None and f"loss_{self.name}" in stats:
                raise CombinationError(
                    f"augment=ada needs the mean sign of {self.name}'s logits, which this game does not report: return"
                    " critic.stats(verdicts) in its Outcome, or set augment.target=null"
                )

    def memory(self, of: str) -> dict[str, Tensor]:
        """The state of a penalty (`memory_NAME`) or of the objective (`objective`); change it in place."""
        return {key: self.get_buffer(name) for key, name in self._kept.get(of, {}).items()}

    def _keep(self, of: str, memory: Mapping[str, Tensor]) -> None:
        self._kept[of] = {key: f"{of}_{key}" for key in memory}
        for key, value in memory.items():
            self.register_buffer(f"{of}_{key}", value)

    # -- columns -------------------------------------------------------------------------------------------------------

    def _purpose(self, words: str) -> str:
        """The key of random numbers, different for each critic."""
        return words if self.lone else f"{self.name} {words}"

    def _images(self, columns: Columns) -> Iterator[Tensor]:
        named = zip(self.columns, columns, strict=True)
        return (x for name, x in named if x is not None and name in self.images)

    def _labels(self, columns: Columns) -> Tensor | None:
        return columns[self.columns.index(self.label)] if self.label in self.columns else None

    def _sample(self, columns: Columns | None, dtype: torch.dtype) -> tuple[Tensor | None, Beside]:
        """A source's sample in the parameters' dtype, and its other columns."""
        if columns is None:
            return None, None
        place = self.columns.index(self.sample)
        sample, rest = columns[place], columns[:place] + columns[place + 1 :]
        return None if sample is None else sample.to(dtype), rest[0] if len(rest) == 1 else rest

    def _columns(self, sample: Tensor, beside: Beside) -> Columns:
        """The inverse of `_sample`."""
        place = self.columns.index(self.sample)
        rest = beside if isinstance(beside, tuple) else (beside,) * (len(self.columns) - 1)
        return (*rest[:place], sample, *rest[place:])

    def _class_losses(self, name: str, told: Sequence[tuple[Verdict, Tensor | None]]) -> dict[str, Tensor]:
        """The auxiliary classifier's cross entropy over some sources; empty if D has none."""
        terms = [cross_entropy(v.classes.float(), y) for v, y in told if v.classes is not None and y is not None]
        return {f"class_{name}": self.class_weight * sum_of(terms)} if terms and self.class_weight else {}


def packed(x: Tensor, count: int) -> Tensor:
    """Join each `count` consecutive samples in their channels: [B, C, ...] -> [B / count, count · C, ...].

    >>> packed(torch.arange(4.0).view(4, 1), 2).tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    return x.reshape(len(x) // count, count * x.shape[1], *x.shape[2:]) if count > 1 else x


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """One column of several sources, concatenated; None if no source has it."""
    there = [x for x in parts if x is not None]
    return torch.cat([x.to(there[0].dtype) for x in there]) if there else None


@contextmanager
def _evaluated(net: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and restore each module's mode on exit."""
    before = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
