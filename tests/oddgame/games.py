"""Three players of five networks, two feeds, three phases, a pool, a delayed copy; no latent and no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gancli.compute.rng import Rng
from gancli.data.fields import Field
from gancli.games.game import Batch, Game, Move, Outcome, Result
from gancli.games.stages import Copy, Moment, Stage


class OddGame(Game):
    """P makes table rows of words, by two networks that share a layer; Q judges them; R guesses the words back.

    First P alone learns to follow its own delayed copy, then Q joins, then R, whose eye is frozen. What P made is shown
    to Q out of a pool that all ranks share.
    """

    TOLD: ClassVar[tuple[str, ...]] = ("words", "length", "columns")

    def __init__(self, nets: Mapping[str, nn.Module], *, alone: int = 2, pair: int = 2, pool: int = 6):
        super().__init__()
        self.nets = nn.ModuleDict(nets)
        first, second = self.nets["P_one"], self.nets["P_two"]
        second.read = first.read
        self.alone, self.pair = alone, pair
        self.register_buffer("pool", torch.zeros(pool, first.out.out_features))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(first.out.out_features))

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"P": ("P_one", "P_two"), "Q": ("Q",), "R": ("R_eye", "R")}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        words, row = fields["u.words"], fields["v.row"]
        return {"words": len(words.vocabulary), "length": words.length, "columns": len(row.columns)}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return {"u.words": "tokens", "v.row": "table"}

    def stages(self) -> Sequence[Stage]:
        return (
            Stage(name="alone", unit="steps"),
            Stage(name="pair", unit="steps", start=self.alone),
            Stage(name="all", unit="steps", start=self.alone + self.pair, reset=("P",), end=self.alone + self.pair + 4),
        )

    def copies(self) -> Mapping[str, Copy]:
        return {"delayed": Copy(of="P_one", decay=0.8)}

    def averaged(self) -> tuple[str, ...]:
        return ("P_one", "P_two")

    def moves(self, at: Moment) -> Sequence[Move]:
        every = (
            Move("P", self.make_loss, ("u",), remembers=("made",)),
            Move("Q", self.judge_loss, ("v",), carried=("made",)),
            Move("R", self.guess_loss, ("v",), size=0.5, carried=()),
        )
        return every[: {"alone": 1, "pair": 2, "all": 3}[at.stage.name]]

    def made(self, nets: Mapping[str, nn.Module], words: Tensor) -> Tensor:
        return nets["P_one"](words) + nets["P_two"](words)

    def make_loss(self, batch: Batch, rng: Rng) -> Outcome:
        made = self.made(dict(self.nets.items()), batch["words"])
        wanted = self.copied["delayed"](batch["words"]) + rng.normal("wanted", made.shape[1]).to(made.dtype)
        loss = (made - wanted).square().mean() - 0.1 * self.nets["Q"](made).mean()
        return Outcome({"make_P": loss}, carry={"made": made.detach()}, means={"made": made.detach().mean(0)})

    def judge_loss(self, batch: Batch, rng: Rng) -> Outcome:
        real, fake = self.nets["Q"](batch["row"]), self.nets["Q"](batch["made"])
        return Outcome({"judge_Q": (fake - real + (real.square() + fake.square()) / 2).mean()}, {"edge": real.mean()})

    def guess_loss(self, batch: Batch, rng: Rng) -> Outcome:
        words = rng.integers("words", self.nets["R"].shape[1] - 1, self.nets["R"].shape[0]) + 1
        with torch.no_grad():
            rows = self.made(dict(self.nets.items()), words) + 0 * batch["row"]
        logits = self.nets["R"](self.nets["R_eye"](rows))
        return Outcome({"guess_R": cross_entropy(logits.flatten(0, 1), words.flatten())})

    @torch.no_grad()
    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        if move.player != "P":
            return None
        self.mean.lerp_(result.means["made"], 0.5)
        out = []
        for row, draw in zip(result.carry["made"], rng.uniform("pool").tolist(), strict=True):
            place = int(draw * len(self.pool))
            if int(self.filled) < len(self.pool):
                self.pool[int(self.filled)] = row
                self.filled += 1
                out.append(row)
            elif draw * len(self.pool) - place < 0.5:
                out.append(self.pool[place].clone())
                self.pool[place] = row
            else:
                out.append(row)
        return {"made": torch.stack(out)}

    def generators(self) -> tuple[str, ...]:
        return ("P_one", "P_two", "R_eye", "R")

    def drawing(self, direction: str = "") -> tuple[str, ...]:
        return ("R_eye", "R") if direction == "back" else ("P_one", "P_two")

    def directions(self) -> tuple[str, ...]:
        return ("forth", "back")

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        return {name: self.fields[name] for name in (["v.row"] if direction == "back" else ["u.words"])}

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        names = ["u.words", "v.row"] if direction == "back" else ["v.row", "u.words"]
        return {name: self.fields[name] for name in names}

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        if direction == "back":
            words = nets["R"](nets["R_eye"](inputs["v.row"])).argmax(2)
            return {"u.words": words, "v.row": inputs["v.row"]}
        return {"v.row": self.made(nets, inputs["u.words"]), "u.words": inputs["u.words"]}
