"""A CycleGAN of a few weights: two generators, two critics, two feeds, pools, cycle and identity as named terms."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.rng import Rng
from gancli.data.loader import Stream
from gancli.games.critic import Critic
from gancli.games.game import Batch, Game, Move, Outcome, Result
from gancli.losses.adversarial import AdversarialLoss, LeastSquares
from gancli.losses.penalties import Penalty
from gancli.losses.terms import Term, Terms
from gancli.nets.layers.noise import Dropout
from gancli.nets.verdict import Verdict
from gancli.train.averages import Average
from gancli.train.engine import Engine

SIDE, POOL = 4, 5
OF = {"D_A": "G_B2A", "D_B": "G_A2B"}  # whose images each critic judges
TERMS = {
    "cycle_A": Term(columns=("x_A", "back_A"), weight=10.0),
    "cycle_B": Term(columns=("x_B", "back_B"), weight=10.0),
    "same_A": Term(columns=("x_A", "same_A"), weight=5.0, every=2),
    "colour": Term(columns=("x_A", "fake_B"), distance="huber", weight=0.1),
}


class Map(nn.Sequential):
    """Images to images, with dropout inside."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), Dropout(0.3), nn.Conv2d(4, 1, 3, padding=1))


class Patches(nn.Module):
    """Images to logits [B, 1, 2, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 2, 2), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 1))

    def forward(self, x: Tensor) -> Verdict:
        return Verdict(self.body(x))


class CycleGame(Game):
    """Zhu et al. 2017: both generators move together, then both critics on images out of a pool."""

    def __init__(
        self,
        loss: AdversarialLoss | None = None,
        penalties: Mapping[str, Penalty] | None = None,
        augment: Augment | None = None,
        terms: Mapping[str, Term] | None = None,
    ):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.nets = nn.ModuleDict({"G_A2B": Map(), "G_B2A": Map(), "D_A": Patches(), "D_B": Patches()})
        alone = {"columns": ("x",), "lone": False}
        parts = loss or LeastSquares(), penalties or {}
        self.critics = nn.ModuleDict(
            {D: Critic(D, self.nets, *parts, copy.deepcopy(augment), generator=G, **alone) for D, G in OF.items()}  # type: ignore[arg-type]
        )
        made = [f"{kind}_{domain}" for kind in ("x", "fake", "back", "same") for domain in "AB"]
        self.terms = Terms(TERMS if terms is None else terms, columns=made, lazy=True)
        for D in OF:
            self.register_buffer(f"pool_{D}", torch.zeros(POOL, 1, SIDE, SIDE))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"G": ("G_A2B", "G_B2A"), "D": ("D_A", "D_B")}

    def averaged(self) -> tuple[str, ...]:
        return ("G_A2B", "G_B2A")

    def moves(self, seen: int) -> Sequence[Move]:
        fakes = tuple(OF)
        return (
            Move("G", self.map_loss, ("a", "b"), remembers=fakes),
            *(
                Move("G", self.term_loss(every), ("a", "b"), shared=True, every=every, name=f"terms_{every}")
                for every in self.terms.rhythms("G")
            ),
            Move("D", self.judge_loss, ("a", "b"), carried=fakes, shared=True),
        )

    def columns(self, batch: Batch, wanted: set[str]) -> Batch:
        """What both generators make of both domains, as far as it is wanted."""
        A2B, B2A = self.nets["G_A2B"], self.nets["G_B2A"]
        made = {"x_A": batch["a.x"], "x_B": batch["b.x"]}
        if wanted & {"fake_B", "back_A"}:
            made["fake_B"] = A2B(made["x_A"])
            made["back_A"] = B2A(made["fake_B"])
        if wanted & {"fake_A", "back_B"}:
            made["fake_A"] = B2A(made["x_B"])
            made["back_B"] = A2B(made["fake_A"])
        return made | {f"same_{d}": net(made[f"x_{d}"]) for d, net in (("A", B2A), ("B", A2B)) if f"same_{d}" in wanted}

    def map_loss(self, batch: Batch, rng: Rng) -> Outcome:
        made = self.columns(batch, self.terms.wanted("G") | {"fake_A", "fake_B"})
        losses = self.terms.costs("G", made)
        for D, critic in cast("dict[str, Critic]", self.critics).items():
            sources = {"fake": (made[f"fake_{D[2]}"],)}
            verdicts = critic.judge(rng, **sources)
            losses |= critic.generator_losses(verdicts, **sources)
            losses |= critic.due("generator", critic.context(rng, verdicts, fake=sources["fake"]))
        return Outcome(losses, carry={D: made[f"fake_{D[2]}"] for D in OF})

    def term_loss(self, every: int) -> Any:
        def loss(batch: Batch, rng: Rng) -> Outcome:
            return Outcome(self.terms.costs("G", self.columns(batch, self.terms.wanted("G", every)), every))

        return loss

    def judge_loss(self, batch: Batch, rng: Rng) -> Outcome:
        losses, stats = dict[str, Tensor](), dict[str, Tensor]()
        for D, critic in cast("dict[str, Critic]", self.critics).items():
            sources = {"real": (batch[f"{D[2].lower()}.x"],), "fake": (batch[D],)}
            verdicts = critic.judge(rng, **sources)
            losses |= critic.discriminator_losses(verdicts, rng, **sources)
            losses |= critic.due("discriminator", critic.context(rng, verdicts, **sources))
            stats |= critic.stats(verdicts)
        return Outcome(losses, stats)

    @torch.no_grad()
    def after(self, move: Move, result: Result, rng: Rng, seen: int) -> Mapping[str, Tensor] | None:
        super().after(move, result, rng, seen)
        if not result.carry:
            return None
        out = {D: [*result.carry[D]] for D in OF}
        for k, draw in enumerate(rng.uniform("pool").tolist()):
            place, old = int(draw * 2 * POOL), int(self.filled) == POOL
            if not old:
                place = int(self.filled)
                self.filled += 1
            for D in OF if place < POOL else ():
                pool, new = getattr(self, f"pool_{D}"), result.carry[D][k]
                out[D][k] = pool[place].clone() if old else new
                pool[place] = new
        return {D: torch.stack(rows) for D, rows in out.items()}


class Images:
    """An endless stream of images, in order."""

    def __init__(self, seed: int):
        self.x = torch.rand(11, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    def batch(self, position: int, total: int, start: int = 0, stop: int | None = None, level: int = 0) -> Batch:
        assert not level, "there is one size of these"
        places = torch.arange(position + start, position + (total if stop is None else stop)) % 11
        return {"x": self.x[places]}


def engine(
    game: CycleGame | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    batch_size: int = 4,
    micro_batch: int | None = None,
    world: World | None = None,
) -> Engine:
    """An engine that plays it."""
    game = (game or CycleGame()).to(dtype)
    rates = {name: torch.optim.Adam(p, lr=0.01, betas=(0.5, 0.9)) for name, p in game.parameters_by_player().items()}
    return Engine(
        game,
        cast("dict[str, Stream]", {"a": Images(1), "b": Images(2)}),
        rates,
        compute=Compute(),
        batch_size=batch_size,
        micro_batch=micro_batch,
        average=Average(decay=0.5, warmup=False),
        world=world,
    )
