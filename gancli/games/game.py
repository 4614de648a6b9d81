"""The interface between a game and the engine: a game says who plays, what each loses and whose move it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.fields import Field, Label
from gancli.data.source import DataSet, Source, class_names, first_shape
from gancli.games.critic import Critic
from gancli.games.drawing import Diagnostics, Opinion, Option, Path
from gancli.games.remedies import remedies
from gancli.games.stages import Copy, Moment, Stage
from gancli.losses.adversarial import Couples

if TYPE_CHECKING:
    from gancli.pretrained.pretrained import Pretrained

Batch = dict[str, Tensor]


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
    """Owns the networks. Everything a game must remember between steps is a buffer, so that a checkpoint has it.

    fields: the columns of the data, as batches name them; known when the networks are built.
    """

    nets: nn.ModuleDict
    fields: Mapping[str, Field] = {}
    couples: Couples = 1
    pretrained: Pretrained | None = None  # the frozen network that was given to networks or to the game
    TOLD: ClassVar[tuple[str, ...]] = ("shape", "latent_dim", "classes")
    copied: Mapping[str, nn.Module] = {}  # the delayed copies by name, which the engine keeps

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Who plays, each with the names of the networks that its optimizer moves; known before these are built."""
        return {name: (name,) for name in networks}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """All that a network of this name may be told; it gets what its constructor asks for, by the names in `TOLD`.

        fields: of the data's columns, as batches name them. options: the game's, as configured.
        """
        return {"shape": first_shape(fields), "latent_dim": latent_dim, "classes": len(class_names(fields))}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """What `dataset=random` makes for this game: the kind of field of each column, FEED.COLUMN of several feeds."""
        return {"x": "image", "y": "label"}

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
        """The networks that get an exponential moving average: by default those that samples are drawn with."""
        return self.generators()

    def copies(self) -> Mapping[str, Copy]:
        """Frozen networks that follow others, by name: the engine keeps them, and `copied` has them."""
        return {}

    def keeps(self) -> Mapping[str, Tensor]:
        """Carried columns that live on to the next step, each with the row [...] that all rows begin with.

        They begin anew where a stage has another batch size.
        """
        return {}

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """The streams that moves are dealt from, each with its table."""
        return {"real": data} if isinstance(data, Source) else dict(data.feeds)

    def reads(self) -> tuple[str, ...] | None:
        """The columns that moves are dealt, of every feed, or of one as FEED.COLUMN; None: all that there are."""
        return None

    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Called once, before a new run's first step, with a batch of data of `rng.total` rows."""

    def setup_rows(self, images: int) -> int:
        """How many real images of a data set of `images` `setup` wants; 0: it does nothing."""
        return 0

    @property
    def eager(self) -> Mapping[str, str]:
        """The networks that are not to be compiled, each with the reason."""
        return {c.name: "its gradient penalty needs a second derivative" for c in self.judging() if c.twice}

    def judging(self) -> list[Critic]:
        """The critics among its parts."""
        parts = [part for name, part in self.named_children() if name != "nets"]
        return [module for part in parts for module in part.modules() if isinstance(module, Critic)]

    def remedies(self, alarm: str) -> tuple[str, ...]:
        """What to type against an alarm ("saturated", "collapse", "vanishing"), as far as its parts would take it."""
        return remedies(alarm, self)

    def stages(self) -> Sequence[Stage]:
        """The stages of a run, in order; known before it begins."""
        return (Stage(),)

    def enter(self, at: Moment) -> None:
        """Take up what the moment of the run decides. The engine alone calls it, once a step, before the moves."""
        for critic in self.judging():
            critic.enter(at.seen)

    def moves(self, at: Moment) -> Sequence[Move]:
        """The step's moves, in order; whoever asks changes nothing.

        The first one consumes as many rows of the first feed at each step of a stage.
        """
        raise NotImplementedError

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Called when a move's optimizer step is done.

        rng: the move's, of the whole batch. What it returns replaces columns that the move remembers, of all ranks.
        Critics remember here.
        """
        networks = self.players(list(self.nets))[move.player]
        for critic in self.judging():
            critic.after(networks, result.stats, rng.total)
        return None

    # -- all that whoever draws, exports or watches samples knows of a game --------------------------------------------

    def generators(self) -> tuple[str, ...]:
        """The networks that samples are drawn with: by default the first player's."""
        return next(iter(self.players(list(self.nets)).values()))

    def drawing(self, direction: str = "") -> tuple[str, ...]:
        """Those of the generators that samples of a direction cannot do without; an export of it holds them alone."""
        return self.generators()

    def discriminators(self) -> tuple[str, ...]:
        """The networks that tell samples from data, the first of them the one that others ask; () where none does."""
        return tuple(critic.name for critic in self.judging())

    def directions(self) -> tuple[str, ...]:
        """The kinds of samples that can be drawn, such as A2B and B2A; the first where none is asked for."""
        return ("",)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """Columns that a sample is made from: labels are chosen or drawn, others are rows of data; {} for noise."""
        return {}

    def input_multiple(self, direction: str = "") -> int | None:
        """What the sides of an input image have to be multiples of; None: it has the size of its field."""
        return None

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """What `generate` makes, by name: first the sample, called as the column of the data that it is to be like.

        What stands beside it may be left out where networks are missing that only this needs.
        """
        raise NotImplementedError

    def targets(self, direction: str = "") -> str | None:
        """The column that holds the one right answer to each input; None where there is none."""
        return None

    def sampling_options(self) -> Mapping[str, Option]:
        """Numbers that `inputs` takes, by name, such as a truncation."""
        return {}

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """What `generate` is given for `noise.rows` samples: numbers of `noise`, and the columns that are given.

        Of the input fields, labels that are not given are drawn.
        """
        return dict(given)

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """The output fields' columns, ready as networks make them, by the given networks (averaged or raw)."""
        raise NotImplementedError

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """What may be walked from one sample to another, by the word that `gan interpolate axis=` takes."""
        return {}

    def diagnostics(self) -> Diagnostics:
        """What alarms and the progress line watch: by default the first critic, and who makes samples.

        Where an objective weighs nothing, that player learns from the critic's features, however sure this one is.
        """
        first = self.generators()[0]
        learner = next((player for player, nets in self.players(list(self.nets)).items() if first in nets), None)
        critic = next(iter(self.judging()), None)
        if critic is None:
            return Diagnostics(learner)
        sure = critic.loss.sure if critic.adversarial else None
        return Diagnostics(learner, f"{critic.name}_real", f"{critic.name}_fake", sure)

    def discriminate(self, x: Tensor) -> Opinion | None:
        """What the first critic says of rows of data [B, ...], undisturbed; None where it needs more than these."""
        critic = next(iter(self.judging()), None)
        if critic is None or critic.labelled or set(critic.columns) - {critic.label} != set(critic.images[:1]):
            return None
        with torch.no_grad():
            scores = critic.said(x, None).float()
        return Opinion(scores.sigmoid() if critic.loss.logistic else scores, critic.loss.logistic)


def sample_of(game: Game, direction: str | None = None) -> tuple[str, Field]:
    """A sample's name and what it is, of a direction (None: the first)."""
    return next(iter(game.output_fields(game.directions()[0] if direction is None else direction).items()))


def label_of(game: Game, direction: str = "") -> tuple[str, Label] | None:
    """The column of classes that samples are asked for by, None where they are asked for by none."""
    fields = game.input_fields(direction).items()
    return next(((name, field) for name, field in fields if isinstance(field, Label)), None)


def draws_freely(game: Game, direction: str = "") -> bool:
    """Whether samples need nothing but numbers and labels, so that there are as many as one likes."""
    return all(isinstance(field, Label) for field in game.input_fields(direction).values())
