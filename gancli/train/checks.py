"""Validation of a training configuration before anything is built or written."""

from __future__ import annotations

import inspect
import re

from gancli.config.build import check, find, make_as
from gancli.config.files import groups
from gancli.config.settings import Node, TrainSettings
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Game
from gancli.games.latent import Latent
from gancli.losses.terms import Term
from gancli.train import frozen
from gancli.train.assemble import chosen_latent, network_nodes
from gancli.train.averages import Average
from gancli.train.optimizers import schedules, without_schedule
from gancli.train.ramp import Ramp

FROM_THE_GAME = ("columns",)
FROM_THE_PARTS = ("nets", "loss", "penalties", "latent", "classes", "augment", "ramp", "terms", "pretrained", "fields")


def check_sections(settings: TrainSettings) -> None:
    """Check every key and type before anything is built or written. Raises ConfigError."""
    check(settings.dataset, "dataset", FROM_THE_GAME)
    if settings.loss:
        check(settings.loss, "loss")
    check(settings.game, "game", FROM_THE_PARTS)
    for name, node in (settings.penalty or {}).items():
        check(node, f"penalty.{name}")
    if settings.augment:
        check(settings.augment, "augment")
    if settings.ramp:
        make_as(Ramp, settings.ramp, "ramp")
    if settings.pretrained:
        check(settings.pretrained, "pretrained", ("where",))
    for name, node in (settings.terms or {}).items():
        make_as(Term, node, f"terms.{name}")
    for name, node in settings.observers.items():
        if node is not None:
            check(node, f"observers.{name}")
    called = settings.model.get("name")
    if not isinstance(called, str) or not re.fullmatch(r"[\w.-]+", called) or called.startswith("."):
        raise ConfigError(
            f"model.name={called}: use letters, digits, - and _, since run directories are named after it"
        )
    kind: type[Game] = find(settings.game.get("_target_"), "game")  # type: ignore[assignment]
    networks = network_nodes(settings.model, {})
    for name, node in networks.items():
        _refuse_untold(node, f"model.{name}", kind)
        check(node, f"model.{name}", (*kind.TOLD, "pretrained"))
    frozen.counts(settings.model)
    make_as(Latent, chosen_latent(settings.model.get("latent")), "model.latent")
    make_as(Average, settings.model.get("ema"), "model.ema")
    refuse_unused(settings)
    players = kind.players(list(networks))
    missing = [name for nets in players.values() for name in nets if name not in networks]
    if missing:
        played = ", ".join(name for nets in players.values() for name in nets)
        raise ConfigError(
            f"missing key model.{missing[0]}: this game needs the networks {played}, but this model has"
            f" {', '.join(networks)}: choose another model or game"
        )
    for name in players:
        if name not in settings.optimizer:
            raise ConfigError(f"missing key optimizer.{name}: the player {name} needs an optimizer")
        check(without_schedule(settings.optimizer[name]), f"optimizer.{name}", ("params",))
    schedules(settings.optimizer)


def refuse_unused(settings: TrainSettings) -> None:
    """Raise CombinationError for a component that this game's constructor does not accept."""
    wanted = inspect.signature(find(settings.game.get("_target_"), "game")).parameters
    given = {"penalties": settings.penalty, "augment": settings.augment, "ramp": settings.ramp}
    given |= {"terms": settings.terms, "loss": settings.loss, "latent": settings.model.get("latent")}
    for name, node in given.items():
        group = "penalty" if name == "penalties" else name
        if node and name not in wanted:
            remedy = "leave model.latent out" if name == "latent" else f"set {group}=none"
            remedy += ", or game= to the model's own game" if name == "terms" else ""
            raise CombinationError(f"this game does not use {group}=: {remedy}")
    if not settings.loss and "loss" in wanted and wanted["loss"].default is inspect.Parameter.empty:
        raise CombinationError("this game needs an adversarial loss: type loss=NAME, such as loss=ns")
    nodes = {"game": settings.game}
    nodes |= {f"model.{name}": node for name, node in network_nodes(settings.model, {}).items()}
    asking = {path: param for path, node in nodes.items() if (param := _takes_pretrained(node, path)) is not None}
    if settings.pretrained and not asking:
        raise CombinationError("neither this game nor a network of this model uses pretrained=: set pretrained=none")
    for path, param in asking.items():
        if not settings.pretrained and param.default is param.empty:
            choices = ", ".join(name for name in groups("train")["pretrained"] if name != "none")
            raise ConfigError(f"{path} needs a pretrained network: type pretrained=NAME (choices: {choices})")


def _takes_pretrained(node: Node, path: str) -> inspect.Parameter | None:
    """Return the parameter of a game or network for the pretrained network; None if it has none."""
    return inspect.signature(find(node.get("_target_"), path)).parameters.get("pretrained")


def _refuse_untold(node: Node, path: str, kind: type[Game]) -> None:
    """Raise CombinationError for a network with a required argument that this game does not provide."""
    for name, param in inspect.signature(find(node.get("_target_"), path)).parameters.items():
        asked = param.kind is param.POSITIONAL_OR_KEYWORD and param.default is param.empty
        if asked and name not in (*kind.TOLD, "pretrained", *node):
            raise CombinationError(
                f"{path} needs {name} from its game, but this game does not provide it: choose another model or game"
            )
