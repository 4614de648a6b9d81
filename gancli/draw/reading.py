"""A trained game out of a checkpoint or an export, ready to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.data.facts import DataFacts
from gancli.draw.sampling import Sampler
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError, RunError, WeightsError
from gancli.games.game import Game, draws_freely
from gancli.store import checkpoint, export, rundir
from gancli.train import assemble

PASSES = 16  # that settle standing statistics where no number is given


def load(
    run: str = "last",
    which: int | str = "last",
    *,
    ema: bool = True,
    truncation: float | None = None,
    standing_stats: int | None = None,
    direction: str | None = None,
    compute: Compute | None = None,
    pretrained_weights: str | None = None,
) -> Sampler:
    """A run's game from one of its checkpoints.

    run: a run directory, a checkpoint file, or "last". which: "last", "best" or a step. ema: averaged weights.
    standing_stats: passes; None: 16 where samples are made of latents. pretrained_weights: where the file of the frozen
    network is that this one looks through, if it has moved; where nothing that draws needs it, it need not be there.
    Raises RunError for a run or checkpoint that is missing, damaged, or does not fit its configuration, ConfigError for
    what its game does not know.
    """
    compute, world = compute or Compute(), World.of_group()

    def read() -> tuple[Path, Path, dict[str, Any]]:
        found, file = rundir.find(run)
        if file is not None and which != "last":
            raise RunError(
                f"run={run} is a checkpoint already: leave checkpoint={which} out, or give the run's directory"
            )
        file = file or found.checkpoint(which)
        return found.path, file, export.read(file) if file.suffix == export.SUFFIX else checkpoint.read_run(file)

    place, file, state = world.from_first(read)
    try:
        if file.suffix == export.SUFFIX:
            export.refuse_other(file, state, ema)
        game, nets, facts = _restored(state, ema, compute, pretrained_weights)
        if file.suffix == export.SUFFIX:
            export.refuse_direction(file, game, list(nets), state.get("direction"), direction)
    except (RunError, WeightsError):
        raise
    except Exception as error:  # all of it comes from the file: whatever goes wrong is the file's doing
        words = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise RunError(f"{file} does not fit its own configuration: {words or type(error).__name__}") from None
    averaged, passes = bool(ema and state["ema"]), passes_of(game, standing_stats)
    passes = passes if averaged else 0
    direction = state.get("direction") if direction is None else direction
    sampler = Sampler(game, nets, facts, compute, truncation, direction)  # what it refuses, before the passes
    if passes:
        sampler.nets = with_standing_statistics(game, nets, compute, passes)
    for net in sampler.nets.values():
        net.eval().requires_grad_(False)
    sampler.run, sampler.step, sampler.config = place, int(state["step"]), dict(state["config"])
    sampler.about = {"ema": averaged, "standing_stats": passes, "seen": int(state["seen"])}
    sampler.about |= state.get("about", {})
    return sampler


def passes_of(game: Game, asked: int | None) -> int:
    """The passes that settle standing statistics. Raises ConfigError for some without a latent."""
    free = any(draws_freely(game, direction) for direction in game.directions())
    if asked and not free:
        raise ConfigError(
            f"standing_stats={asked}: samples of this game are made from data, not from latents, so that there is"
            " nothing to draw them by: leave standing_stats out"
        )
    return (PASSES if asked is None else asked) if free else 0


def _restored(
    state: Mapping[str, Any], ema: bool, compute: Compute, weights: str | None
) -> tuple[Game, dict[str, nn.Module], DataFacts]:
    """The game and networks that a state describes. Raises RunError before networks of other sizes are allocated."""
    facts = DataFacts.read(state["data"])
    real = state.get("nets")  # of an export, those that draw alone
    frozen = assemble.promised(state["config"], state.get("pretrained"), weights)
    if frozen is not None:
        frozen.to(compute.device)
    refuse_sizes(assemble.game(state["config"], facts, real=(), pretrained=frozen), state["game"], real)
    game = assemble.game(state["config"], facts, real=real, pretrained=frozen)
    if real is None:
        game.load_state_dict(state["game"])
    for name in real or ():  # each by itself: the others are shapes alone, which take no weights
        held = f"nets.{name}."
        own = {key.removeprefix(held): t for key, t in state["game"].items() if key.startswith(held)}
        game.nets[name].load_state_dict(own)
    nets: dict[str, nn.Module] = {name: net for name, net in game.nets.items() if real is None or name in real}
    for net in nets.values():
        compute.place(net)
    for name, average in state["ema"].items() if ema else ():
        nets[name].load_state_dict(average)
    return game, nets, facts


def refuse_sizes(shapes: Game, state: Mapping[str, Tensor], real: Sequence[str] | None = None) -> None:
    """Raise RunError unless a game of shapes only has just the tensors of a file: a file must not claim more memory.

    real: the networks that the file holds; None: it holds the whole game.
    """
    held = None if real is None else tuple(f"nets.{name}." for name in real)
    wanted = {k: v.shape for k, v in shapes.state_dict().items() if held is None or k.startswith(held)}
    there = {k: getattr(v, "shape", None) for k, v in state.items()}
    other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if other:
        name = other[0]
        said, held_as = ("none" if s is None else list(s) for s in (wanted.get(name), there.get(name)))
        raise RunError(
            f"the file does not fit its own configuration: {len(other)} tensors differ, {name[:80]} is {held_as} and"
            f" should be {said}"
        )
