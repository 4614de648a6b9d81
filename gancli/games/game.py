"""The interface between a game and the engine: a game says who plays, what each loses and whose move it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.source import Source
from gancli.nets.verdict import Verdict

Batch = dict[str, Tensor]
Couples = int | Literal["all"]


@dataclass(frozen=True)
class Outcome:
    """What a player's loss function returns for one micro-batch.

    losses: scalar means, already weighted; the engine adds them up and runs backward.
    stats: detached scalar means, logged and handed to `after`.
    carry: detached tensors [B, ...], joined over micro-batches and put into the batches of the step's later moves.
    """

    losses: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)
    carry: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """One optimizer step of one player.

    feeds: streams of data, fresh at each repeat. size: this move's batch as a multiple of batch_size. every: played
    each `every` steps only, its losses multiplied by as much. repeat: how often in a row (critic steps).
    name: what the random numbers are keyed by.
    """

    player: str
    loss: Callable[[Batch, Rng], Outcome]
    feeds: tuple[str, ...] = ("real",)
    size: int = 1
    every: int = 1
    repeat: int = 1
    name: str = ""


class Game(nn.Module):
    """Owns the networks. Everything a game must remember between steps is a buffer, so that a checkpoint has it."""

    nets: nn.ModuleDict
    couples: Couples = 1
    labelled: bool = False  # whether latents come with labels
    classes: int = 0
    twice: set[str] = set()  # noqa: RUF012  # networks that are differentiated twice: not to be compiled

    def players(self) -> dict[str, list[nn.Module]]:
        """Who plays, each with the networks its optimizer moves."""
        return {name: [net] for name, net in self.nets.items()}

    def averaged(self) -> tuple[str, ...]:
        """The networks that get an exponential moving average."""
        return ("G",)

    def feeds(self, source: Source) -> dict[str, Source]:
        """The streams that moves are dealt from, each with its data."""
        return {"real": source}

    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Called once, before a new run's first step, with a batch of data of `rng.total` rows."""

    def setup_rows(self, images: int) -> int:
        """How many real images of a data set of `images` `setup` wants; 0: it does nothing."""
        return 0

    def enter(self, seen: int) -> None:
        """Take up what the moment of the run decides. The engine alone calls it, once a step, before the moves."""

    def moves(self, seen: int) -> Sequence[Move]:
        """The step's moves, in order, after `seen` real images; whoever asks changes nothing."""
        raise NotImplementedError

    def judge(self, rng: Rng, **sources: tuple[Tensor, Tensor | None]) -> dict[str, Verdict]:
        """What D says of each source of (images, labels)."""
        raise NotImplementedError

    def after(self, move: Move, stats: Mapping[str, Tensor], carry: Mapping[str, Tensor], rng: Rng, seen: int) -> None:
        """Called when a move's optimizer step is done."""

    def latents(self, noise: Rng, **knobs: Any) -> Tensor:
        """What G eats, [rows, latent_dim]."""
        raise NotImplementedError

    def render(self, nets: Mapping[str, nn.Module], latents: Tensor, y: Tensor | None = None, **knobs: Any) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] (or points [B, D]) of latents, by the given networks (averaged or raw)."""
        raise NotImplementedError
