"""Remedies for alarms: overrides that a game's parts accept."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gancli.data.fields import Image, Label
from gancli.losses.adversarial import Minimax
from gancli.nets.layers.minibatch import MinibatchDiscrimination

if TYPE_CHECKING:
    from gancli.games.critic import Critic
    from gancli.games.game import Game


def remedies(alarm: str, game: Game) -> tuple[str, ...]:
    """Remedies for "saturated", "collapse" or "vanishing", the likeliest first; () if none is known."""
    found = (remedy for critic in game.judging() for remedy in CURES[alarm](game, critic))
    return tuple(dict.fromkeys(found))


def _saturated(game: Game, critic: Critic) -> Iterator[str]:
    yield f"lower optimizer.{_player(game, critic.name)}.lr"
    yield from _slope(critic)
    if not critic.loss.noise:
        yield "set loss.noise=0.1"
    if critic.augment is None and any(isinstance(field, Image) for field in game.fields.values()):
        yield "set augment=diffaugment if the data set is small"


def _collapse(game: Game, critic: Critic) -> Iterator[str]:
    yield f"lower optimizer.{_player(game, critic.generators[0])}.lr"
    yield from _slope(critic)
    # Packing needs a critic without packing and without classes.
    if critic.pack == 1 and not critic.labelled and "pack" in inspect.signature(type(game).__init__).parameters:
        yield "set game.pack=2"
    freely = all(isinstance(field, Label) for d in game.directions() for field in game.input_fields(d).values())
    if "mode_seeking" not in critic.penalties and freely:
        yield "add penalty=mode_seeking"
    compares = any(isinstance(module, MinibatchDiscrimination) for module in critic.net.modules())
    if _takes(critic, "minibatch") and not compares:
        yield f"set model.{critic.name}.minibatch=100"


def _vanishing(game: Game, critic: Critic) -> Iterator[str]:
    yield f"lower optimizer.{_player(game, critic.name)}.lr"
    if isinstance(critic.loss, Minimax):
        yield "set loss=ns or loss=hinge"
    yield from _slope(critic)


def _slope(critic: Critic) -> Iterator[str]:
    """A gradient penalty, if nothing bounds D's slope yet and D has no batch norm or can go without."""
    bounded = any(penalty.lipschitz for penalty in critic.penalties.values())
    if not bounded and (not critic.has_batch_norm or _takes(critic, "norm")):
        yield f"add penalty=r1 (with model.{critic.name}.norm=auto if {critic.name} has batch norm)"


def _takes(critic: Critic, key: str) -> bool:
    return key in inspect.signature(type(critic.net).__init__).parameters


def _player(game: Game, network: str) -> str:
    """The player whose optimizer updates a network."""
    return next(name for name, own in game.players(list(game.nets)).items() if network in own)


CURES = {"saturated": _saturated, "collapse": _collapse, "vanishing": _vanishing}
