"""A critic: one discriminator with all that belongs to it: objective, what it is shown, penalties, their memories."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from gancli.config.settings import at_least, at_most
from gancli.errors import CombinationError, ConfigError
from gancli.games.nonsense import refuse
from gancli.losses.adversarial import AdversarialLoss, Couples, Judged
from gancli.losses.penalties import Beside, Context, Penalty, Side
from gancli.nets.layers.noise import Noisy
from gancli.nets.layers.spectral import full_precision
from gancli.nets.verdict import Verdict, sum_of
from gancli.train.ramp import Ramp

MOST_PACKED = 10_000  # samples that stay together in a batch

Columns = tuple[Tensor | None, ...]  # of one source, in the order of the critic's `columns`
Verdicts = dict[str, Verdict]


class Critic(nn.Module):
    """Judges the samples of a `generator` beside real ones, and says what both sides pay.

    name, generator: networks of `nets`; several generators as a tuple, and penalties are then paid for all. columns:
    what it judges of a source, in the order in which its network takes it; `sample`: the column that penalties look at
    (the last image, where None); images: those that instance noise, augmentation (one draw for all of them) and packing
    change; label: that of classes, which G may be asked for.
    augment: what is done to all that D is shown. pack: how many samples of one source D judges at once, joined in their
    channels (Lin et al. 2018, section 3). adversarial: weight of the objective in the generator's loss. Where D names
    classes too (AC-GAN), both sides pay `class_weight` times its cross entropy; D on its real samples and, with
    `class_fakes`, on fakes by the class they were asked for (Odena et al. 2017, eq. 3). ramp: how penalties' weights
    and the augmentation's p change over the run. lone: the game's only critic, whose terms need not be told from
    another's. latents: whether the game tells penalties of latents; lazy: whether it plays the moves of those that are
    paid at some steps only. Raises CombinationError where the parts make no sense together.
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
            raise ConfigError(f"missing key model.{min(missing)}: this game is played by {played}")
        # In tuples, or the state would hold each network twice.
        self._nets = (nets,)
        self._drawing = (nn.ModuleList(nets[each] for each in self.generators),)
        self.columns, self.images, self.label = columns, images, label
        self.sample = sample or images[-1]
        self.loss, self.penalties, self.augment, self.ramp = loss, dict(penalties or {}), augment, ramp
        self.pack, self.adversarial, self.labelled = pack, adversarial, labelled
        self.class_weight, self.class_fakes = class_weight, class_fakes
        self.has_batch_norm = any(isinstance(m, _BatchNorm) for m in self.net.modules())
        self.separate = self.has_batch_norm or any(getattr(m, "couples", 1) != 1 for m in self.net.modules())
        self._seen = 0
        refuse(self, latents, lazy)
        for module in self.net.modules():
            if isinstance(module, Noisy):
                module.joins = pack
        self._kept: dict[str, dict[str, str]] = {}  # by penalty: what it remembers, and the buffer that holds it
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
        return any(p.per_sample for p in self.penalties.values())

    def couplings(self) -> list[Couples]:
        """How many samples belong together, by its parts."""
        parts = [self.loss.couples, *(p.couples for p in self.penalties.values() if p.weight)]
        return [self.pack, *parts, "all" if self.loss.top < 1 else 1]

    def compares(self) -> bool:
        """Whether the generator's move looks at what D says of real samples."""
        wanted = any(p.needs_real and p.side == "generator" and p.every == 1 for p in self.penalties.values())
        return wanted or bool(self.loss.needs_real and self.adversarial)

    # -- what it is shown and says -------------------------------------------------------------------------------------

    def enter(self, seen: int) -> None:
        """Remember how far the run is, and lead the augmentation's p along its ramp."""
        self._seen = seen
        if self.ramp is not None and self.ramp.augment is not None:
            assert isinstance(self.augment, Ada)
            self.augment.p.fill_(self.ramp.between(self.augment.first, self.ramp.augment, seen))

    def judge(self, rng: Rng, **sources: Columns) -> Verdicts:
        """What D says of each source: one joint pass, or one pass each where D must not mix them.

        Raises CombinationError for a source that is no tuple of columns.
        """
        for name, source in sources.items():
            if not isinstance(source, tuple):
                columns = ", ".join(self.columns)
                raise CombinationError(f"judge({name}=...): a source is a tuple ({columns}), None for what it lacks")
        shown = {name: self.shown(columns, rng, name) for name, columns in sources.items()}
        if self.separate or len(shown) == 1:
            return {name: self.net(*columns) for name, columns in shown.items()}
        place = self.columns.index(self.sample)
        sizes = [len(columns[place]) for columns in shown.values()]  # type: ignore[arg-type]
        joint: Verdict = self.net(*(_joined(parts) for parts in zip(*shown.values(), strict=True)))
        return dict(zip(shown, joint.split(sizes), strict=True))

    def shown(self, columns: Columns, rng: Rng, source: str) -> Columns:
        """A source's columns as D is shown them: images with instance noise, augmented, packed."""
        sigma, own = self.loss.noise_at(self._seen), self._purpose(source)
        if self.augment is not None and len({x.shape[2:] for x in self._images(columns)}) > 1:
            raise CombinationError(
                f"augment changes all images that {self.name} judges alike, and theirs differ in size: set augment=none"
            )

        def changed(name: str, x: Tensor) -> Tensor:
            if sigma:
                purpose = f"noise {own}" if name == self.sample else f"noise {own} {name}"
                x = x + sigma * rng.normal(purpose, *x.shape[1:]).to(x.dtype)
            if self.augment is not None:
                x = self.augment(x, rng, own)  # the same purpose, the same numbers for all columns
            return packed(x, self.pack)

        named = zip(self.columns, columns, strict=True)
        return tuple(x if x is None or name not in self.images else changed(name, x) for name, x in named)

    @torch.no_grad()
    def said(self, *columns: Tensor | None) -> Tensor:
        """D's scores [B] of samples as they are, in evaluation mode; where it packs, each is packed with itself."""
        named = zip(self.columns, columns, strict=False)
        shown = (x if x is None or name not in self.images else torch.cat([x] * self.pack, 1) for name, x in named)
        with _evaluated(self.net):
            verdict: Verdict = self.net(*shown)
        return verdict.scores()

    # -- what the sides pay --------------------------------------------------------------------------------------------

    def discriminator_losses(self, verdicts: Verdicts, rng: Rng, **sources: Columns) -> dict[str, Tensor]:
        """The objective's D side on "real" and "fake", and the auxiliary classifier's."""
        told = [(verdicts[name], self._labels(sources[name])) for name in ("real", "fake")]
        losses = {f"loss_{self.name}": self.objective(verdicts, rng, **sources)}
        return losses | self._class_losses(self.name, told[: 2 if self.class_fakes else 1])

    def objective(self, verdicts: Verdicts, rng: Rng, **sources: Columns) -> Tensor:
        """The objective's D side alone, some pairs having each other's label."""
        if self.loss.flip:
            real, fake = (verdicts[name].scales() for name in ("real", "fake"))
            pairs = [self.flipped(r, f, rng) for r, f in zip(real, fake, strict=True)]
            verdicts = _with_logits(verdicts, real=[r for r, _ in pairs], fake=[f for _, f in pairs])
        return self.loss.of_discriminator(Judged(verdicts, sources, self.memory("objective")))

    def flipped(self, real: Tensor, fake: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Some pairs of logits with each other's label."""
        return exchanged(real, fake, rng.uniform(self._purpose("flip"))[:: self.pack] < self.loss.flip)

    def generator_losses(self, verdicts: Verdicts, **sources: Columns) -> dict[str, Tensor]:
        """The objective's G side on "fake" (beside "real", where it compares), and the auxiliary classifier's."""
        told = verdicts
        if self.loss.top_at(self._seen) < 1:
            fakes = verdicts["fake"].scales()
            reals = verdicts["real"].scales() if self.loss.needs_real else [None] * len(fakes)
            best = [self.best(f, r) for f, r in zip(fakes, reals, strict=True)]
            told = _with_logits(told, fake=[f for f, _ in best], real=[r for _, r in best if r is not None])
        name = self.generator if self.lone else f"{self.generator}_{self.name}"
        losses = {}
        if self.adversarial:
            cost = self.loss.of_generator(Judged(told, sources, self.memory("objective")))
            losses[f"loss_{name}"] = self.adversarial * cost
        return losses | self._class_losses(name, [(verdicts["fake"], self._labels(sources["fake"]))])

    def best(self, fake: Tensor, real: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The logits of the samples that G learns from, and of the real ones that they are compared with."""
        share = self.loss.top_at(self._seen)
        if share == 1:
            return fake, real
        fake = gathered(fake)  # the best of the whole batch
        scores = fake.detach().flatten(1).mean(1) if fake.dim() > 1 else fake.detach()
        kept = scores.topk(max(1, math.ceil(share * len(fake)))).indices
        return fake[kept], gathered(real)[kept] if real is not None and self.loss.paired else real

    def stats(self, verdicts: Verdicts) -> dict[str, Tensor]:
        """What D's move says of its logits; their sign is what the augmentation listens to."""
        real, fake = (verdicts[name].scales() for name in ("real", "fake"))
        found = {"real": mean_of(real), "fake": mean_of(fake)}
        if self.augment is not None:
            found["sign"] = mean_of([r.sign() for r in real])
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
    ) -> Context:
        """What penalties may look at; as `Context`."""
        dtype = next(self.net.parameters()).dtype

        def judge(sample: Tensor, beside: Beside, source: str = "penalty") -> Tensor:
            # A gradient of a gradient in half precision over- or underflows; the penalty leaves autocast.
            with full_precision(sample):
                said: Verdict = self.net(*self.shown(self._columns(sample, beside), rng, source))
                return said.scores()

        (x, y), (x_fake, y_fake) = self._sample(real, dtype), self._sample(fake, dtype)
        return Context(self.nets, judge, x, x_fake, y, y_fake, rng, dict(verdicts or {}), z, generate, draw)

    def due(self, side: Side, context: Context) -> dict[str, Tensor]:
        """What a side pays at every step beside its objective."""
        names = [name for name, p in self.penalties.items() if p.side == side and p.every == 1]
        return {key: cost for name in names for key, cost in self.pay(name, context).items()}

    def lazy(self) -> dict[str, Penalty]:
        """Penalties that are paid at some steps only, each in a move of its own."""
        return {name: p for name, p in self.penalties.items() if p.every > 1}

    def pay(self, name: str, context: Context) -> dict[str, Tensor]:
        """What one penalty costs, weighted; empty where there is nothing to differentiate."""
        cost = self.penalties[name](replace(context, memory=self.memory(f"memory_{name}")))
        key = f"penalty_{name}" if self.lone else f"penalty_{self.name}_{name}"
        return {} if cost is None else {key: self.weight(self.penalties[name]) * cost}

    def weight(self, penalty: Penalty) -> float:
        """λ at this moment of the run."""
        return penalty.weight * (1.0 if self.ramp is None else self.ramp.weight(self._seen))

    def after(self, networks: Collection[str], stats: Mapping[str, Tensor], images: int) -> None:
        """After a move of some networks, let its penalties move their weights back and remember.

        The objective remembers, too, and the augmentation is told how D fares. images: rows of the move.
        """
        names = {f"D_{kind}": f"{self.name}_{kind}" for kind in ("real", "fake", "sign")}
        own = {told: stats[name] for told, name in names.items() if name in stats}
        sides = {"discriminator": self.name in networks, "generator": self.generators[0] in networks}
        for name, penalty in self.penalties.items():
            if sides[penalty.side]:
                net = self.nets[penalty.side]
                penalty.project(net)
                penalty.remember(self.memory(f"memory_{name}"), net, own)
        if sides["discriminator"]:
            self.loss.remember(self.memory("objective"), self.net, own)
            if self.augment is not None and "D_sign" in own:
                self.augment.feedback(own, images)
            elif isinstance(self.augment, Ada) and self.augment.target is not None and f"loss_{self.name}" in stats:
                raise CombinationError(
                    f"augment=ada follows the sign of {self.name}'s logits, which this game does not report: return"
                    " critic.stats(verdicts) in its Outcome, or set augment.target=null"
                )

    def memory(self, of: str) -> dict[str, Tensor]:
        """What a penalty (`memory_NAME`) or the objective remembers; to be changed in place."""
        return {key: self.get_buffer(name) for key, name in self._kept.get(of, {}).items()}

    def _keep(self, of: str, memory: Mapping[str, Tensor]) -> None:
        self._kept[of] = {key: f"{of}_{key}" for key in memory}
        for key, value in memory.items():
            self.register_buffer(f"{of}_{key}", value)

    # -- columns -------------------------------------------------------------------------------------------------------

    def _purpose(self, words: str) -> str:
        """What numbers are keyed by: other ones for another critic."""
        return words if self.lone else f"{self.name} {words}"

    def _images(self, columns: Columns) -> Iterator[Tensor]:
        named = zip(self.columns, columns, strict=True)
        return (x for name, x in named if x is not None and name in self.images)

    def _labels(self, columns: Columns) -> Tensor | None:
        return columns[self.columns.index(self.label)] if self.label in self.columns else None

    def _sample(self, columns: Columns | None, dtype: torch.dtype) -> tuple[Tensor | None, Beside]:
        """A source's sample in the parameters' dtype, and what is judged beside it."""
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
        """The auxiliary classifier's cross entropy over some sources, where D has one."""
        terms = [cross_entropy(v.classes.float(), y) for v, y in told if v.classes is not None and y is not None]
        return {f"class_{name}": self.class_weight * sum_of(terms)} if terms and self.class_weight else {}


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


def mean_of(scales: Sequence[Tensor]) -> Tensor:
    """Mean of all logits, each scale with the same weight, detached."""
    return sum_of([s.detach().mean() for s in scales]) / len(scales)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """One column of several sources, one after the other; None where there is none."""
    there = [x for x in parts if x is not None]
    return torch.cat([x.to(there[0].dtype) for x in there]) if there else None


def _with_logits(verdicts: Verdicts, **logits: list[Tensor]) -> Verdicts:
    """The verdicts with other logits, a list of scales each; sources without any are left as they are."""
    return verdicts | {name: replace(verdicts[name], logits=scales) for name, scales in logits.items() if scales}


@contextmanager
def _evaluated(net: nn.Module) -> Iterator[None]:
    """Inside, a network is in evaluation mode; afterwards each of its modules is in the mode that it was in."""
    before = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        yield
    finally:
        for module, training in before:
            module.training = training
