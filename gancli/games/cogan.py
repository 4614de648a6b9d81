"""CoGAN: image pairs from one latent, learnt from two unpaired sets of images (Liu and Tuzel 2016)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.config.settings import at_least, at_most
from gancli.data.fields import Field
from gancli.data.paired import DOMAINS, both_feeds
from gancli.data.source import DataSet, Source
from gancli.games.critic import Critic
from gancli.games.critic_losses import discriminator_side, generator_side
from gancli.games.drawing import Option, Path
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.games.latent import Latent
from gancli.games.noise import MOST_REPEATS
from gancli.games.stages import Moment
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.nets.cogan import pair, tie
from gancli.train.ramp import Ramp

PLAYERS: dict[str, tuple[str, ...]] = {"G": ("G_A", "G_B"), "D": ("D_A", "D_B")}


class CoupledGame(Game):
    """Both D take `d_steps` moves, then both G one; each player's loss is the sum over both domains (eq. 2 and 3).

    The two networks of a player share their layer `shared` (`tie`). Each domain has its own `Critic`, which documents
    the other arguments. Raises ConfigError for numbers out of range.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        augment: Augment | None = None,
        *,
        d_steps: int = 1,
        ramp: Ramp | None = None,
    ):
        super().__init__()
        at_least(1, **{"game.d_steps": d_steps})
        at_most(MOST_REPEATS, **{"game.d_steps": d_steps})
        self.nets, self.latent = nn.ModuleDict(nets), latent
        for first, second in PLAYERS.values():
            tie(self.nets, first, second)  # before parameters are counted, moved, loaded or averaged
        own: dict[str, Any] = {"columns": ("x",), "lone": False, "ramp": ramp, "latents": True}
        self.critics = nn.ModuleList(
            Critic(D, self.nets, loss, penalties, copy.deepcopy(augment), generator=G, **own)
            for G, D in zip(*PLAYERS.values(), strict=True)
        )
        shown = DOMAINS if any(critic.compares() for critic in self.judging()) else ()
        self._moves = Move("D", self.d_loss, DOMAINS, repeat=d_steps), Move("G", self.g_loss, shown)

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """G and D, with two networks each."""
        return PLAYERS

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """As for every game; a network's shape is that of its own domain's images."""
        own = fields["B.x" if network.endswith("_B") else "A.x"]
        return super().told(network, fields, latent_dim, options) | {"shape": own.shape}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """Images in two feeds."""
        return {f"{d}.x": "image" for d in DOMAINS}

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """A and B. Raises CombinationError for other data."""
        return both_feeds(data, "cogan")

    def reads(self) -> tuple[str, ...]:
        """Only the images."""
        return tuple(self.columns({}))

    @property
    def eager(self) -> Mapping[str, str]:
        """Also the generators: their shared stages are run once for both."""
        return {**super().eager, **dict.fromkeys(PLAYERS["G"], "its shared layers are run once for both generators")}

    def moves(self, at: Moment) -> Sequence[Move]:
        """D, then G: the same at every step."""
        return self._moves

    def directions(self) -> tuple[str, ...]:
        """The domains: a sample is an image of this domain, with the pair's other image beside it."""
        return DOMAINS

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The image of the direction's domain, then that of the other domain."""
        return {f"{d}.x": self.fields[f"{d}.x"] for d in sorted(DOMAINS, reverse=direction == DOMAINS[1])}

    def sampling_options(self) -> Mapping[str, Option]:
        """`truncation`."""
        return {"truncation": Option("latents from the distribution truncated at ± this value")}

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """z, [rows, latent.dim]."""
        return {"z": self.latent.draw(noise, options.get("truncation"))}

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """Both images for z."""
        return dict(zip(self.reads(), pair(nets["G_A"], nets["G_B"], inputs["z"]), strict=True))

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """Between latents."""
        return {"z": Path("z", "sphere", self.latent)}

    def d_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The D side of both critics on real images and fresh fakes."""
        found = Outcome({})
        for domain, critic, fake, told in self._sides(rng):
            one = discriminator_side(critic, rng, real=(batch[f"{domain}.x"],), fake=(fake,), **told)
            found = Outcome(found.losses | one.losses, found.stats | one.stats)
        return found

    def g_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The G side of both critics on fresh fakes."""
        losses = dict[str, Tensor]()
        for domain, critic, fake, told in self._sides(rng, graph=True):
            real = (batch[f"{domain}.x"],) if batch else None
            losses |= generator_side(critic, rng, real=real, fake=(fake,), **told)
        return Outcome(losses)

    def _sides(self, rng: Rng, graph: bool = False) -> Iterator[tuple[str, Critic, Tensor, dict[str, Any]]]:
        """Yield each domain, its critic, fakes (of one latent for both) and keyword arguments of `Critic.context`."""
        z, draw = self.latent.draw(rng), lambda purpose: self.latent.draw(rng, purpose=purpose)
        with torch.set_grad_enabled(graph):
            fakes = pair(self.nets["G_A"], self.nets["G_B"], z)
        for domain, critic, fake in zip(DOMAINS, self.judging(), fakes, strict=True):
            told = {"z": z, "generate": self.nets[critic.generator], "draw": draw}
            yield domain, critic, fake, told
