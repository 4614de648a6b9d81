"""The interface between a game and the engine: a game says who plays, what each loses and whose move it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.source import Source
from gancli.games.stages import Copy, Moment, Stage
from gancli.nets.verdict import Verdict

Batch = dict[str, Tensor]
Couples = int | Literal["all"]


@dataclass(frozen=True)
class Outcome:
    """What a player's loss function returns for one micro-batch.

    losses: scalar means, already weighted; the engine adds them up and runs backward.
    stats: detached scalar means, logged and handed to `after`.
    carry: detached tensors [B, ...], joined over micro-batches, for later moves of the step that ask for them.
    means: detached means of any shape over the rows, handed to `after` and not logged.
    """

    losses: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)
    carry: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What a whole move gave, over all micro-batches and ranks: losses and statistics, means, and carried rows."""

    stats: dict[str, Tensor]
    means: dict[str, Tensor]
    carry: dict[str, Tensor]


@dataclass(frozen=True)
class Move:
    """One optimizer step of one player.

    feeds: streams of data, fresh at each repeat. size: this move's batch as a multiple of batch_size. every: played
    each `every` steps only, its losses multiplied by as much. repeat: how often in a row (critic steps).
    name: what the random numbers are keyed by; each move has its own. carried: columns that this one gets, too, of as
    many rows: of earlier moves of the step, or those that the game keeps. remembers: columns it carries that `after` is
    given, of all ranks. shared: its feeds' rows are the step's last ones again, and counted once. corrects: the
    player's rate is multiplied by c = every / (every + 1) and Adam's betas raised to it, as if the lazy move belonged
    to each step (Karras et al. 2020, appendix B). gate: a buffer of the game's; the move rests while it is 0.
    """

    player: str
    loss: Callable[[Batch, Rng], Outcome]
    feeds: tuple[str, ...] = ("real",)
    size: float = 1
    every: int = 1
    repeat: int = 1
    name: str = ""
    carried: tuple[str, ...] = ()
    remembers: tuple[str, ...] = ()
    shared: bool = False
    corrects: bool = False
    gate: str | None = None


class Game(nn.Module):
    """Owns the networks. Everything a game must remember between steps is a buffer, so that a checkpoint has it."""

    nets: nn.ModuleDict
    couples: Couples = 1
    labelled: bool = False  # whether latents come with labels
    classes: int = 0
    copied: Mapping[str, nn.Module] = {}  # the delayed copies by name, which the engine keeps
    eager: Mapping[str, str] = {}  # the networks that are not to be compiled, each with the reason

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Who plays, each with the names of the networks that its optimizer moves; known before these are built."""
        return {name: (name,) for name in networks}

    @classmethod
    def shape_for(cls, network: str, shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, ...]:
        """The shape of what a network is shown, where a sample's is `shape`. options: the game's, as configured."""
        return shape

    def nets_of(self, player: str) -> list[nn.Module]:
        """A player's networks."""
        return [self.nets[name] for name in self.players(list(self.nets))[player]]

    def parameters_by_player(self) -> dict[str, list[nn.Parameter]]:
        """What each player's optimizer moves: no frozen parameter, and one that several share goes with the first."""
        taken: set[int] = set()
        found: dict[str, list[nn.Parameter]] = {}
        for player in self.players(list(self.nets)):
            every = {id(p): p for net in self.nets_of(player) for p in net.parameters() if p.requires_grad}
            found[player] = [p for key, p in every.items() if key not in taken]
            taken |= every.keys()
        return found

    def averaged(self) -> tuple[str, ...]:
        """The networks that get an exponential moving average."""
        return ("G",)

    def copies(self) -> Mapping[str, Copy]:
        """Frozen networks that follow others, by name: the engine keeps them, and `copied` has them."""
        return {}

    def keeps(self) -> Mapping[str, Tensor]:
        """Carried columns that live on to the next step, each with the row [...] that all rows begin with.

        They begin anew where a stage has another batch size.
        """
        return {}

    def feeds(self, source: Source) -> dict[str, Source]:
        """The streams that moves are dealt from, each with its data."""
        return {"real": source}

    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Called once, before a new run's first step, with a batch of data of `rng.total` rows."""

    def setup_rows(self, images: int) -> int:
        """How many real images of a data set of `images` `setup` wants; 0: it does nothing."""
        return 0

    def stages(self) -> Sequence[Stage]:
        """The stages of a run, in order; known before it begins."""
        return (Stage(),)

    def enter(self, at: Moment) -> None:
        """Take up what the moment of the run decides. The engine alone calls it, once a step, before the moves."""

    def moves(self, at: Moment) -> Sequence[Move]:
        """The step's moves, in order; whoever asks changes nothing.

        The first one consumes as many rows of the first feed at each step of a stage.
        """
        raise NotImplementedError

    def judge(self, rng: Rng, **sources: tuple[Tensor, Tensor | None]) -> dict[str, Verdict]:
        """What D says of each source of (images, labels)."""
        raise NotImplementedError

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Called when a move's optimizer step is done.

        rng: the move's, of the whole batch. What it returns replaces columns that the move remembers, of all ranks.
        """

    def latents(self, noise: Rng, **knobs: Any) -> Tensor:
        """What G eats, [rows, latent_dim]."""
        raise NotImplementedError

    def render(self, nets: Mapping[str, nn.Module], latents: Tensor, y: Tensor | None = None, **knobs: Any) -> Tensor:
        """Images [B, C, H, W] in [-1, 1] (or points [B, D]) of latents, by the given networks (averaged or raw)."""
        raise NotImplementedError
