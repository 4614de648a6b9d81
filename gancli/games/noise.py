"""The game of the 2014 GAN and all its kin: G makes images of noise, D tells them from real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
from gancli.nets.layers.noise import keyed
from gancli.nets.layers.together import REFERENCE, Referenced
from gancli.train.ramp import Ramp

MOST_REPEATS = 10_000  # of D's moves in a step, which a stop waits for; of batches


class NoiseGame(Game):
    """D takes `d_steps` moves, then G one on `g_size` times as many images (Goodfellow et al. 2014, algorithm 1).

    Its critic has the other parts and options, as `Critic` says. Raises ConfigError for numbers out of range.
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
        at_least(1, **{"game.d_steps": d_steps, "game.g_size": g_size})
        at_most(MOST_REPEATS, **{"game.d_steps": d_steps, "game.g_size": g_size})
        self.nets, self.latent, self.classes = nn.ModuleDict(nets), latent, classes
        self.labelled = any(getattr(net, "conditional", False) for net in nets.values())
        self.critic = Critic(
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
        """As of every game; D judges `pack` samples at once, joined in their channels."""
        found = super().told(network, fields, latent_dim, options)
        pack: int = convert(options.get("pack", 1), int, "game.pack")
        if network == "D":
            channels, *sides = found["shape"]
            found["shape"] = (channels * max(1, pack), *sides)  # below 1: refused when it is built
        return found

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """One table. Raises CombinationError for several."""
        return {"real": lone(data)}

    def reads(self) -> tuple[str, ...]:
        """Samples, and their classes where a network is told of them."""
        return ("x", "y") if self.labelled else ("x",)

    def setup_rows(self, images: int) -> int:
        """As many as networks that fit themselves to the data ask for; a reference batch for each pack."""
        virtual = REFERENCE * self.critic.pack if any(isinstance(m, Referenced) for m in self.nets.modules()) else 0
        return max(virtual, *(min(images, getattr(net, "fit_rows", 0)) for net in self.nets.values()))

    @torch.no_grad()
    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Let networks fit themselves to real images; give those with virtual batch norm their reference batches.

        The reference of G is of latents, D's of real images.
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
        """The streams that D's moves are dealt from."""
        return ("real",)

    def generators(self) -> tuple[str, ...]:
        """G."""
        return ("G",)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The label, where G hears of it."""
        return {"y": self.fields["y"]} if self.labelled else {}

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """What the data are."""
        return {"x": self.fields["x"]}

    def sampling_options(self) -> Mapping[str, Option]:
        """truncation."""
        return {"truncation": Option("latents from the distribution cut off at ± this value")}

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """z, [rows, latent.dim], and y where G hears of labels."""
        batch = {"z": self.latent.draw(noise, options.get("truncation"))}
        if self.labelled:
            batch["y"] = given["y"] if "y" in given else noise.integers("y", self.classes)
        return batch

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """G(z, y)."""
        return {"x": nets["G"](inputs["z"], inputs.get("y"))}

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """Latents; between classes, the rows by which the layers look them up."""
        z = {"z": Path("z", "sphere", self.latent)}
        return z | {"class": Path("y", "classes")} if self.labelled else z

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's D side on real images and fresh fakes, and the penalties paid at every step."""
        critic, real, fake = self.critic, self._real(batch), self._fakes(rng, batch)
        verdicts = critic.judge(rng, real=real, fake=fake)
        losses = critic.discriminator_losses(verdicts, rng, real=real, fake=fake)
        losses |= critic.due("discriminator", self._context(rng, verdicts, real, fake))
        return Outcome(losses, critic.stats(verdicts))

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objective's G side on fresh fakes."""
        critic, sources = self.critic, {"fake": self._fakes(rng, batch, graph=True)}
        verdicts = critic.judge(rng, **sources)
        if critic.compares():
            sources["real"] = self._real(batch)
            with torch.no_grad():  # what D says of real images does not depend on G
                verdicts |= critic.judge(rng, real=sources["real"])
        losses = critic.generator_losses(verdicts, **sources)
        return Outcome(losses | critic.due("generator", self._context(rng, verdicts, fake=sources["fake"])))

    def _lazy_move(self, name: str, penalty: Penalty) -> Move:
        """A move that pays one penalty."""
        pays_d = penalty.side == "discriminator"

        def loss(batch: Batch, rng: Rng) -> Outcome:
            fake = self._fakes(rng, graph=not pays_d) if penalty.needs_fake else None
            context = self._context(rng, {}, self._real(batch) if pays_d else None, fake)
            return Outcome(self.critic.pay(name, context))

        player, feeds = ("D", ("real",)) if pays_d else ("G", ())
        return Move(player, loss, feeds, every=penalty.every, name=name)

    def _real(self, batch: Batch) -> Columns:
        return batch["x"], batch["y"] if self.labelled else None

    def _fakes(self, rng: Rng, batch: Batch | None = None, graph: bool = False) -> Columns:
        """Fakes of classes that are drawn evenly, or that the real images have that they are paired with."""
        y = rng.integers("y", self.classes) if self.labelled else None
        if self.labelled and self.critic.loss.paired and batch and "y" in batch:
            y = batch["y"]
        with torch.set_grad_enabled(graph):
            return self.nets["G"](self.latent.draw(rng), y), y

    def _context(
        self, rng: Rng, verdicts: Verdicts, real: Columns | None = None, fake: Columns | None = None
    ) -> Context:
        """What penalties may look at."""

        def generate(latents: Tensor, labels: Tensor | None) -> Tensor:
            return self.nets["G"](latents, labels)  # type: ignore[no-any-return]

        def draw(purpose: str) -> Tensor:
            return self.latent.draw(rng, purpose=purpose)

        z = self.latent.draw(rng)
        return self.critic.context(rng, verdicts, real=real, fake=fake, z=z, generate=generate, draw=draw)
