"""CycleGAN: unpaired translation by two generators, each the other's inverse (Zhu et al. 2017)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.config.settings import at_least, at_most
from gancli.data.fields import Field
from gancli.data.paired import DOMAINS, both_feeds
from gancli.data.source import DataSet, Source
from gancli.games.critic import Critic
from gancli.games.critic_losses import discriminator_side, generator_side, mixes, together
from gancli.games.game import Batch, Move, Outcome, Result
from gancli.games.pool import Pool
from gancli.games.stages import Moment
from gancli.games.translation import Route, Translation, refuse_sizes, refuse_unlike
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.losses.terms import Term, Terms
from gancli.nets.layers.reflect import once
from gancli.pretrained.perceptual import feature_distances
from gancli.pretrained.pretrained import Pretrained
from gancli.train.ramp import Ramp

DIRECTIONS = {"A2B": ("A", "B"), "B2A": ("B", "A")}
IMAGES = tuple(f"{domain}.x" for domain in DOMAINS)
MOST_KEPT = 10_000
COLUMNS = tuple(f"{kind}{domain}" for kind in ("", "fake_", "back_", "same_") for domain in DOMAINS)


class CycleGame(Translation):
    """Both generators' move, then both critics', on fakes from a pool of old and new ones.

    terms: over the columns A, B, fake_B = G_A2B(A), back_A = G_B2A(fake_B), same_B = G_A2B(B), and the like (cycle:
    eq. 2; identity: section 5.2). pool: number of fakes kept per domain. adversarial, d_weight: weight of the objective
    in the generators' and in the critics' loss. Raises ConfigError for numbers out of range.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        fields: Mapping[str, Field],
        terms: Mapping[str, Term] | None = None,
        augment: Augment | None = None,
        pretrained: Pretrained | None = None,
        *,
        pool: int = 50,
        adversarial: float = 2.0,
        d_weight: float = 1.0,
        ramp: Ramp | None = None,
    ):
        super().__init__()
        at_least(0, **{"game.pool": pool, "game.d_weight": d_weight})
        at_most(MOST_KEPT, **{"game.pool": pool})
        self.nets, self.d_weight = nn.ModuleDict(nets), d_weight
        shared: dict[str, Any] = {"columns": ("x",), "adversarial": adversarial, "ramp": ramp, "lone": False}
        self._critics = dict[str, Critic]()
        for direction, (_, b) in DIRECTIONS.items():
            parts = loss, penalties, copy.deepcopy(augment)  # ADA's p follows its own critic
            self._critics[b] = Critic(f"D_{b}", self.nets, *parts, generator=f"G_{direction}", **shared)
        self._pools = {domain: Pool(pool, fields[f"{domain}.x"].shape) for domain in DOMAINS}
        self.critics, self.pools = nn.ModuleDict(self._critics), nn.ModuleDict(self._pools)
        self.routes = {name: Route(f"G_{name}", f"{a}.x", f"{b}.x") for name, (a, b) in DIRECTIONS.items()}
        self.terms = Terms(terms or {}, columns=COLUMNS, distances=feature_distances(pretrained))
        refuse_unlike(self.terms, fields[IMAGES[0]], fields[IMAGES[1]])
        self._apart = any(mixes(self.nets[route.net]) for route in self.routes.values())
        self._fakes = tuple(f"fake_{domain}" for domain in DOMAINS)
        self._moves = (
            Move("G", self.generator_loss, DOMAINS, remembers=self._fakes),
            Move("D", self.discriminator_loss, DOMAINS, carried=self._fakes, shared=True),
        )

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """G with both generators, D with both critics."""
        return {"G": tuple(f"G_{direction}" for direction in DIRECTIONS), "D": ("D_A", "D_B")}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """A generator gets its input's shape and its output's channels; a critic gets its domain's shape."""
        taken, made = DIRECTIONS.get(network.removeprefix("G_"), (network[-1], network[-1]))
        refuse_sizes("cyclegan takes images", [fields[name] for name in IMAGES])
        shape = fields[f"{taken}.x"].shape
        return {"shape": shape, "out_channels": fields[f"{made}.x"].shape[0], "latent_dim": latent_dim, "classes": 0}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """One image column per domain, each in its own feed."""
        return dict.fromkeys(IMAGES, "image")

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """A and B. Raises CombinationError for other data."""
        return both_feeds(data, "cyclegan")

    def reads(self) -> tuple[str, ...]:
        """The images."""
        return IMAGES

    def moves(self, at: Moment) -> Sequence[Move]:
        """The generators, then the critics on the same rows."""
        return self._moves

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The generators' objectives in both directions, and the terms."""
        with once(self.nets):
            made = self._made(batch, self.terms.wanted("G"))
        losses = self.terms.costs("G", made)
        for domain, critic in self._critics.items():
            losses |= generator_side(critic, rng, real=(made[domain],), fake=(made[f"fake_{domain}"],))
        return Outcome(losses, carry={name: made[name].detach() for name in self._fakes})

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """The objectives of both critics, on fakes from the pools."""
        found = Outcome({})
        for domain, critic in self._critics.items():
            sides = {"real": (batch[f"{domain}.x"],), "fake": (batch[f"fake_{domain}"],)}
            one = discriminator_side(critic, rng, **sides, weight=self.d_weight)
            found = Outcome(found.losses | one.losses, found.stats | one.stats)
        return found

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Exchange the fakes with the pools', those of all ranks in the order of the batch."""
        super().after(move, result, rng, at)
        exchanged = {}
        for domain, pool in self._pools.items() if move.player == "G" else ():
            name, draws = f"fake_{domain}", rng.uniform(f"pool {domain}")
            exchanged[name] = pool.exchange(result.carry[name], draws, at.seen)
        return exchanged or None

    def _made(self, batch: Batch, wanted: set[str]) -> Batch:
        """The columns that terms and critics use; each generator translates all its data in one pass."""
        made = {domain: batch[f"{domain}.x"] for domain in DOMAINS}
        for direction, (a, b) in DIRECTIONS.items():
            sources = {f"fake_{b}": made[a]} | ({f"same_{b}": made[b]} if f"same_{b}" in wanted else {})
            made |= together(self.nets[f"G_{direction}"], sources, self._apart)
        for direction, (a, b) in DIRECTIONS.items():
            if f"back_{b}" in wanted:
                made[f"back_{b}"] = self.nets[f"G_{direction}"](made[f"fake_{a}"])
        return made
