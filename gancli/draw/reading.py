"""Loads a trained game from a checkpoint or an export, for sampling."""

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
from gancli.store import checkpoint, export, finding
from gancli.train import assemble

PASSES = 16  # default number of batches for standing statistics


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
    """Load a run's game from one of its checkpoints.

    run: a run directory, a checkpoint file, or "last". which: "last", "best" or a step. ema: whether to use averaged
    weights. standing_stats: batches that re-estimate batch-norm statistics; None: 16 if samples are made from latents.
    pretrained_weights: the frozen network's file, if it has moved; not needed if sampling does not use that network.
    Raises RunError for a run or checkpoint that is missing, damaged, or does not match its configuration, ConfigError
    for options that its game does not have.
    """
    compute, world = compute or Compute(), World.of_group()

    def read() -> tuple[Path, Path, dict[str, Any]]:
        found, file = finding.find(run)
        if file is not None and which != "last":
            raise RunError(f"run={run} is a checkpoint file: leave checkpoint={which} out, or give the run's directory")
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
    except Exception as error:  # everything is built from the file, so any error is the file's
        words = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise RunError(f"{file} does not fit its own configuration: {words or type(error).__name__}") from None
    averaged, passes = bool(ema and state["ema"]), passes_of(game, standing_stats)
    passes = passes if averaged else 0
    direction = state.get("direction") if direction is None else direction
    sampler = Sampler(game, nets, facts, compute, truncation, direction)  # validates its options before the passes
    if passes:
        sampler.nets = with_standing_statistics(game, nets, compute, passes)
    for net in sampler.nets.values():
        net.eval().requires_grad_(False)
    sampler.run, sampler.step, sampler.config = place, int(state["step"]), dict(state["config"])
    sampler.about = {"ema": averaged, "standing_stats": passes, "seen": int(state["seen"])}
    sampler.about |= state.get("about", {})
    return sampler


def passes_of(game: Game, asked: int | None) -> int:
    """Return the number of batches for standing statistics. Raises ConfigError if given for a game without latents."""
    free = any(draws_freely(game, direction) for direction in game.directions())
    if asked and not free:
        raise ConfigError(
            f"standing_stats={asked} needs latents, and samples of this game are made from data: leave standing_stats"
            " out"
        )
    return (PASSES if asked is None else asked) if free else 0


def _restored(
    state: Mapping[str, Any], ema: bool, compute: Compute, weights: str | None
) -> tuple[Game, dict[str, nn.Module], DataFacts]:
    """Build the game and networks of a state. Raises RunError before networks of other sizes are allocated."""
    facts = DataFacts.read(state["data"])
    real = state.get("nets")  # the networks in an export: only those for sampling
    frozen = assemble.promised(state["config"], state.get("pretrained"), weights)
    if frozen is not None:
        frozen.to(compute.device)
    refuse_sizes(assemble.game(state["config"], facts, real=(), pretrained=frozen), state["game"], real)
    game = assemble.game(state["config"], facts, real=real, pretrained=frozen)
    if real is None:
        game.load_state_dict(state["game"])
    for name in real or ():  # each by itself: the others are on the meta device and take no weights
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
    """Raise RunError unless a game on the meta device has exactly the file's tensors, before memory is allocated.

    real: the networks in the file; None: the whole game.
    """
    held = None if real is None else tuple(f"nets.{name}." for name in real)
    wanted = {k: v.shape for k, v in shapes.state_dict().items() if held is None or k.startswith(held)}
    there = {k: getattr(v, "shape", None) for k, v in state.items()}
    other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if other:
        name = other[0]
        expected, found = ("none" if s is None else list(s) for s in (wanted.get(name), there.get(name)))
        raise RunError(
            f"the file does not fit its own configuration: {len(other)} tensors differ, {name[:80]} is {found} and"
            f" should be {expected}"
        )
