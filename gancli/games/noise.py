"""The game of the original GAN and its variants: G generates images from noise, D tells them from real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.config.build import convert
from gancli.config.settings import at_least, at_most
from gancli.data.fields import Field
from gancli.data.source import DataSet, Source, lone
from gancli.games.critic import Columns, Critic, Verdicts
from gancli.games.drawing import Option, Path
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.games.latent import Latent
from gancli.games.stages import Moment
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Context, Penalty
from gancli.nets.layers.minibatch import REFERENCE, Referenced
from gancli.nets.layers.noise import keyed
from gancli.train.ramp import Ramp

MOST_REPEATS = 10_000  # D's moves in a step (a stop waits for the step's end), and batches of G's move


@dataclass(frozen=True)
class Fakes:
    """The fakes of a move, means over their rows for `after` (`Outcome.means`), and their styles if they have some."""

    columns: Columns
    means: dict[str, Tensor] = field(default_factory=dict)
    styles: Tensor | None = None


class NoiseGame(Game):
    """D takes `d_steps` moves, then G one on `g_size` times as many images (Goodfellow et al. 2014, algorithm 1).

    `Critic` documents the other arguments. same_classes: D's fakes have the classes of its real images, not drawn
    ones. Raises ConfigError for numbers out of range.
    """

    same_classes: ClassVar[bool] = False
    judges: ClassVar[type[Critic]] = Critic
    styled: ClassVar[bool] = False  # whether fakes have styles

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
        at_least(1, **{"game.d_steps": d_steps, "game.g_size": g_size})
        at_most(MOST_REPEATS, **{"game.d_steps": d_steps, "game.g_size": g_size})
        self.nets, self.latent, self.classes = nn.ModuleDict(nets), latent, classes
        self.labelled = any(getattr(net, "conditional", False) for net in nets.values())
        self.critic = self.judges(
            "D",
            self.nets,
            loss,
            penalties,
            augment,
            pack=pack,
            adversarial=adversarial,
            class_weight=class_weight,
            class_fakes=class_fakes,
            ramp=ramp,
            labelled=self.labelled,
            latents=True,
            lazy=True,
            styles=self.styled,
        )
        self._moves = (
            Move("D", self.discriminator_loss, self.discriminator_feeds(), repeat=d_steps),
            *(self._lazy_move(name, penalty) for name, penalty in self.critic.lazy().items()),
            Move("G", self.generator_loss, feeds=("real",) if self.critic.compares() else (), size=g_size),
        )

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """G and D."""
        return {"G": ("G",), "D": ("D",)}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As for every game; D judges `pack` samples at once, joined in their channels."""
        found = super().told(network, fields, latent_dim, options)
        pack: int = convert(options.get("pack", 1), int, "game.pack")
        if network == "D":
            channels, *sides = found["shape"]
            found["shape"] = (channels * max(1, pack), *sides)  # the constructor refuses values below 1
        return found

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """One table. Raises CombinationError for several."""
        return {"real": lone(data)}

    def reads(self) -> tuple[str, ...]:
        """Samples, and their classes if a network is conditional."""
        return ("x", "y") if self.labelled else ("x",)

    def setup_rows(self, images: int) -> int:
        """The most that a network's `fit` needs, or a reference batch for virtual batch norm, times `pack`."""
        virtual = REFERENCE * self.critic.pack if any(isinstance(m, Referenced) for m in self.nets.modules()) else 0
        return max(virtual, *(min(images, getattr(net, "fit_rows", 0)) for net in self.nets.values()))

    @torch.no_grad()
    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Call the networks' `fit` with real images, and set the reference batches of virtual batch norm.

        G's reference batch consists of latents, D's of real images.
        """
        for name, net in self.nets.items():
            if rows := getattr(net, "fit_rows", 0):
                fit: Any = net.fit
                x = real["x"][:rows].to(next(net.parameters()).dtype)
                with keyed({name: net}, rng.beside(*rng.parts, "fit", total=len(x))):
                    fit(x)
            for module in net.modules():
                if isinstance(module, Referenced):
                    shown = None if name == "G" else self.critic.shown(self._real(dict(real)), rng, "reference")[0]
                    rows = self.latent.draw(rng) if shown is None else shown.flatten(1)
                    module.refer(rows[:REFERENCE].reshape(module.reference.shape))

    def moves(self, at: Moment) -> Sequence[Move]:
        """D, the lazy penalties that are due, G: the same at every step."""
        return self._moves

    def discriminator_feeds(self) -> tuple[str, ...]:
        """The streams that D's moves get their rows from."""
        return ("real",)

    def generators(self) -> tuple[str, ...]:
        """G."""
        return ("G",)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The label, if G is conditional."""
        return {"y": self.fields["y"]} if self.labelled else {}

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The field of the data."""
        return {"x": self.fields["x"]}

    def sampling_options(self) -> Mapping[str, Option]:
        """`truncation`."""
        return {"truncation": Option("latents from the distribution truncated at ± this value")}

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """z, [rows, latent.dim], and y if G is conditional."""
        batch = {"z": self.latent.draw(noise, options.get("truncation"))}
        if self.labelled:
            batch["y"] = given["y"] if "y" in given else noise.integers("y", self.classes)
        return batch

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """G(z, y)."""
        return {"x": nets["G"](inputs["z"], inputs.get("y"))}

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """Between latents; between classes, by mixing the rows of their embeddings."""
        z = {"z": Path("z", "sphere", self.latent)}
        return z | {"class": Path("y", "classes")} if self.labelled else z

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """D's objective on real images and new fakes, and the penalties that apply at every step."""
        critic, real, made = self.critic, self._real(batch), self._fakes(rng, batch)
        fake = made.columns
        verdicts = critic.judge(rng, real=real, fake=fake)
        losses = critic.discriminator_losses(verdicts, rng, real=real, fake=fake)
        losses |= critic.due("discriminator", self._context(rng, verdicts, real, fake))
        return Outcome(losses, critic.stats(verdicts), means=made.means)

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """G's objective on new fakes."""
        critic, made = self.critic, self._fakes(rng, batch, graph=True)
        sources = {"fake": made.columns}
        verdicts = critic.judge(rng, **sources)
        if critic.compares():
            sources["real"] = self._real(batch)
            with torch.no_grad():  # D's output for real images does not depend on G
                verdicts |= critic.judge(rng, real=sources["real"])
        losses = critic.generator_losses(verdicts, **sources)
        context = self._context(rng, verdicts, fake=sources["fake"], styles=made.styles)
        losses |= critic.due("generator", context)
        return Outcome(losses, context.stats, means=made.means)

    def _lazy_move(self, name: str, penalty: Penalty) -> Move:
        """A move whose loss is one penalty."""
        pays_d = penalty.side == "discriminator"

        def loss(batch: Batch, rng: Rng) -> Outcome:
            made = self._fakes(rng, batch, graph=not pays_d) if penalty.needs_fake else Fakes(())
            context = self._context(
                rng, {}, self._real(batch) if pays_d else None, made.columns or None, styles=made.styles
            )
            return Outcome(self.critic.pay(name, context), context.stats, means=made.means)

        player, feeds = ("D", ("real",)) if pays_d else ("G", ())
        return Move(player, loss, feeds, penalty.rows_share(), penalty.every, name=name, rounds=True)

    def _real(self, batch: Batch) -> Columns:
        return batch["x"], batch["y"] if self.labelled else None

    def _fakes(self, rng: Rng, batch: Batch | None = None, graph: bool = False) -> Fakes:
        y = self._classes(rng, batch, graph)
        with torch.set_grad_enabled(graph):
            return Fakes((self.nets["G"](self.latent.draw(rng), y), y))

    def _classes(self, rng: Rng, batch: Batch | None, graph: bool) -> Tensor | None:
        """Uniformly drawn classes, or those of the real images that the loss pairs the fakes with.

        graph: for G's move.
        """
        if not self.labelled:
            return None
        if batch and "y" in batch and (self.critic.loss.paired or (self.same_classes and not graph)):
            return batch["y"]
        return rng.integers("y", self.classes)

    def magnified(self) -> int:
        """By how much the sides of a step's images are smaller than those that penalties see (`Critic.context`)."""
        return 1

    def _context(
        self,
        rng: Rng,
        verdicts: Verdicts,
        real: Columns | None = None,
        fake: Columns | None = None,
        styles: Tensor | None = None,
    ) -> Context:
        """The input of penalties."""

        def generate(latents: Tensor, labels: Tensor | None) -> Tensor:
            return self.nets["G"](latents, labels)  # type: ignore[no-any-return]

        def draw(purpose: str) -> Tensor:
            return self.latent.draw(rng, purpose=purpose)

        z = self.latent.draw(rng)
        found = self.critic.context(
            rng, verdicts, real=real, fake=fake, z=z, generate=generate, draw=draw, magnified=self.magnified()
        )
        return found if styles is None else replace(found, styles=styles)
