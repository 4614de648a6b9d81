"""The interface between games and the engine: players, losses, and the moves of a step."""

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
from gancli.games.drawing import Diagnostics, Opinion, Option, Path, Styles
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
    stats: detached scalar means, logged and passed to `after`.
    carry: detached tensors [B, ...], joined over micro-batches, for later moves of the step that list them.
    means: detached means of any shape over the rows, passed to `after` and not logged.
    """

    losses: dict[str, Tensor]
    stats: dict[str, Tensor] = field(default_factory=dict)
    carry: dict[str, Tensor] = field(default_factory=dict)
    means: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The result of a move over all micro-batches and ranks: losses and statistics, means, and carried rows."""

    stats: dict[str, Tensor]
    means: dict[str, Tensor]
    carry: dict[str, Tensor]


@dataclass(frozen=True)
class Move:
    """One optimizer step of one player.

    feeds: streams of data; each repeat gets new rows. size: this move's batch as a multiple of batch_size. every: the
    move is played every `every` steps, and its losses are multiplied by `every`. repeat: how often in a row (critic
    steps). name: key of its random numbers, unique among the moves. carried: additional columns of as many rows, which
    earlier moves of the step carry or the game keeps. remembers: columns it carries that `after` gets, from all ranks.
    shared: it gets the last rows of its feeds in this step again, which are counted once. corrects: the player's
    learning rate is multiplied by c = every / (every + 1) and Adam's betas are raised to c, as if the lazy move were
    part of each step (Karras et al. 2020, appendix B). gate: a buffer of the game; the move is skipped while it is 0.
    rounds: its rows are rounded down where size makes them no whole number.
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
    rounds: bool = False

    def rows(self, batch_size: int) -> float:
        """Its rows for a batch size."""
        rows = batch_size * self.size
        return int(rows + 1e-6) if self.rounds else rows


class Game(nn.Module):
    """Base: owns the networks. All state that a game keeps between steps is a buffer, so that checkpoints contain it.

    fields: the columns of the data, by their names in batches; known when the networks are built.
    """

    nets: nn.ModuleDict
    fields: Mapping[str, Field] = {}
    couples: Couples = 1
    pretrained: Pretrained | None = None  # the frozen network that the networks or the game use
    TOLD: ClassVar[tuple[str, ...]] = ("shape", "latent_dim", "classes")
    copied: Mapping[str, nn.Module] = {}  # the delayed copies by name, which the engine updates

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Each player with the names of the networks that its optimizer updates; known before these are built."""
        return {name: (name,) for name in networks}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Keyword arguments, named in `TOLD`, for a network of this name; it gets those that its constructor has.

        fields: of the data's columns, by their names in batches. options: the game's, as configured.
        """
        return {"shape": first_shape(fields), "latent_dim": latent_dim, "classes": len(class_names(fields))}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """What `dataset=random` generates: the kind of field of each column, named FEED.COLUMN for several feeds."""
        return {"x": "image", "y": "label"}

    def nets_of(self, player: str) -> list[nn.Module]:
        """A player's networks."""
        return [self.nets[name] for name in self.players(list(self.nets))[player]]

    def parameters_by_player(self) -> dict[str, list[nn.Parameter]]:
        """Each player's trainable parameters; one that several players share belongs to the first of them."""
        taken: set[int] = set()
        found: dict[str, list[nn.Parameter]] = {}
        for player in self.players(list(self.nets)):
            every = {id(p): p for net in self.nets_of(player) for p in net.parameters() if p.requires_grad}
            found[player] = [p for key, p in every.items() if key not in taken]
            taken |= every.keys()
        return found

    def averaged(self) -> tuple[str, ...]:
        """The networks that get an exponential moving average: by default the generators."""
        return self.generators()

    def copies(self) -> Mapping[str, Copy]:
        """Frozen networks that follow others, by name: the engine updates them, and `copied` contains them."""
        return {}

    def keeps(self) -> Mapping[str, Tensor]:
        """Carried columns that are kept for the next step, each with the initial value [...] of its rows.

        They are reset when a stage changes the batch size.
        """
        return {}

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """The streams that moves get their rows from, each with its table."""
        return {"real": data} if isinstance(data, Source) else dict(data.feeds)

    def reads(self) -> tuple[str, ...] | None:
        """The columns that moves get, of every feed, or of one as FEED.COLUMN; None: all columns."""
        return None

    def setup(self, real: Mapping[str, Tensor], rng: Rng) -> None:
        """Called once, before a new run's first step, with a batch of `rng.total` rows of data."""

    def setup_rows(self, images: int) -> int:
        """How many real images, of the `images` in the data set, `setup` needs; 0: it is not called."""
        return 0

    @property
    def eager(self) -> Mapping[str, str]:
        """The networks that must not be compiled, each with the reason."""
        return {c.name: "its gradient penalty needs a second derivative" for c in self.judging() if c.twice}

    def judging(self) -> list[Critic]:
        """The game's critics."""
        parts = [part for name, part in self.named_children() if name != "nets"]
        return [module for part in parts for module in part.modules() if isinstance(module, Critic)]

    def remedies(self, alarm: str) -> tuple[str, ...]:
        """Overrides that may help against an alarm ("saturated", "collapse", "vanishing") and that its parts accept."""
        return remedies(alarm, self)

    def stages(self) -> Sequence[Stage]:
        """The stages of a run, in order; known before it begins."""
        return (Stage(),)

    def enter(self, at: Moment) -> None:
        """Update what depends on the progress of the run. Only the engine calls it, once a step, before the moves."""
        for critic in self.judging():
            critic.enter(at.seen)

    def moves(self, at: Moment) -> Sequence[Move]:
        """The step's moves, in order; the call has no side effects.

        The first move uses the same number of rows of the first feed at each step of a stage.
        """
        raise NotImplementedError

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Called after a move's optimizer step; critics update their state here.

        rng: the move's, for the whole batch. The returned columns, of all ranks, replace those that the move remembers.
        """
        networks = self.players(list(self.nets))[move.player]
        for critic in self.judging():
            critic.after(networks, result.stats, rng.total)
        return None

    # -- for code that samples, exports or monitors --------------------------------------------------------------------

    def generators(self) -> tuple[str, ...]:
        """The networks that make samples: by default the first player's."""
        return next(iter(self.players(list(self.nets)).values()))

    def drawing(self, direction: str = "") -> tuple[str, ...]:
        """The generators that samples of a direction need; an export of the direction contains only these."""
        return self.generators()

    def discriminators(self) -> tuple[str, ...]:
        """The networks that tell samples from data; other code uses the first. () if there is none."""
        return tuple(critic.name for critic in self.judging())

    def directions(self) -> tuple[str, ...]:
        """The kinds of samples that can be drawn, such as A2B and B2A; the first is the default."""
        return ("",)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """Columns that a sample is made from: labels are chosen or drawn, others are rows of data; {}: only noise."""
        return {}

    def input_multiple(self, direction: str = "") -> int | None:
        """The number whose multiples an input image's sides must be; None: the image must have its field's size."""
        return None

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """What `generate` returns, by name: first the sample, named after the column of data that it imitates.

        `generate` may omit the others if networks are missing that only they need.
        """
        raise NotImplementedError

    def active_size(self, direction: str = "") -> tuple[int, int] | None:
        """Height and width of the images that the generators make now, if these are enlarged to the field's size."""
        return None

    def targets(self, direction: str = "") -> str | None:
        """The column with the one true output for each input; None if there is none."""
        return None

    def sampling_options(self) -> Mapping[str, Option]:
        """Options of `inputs`, by name, such as a truncation."""
        return {}

    def inputs(self, noise: Rng, given: Mapping[str, Tensor], direction: str = "", **options: float | None) -> Batch:
        """The input of `generate` for `noise.rows` samples: random numbers of `noise`, and the given columns.

        Labels among the input fields that are not given are drawn.
        """
        return dict(given)

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """The output fields' columns, as the given networks (averaged or raw) return them."""
        raise NotImplementedError

    def interpolation_paths(self, direction: str = "") -> Mapping[str, Path]:
        """Ways to interpolate between samples, by their value of `axis=` in `gan interpolate`."""
        return {}

    def styles(self, direction: str = "") -> Styles | None:
        """The styles of the generator's layers, which can be taken from different samples; None if it has none."""
        return None

    def moves_samples(self, direction: str = "") -> bool:
        """Whether `generate` takes a column `transform` [B, 3], moves of samples: (dx, dy, degrees).

        A sample is rotated about its centre, counter-clockwise, and then moved dx to the right and dy downwards, in
        fractions of its shorter side.
        """
        return False

    def diagnostics(self) -> Diagnostics:
        """What alarms and the progress line monitor: by default the first critic and the player that makes samples.

        If the objective has weight 0, that player learns from the critic's features, however confident the critic is.
        """
        first = self.generators()[0]
        learner = next((player for player, nets in self.players(list(self.nets)).items() if first in nets), None)
        critic = next(iter(self.judging()), None)
        if critic is None:
            return Diagnostics(learner)
        sure = critic.loss.sure if critic.adversarial else None
        return Diagnostics(learner, f"{critic.name}_real", f"{critic.name}_fake", sure)

    def discriminate(self, x: Tensor) -> Opinion | None:
        """The first critic's scores of unchanged samples [B, ...]; None if it needs further columns."""
        critic = next(iter(self.judging()), None)
        if critic is None or critic.labelled or set(critic.columns) - {critic.label} != set(critic.images[:1]):
            return None
        with torch.no_grad():
            scores = critic.said(x, None).float()
        return Opinion(scores.sigmoid() if critic.loss.logistic else scores, critic.loss.logistic)


def sample_of(game: Game, direction: str | None = None) -> tuple[str, Field]:
    """The name and the field of a direction's sample (None: of the first direction's)."""
    return next(iter(game.output_fields(game.directions()[0] if direction is None else direction).items()))


def label_of(game: Game, direction: str = "") -> tuple[str, Label] | None:
    """The name and the field of the labels that condition samples; None if samples are unconditional."""
    fields = game.input_fields(direction).items()
    return next(((name, field) for name, field in fields if isinstance(field, Label)), None)


def draws_freely(game: Game, direction: str = "") -> bool:
    """Whether samples need only random numbers and labels, so that their number is unlimited."""
    return all(isinstance(field, Label) for field in game.input_fields(direction).values())
