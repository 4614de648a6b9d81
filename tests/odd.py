"""A game that is nothing like noise to image: three players of five networks, two feeds of numbers, a pool, a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.rng import Rng
from gancli.data.loader import Stream
from gancli.games.game import Batch, Game, Move, Outcome, Result
from gancli.games.stages import Copy, Moment, Stage
from gancli.train.averages import Average
from gancli.train.engine import Engine

POOL = 6


class Rows:
    """An endless stream of rows of a table, in order."""

    def __init__(self, name: str, width: int, device: torch.device):
        numbers = torch.Generator().manual_seed(len(name) + width)
        self.rows = {name: torch.randn(17, width, generator=numbers).to(device)}
        self.levels: set[int] = set()  # that were asked for

    def batch(
        self, position: int, total: int, start: int = 0, stop: int | None = None, level: int = 0
    ) -> dict[str, Tensor]:
        self.levels.add(level)
        places = torch.arange(position + start, position + (total if stop is None else stop)) % 17
        return {name: rows[places] for name, rows in self.rows.items()}


class OddGame(Game):
    """P maps u to v by two networks that share their first layer; Q judges v; R, frozen in part, guesses u from v.

    P's made rows are carried to Q, out of a pool that all ranks share. Q rests while its gate is 0, which it is after
    each step in which a statistic of its own was low. A delayed copy of P's first network follows it.
    """

    def __init__(self, gate: bool = False, corrects: bool = False):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            first = nn.Linear(3, 4)
            self.nets = nn.ModuleDict(
                {
                    "P_one": nn.Sequential(first, nn.Tanh(), nn.Linear(4, 2)),
                    "P_two": nn.Sequential(first, nn.Tanh(), nn.Linear(4, 2)),
                    "Q": nn.Linear(2, 1),
                    "R_eye": nn.Linear(2, 4).requires_grad_(False),
                    "R": nn.Sequential(nn.Linear(4, 3), first),
                }
            )
        self.gate, self.corrects = gate, corrects
        self.register_buffer("pool", torch.zeros(POOL, 2))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("open", torch.ones(()))
        self.register_buffer("mean", torch.zeros(2))

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"P": ("P_one", "P_two"), "Q": ("Q",), "R": ("R_eye", "R")}

    def averaged(self) -> tuple[str, ...]:
        return ("P_one", "P_two")

    def stages(self) -> Sequence[Stage]:
        return (Stage(name="map"), Stage(name="adversarial", start=8))

    def copies(self) -> Mapping[str, Copy]:
        return {"slow": Copy(of="P_one", decay=0.8)}

    def moves(self, at: Moment) -> Sequence[Move]:
        adversarial = (
            Move("P", self.map_loss, ("u",), remembers=("made",)),
            Move("Q", self.judge_loss, ("v",), carried=("made",), gate="open" if self.gate else None),
            Move("R", self.guess_loss, ("u", "v"), size=0.5, every=2, corrects=self.corrects),
            Move("R", self.again_loss, ("u",), shared=True, name="again"),
        )
        return adversarial[:1] if at.stage.name == "map" else adversarial

    def map_loss(self, batch: Batch, rng: Rng) -> Outcome:
        made = self.nets["P_one"](batch["u"]) + self.nets["P_two"](batch["u"])
        wanted = self.copied["slow"](batch["u"]) + rng.normal("wanted", 2).to(made.dtype)
        loss = (made - wanted).square().mean() - 0.1 * self.nets["Q"](made).mean()
        return Outcome({"map_P": loss}, carry={"made": made.detach()}, means={"made": made.detach().mean(0)})

    def judge_loss(self, batch: Batch, rng: Rng) -> Outcome:
        real, fake = self.nets["Q"](batch["v"]), self.nets["Q"](batch["made"])
        return Outcome({"judge_Q": (fake - real + (real.square() + fake.square()) / 2).mean()}, {"edge": real.mean()})

    def guess_loss(self, batch: Batch, rng: Rng) -> Outcome:
        seen = self.nets["R_eye"](batch["v.v"])
        return Outcome({"guess_R": (self.nets["R"](seen)[:, :3] - batch["u.u"]).square().mean()})

    def again_loss(self, batch: Batch, rng: Rng) -> Outcome:
        R = self.nets["R"]
        return Outcome({"again_R": R(torch.tanh(R[1](batch["u"]))).square().mean()})

    @torch.no_grad()
    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        if move.player == "Q":
            self.open.fill_(float(result.stats["edge"] > -0.3))
        if move.player != "P":
            return None
        self.mean.lerp_(result.means["made"], 0.5)
        made = result.carry["made"]
        out, chosen = [], rng.uniform("pool")
        for row, draw in zip(made, chosen.tolist(), strict=True):
            place = int(draw * POOL)
            if int(self.filled) < POOL:
                self.pool[int(self.filled)] = row
                self.filled += 1
                out.append(row)
            elif draw * POOL - place < 0.5:
                out.append(self.pool[place].clone())
                self.pool[place] = row
            else:
                out.append(row)
        return {"made": torch.stack(out)}


class Recurrent(OddGame):
    """P sees, besides u, what it made of the rows of the step before; Q is told how often that was."""

    def keeps(self) -> Mapping[str, Tensor]:
        return {"last": torch.full((2,), 0.25), "age": torch.zeros((), dtype=torch.int64)}

    def moves(self, at: Moment) -> Sequence[Move]:
        first, *others = super().moves(at)
        return (replace(first, carried=("last", "age")), *others)

    def map_loss(self, batch: Batch, rng: Rng) -> Outcome:
        outcome = super().map_loss(batch, rng)
        made = self.nets["P_one"](batch["u"]) + batch["last"]
        loss = {"again_P": (made - self.nets["P_two"](batch["u"])).square().mean()}
        kept = {"last": (0.5 * made).detach(), "age": batch["age"] + 1}
        return replace(outcome, losses=outcome.losses | loss, carry=outcome.carry | kept)


def engine(
    game: Game | None = None,
    *,
    dtype: torch.dtype = torch.float64,
    batch_size: int | None = 8,
    micro_batch: int | None = None,
    world: World | None = None,
    compute: Compute | None = None,
    **options: Any,
) -> Engine:
    """An engine that plays it."""
    game, compute = (game or OddGame()).to(dtype), compute or Compute()
    optimizers = {
        name: torch.optim.Adam(params, lr=0.01, betas=(0.5, 0.9))
        for name, params in game.parameters_by_player().items()
    }
    return Engine(
        game,
        cast("dict[str, Stream]", {"u": Rows("u", 3, compute.device), "v": Rows("v", 2, compute.device)}),
        optimizers,
        compute=compute,
        batch_size=batch_size,
        micro_batch=micro_batch,
        average=Average(decay=0.5, warmup=False),
        world=world,
        **options,
    )
