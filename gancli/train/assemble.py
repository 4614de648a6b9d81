"""Puts the parts of a configuration together: data, networks, objective, optimizers, engine."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.memory import weights_that_fit
from gancli.compute.rng import Rng, key
from gancli.config.build import check, find, make, make_as
from gancli.config.files import groups
from gancli.config.settings import Node, TrainSettings
from gancli.data.facts import DataFacts
from gancli.data.fields import Image
from gancli.data.loader import Stream
from gancli.data.source import DataSet, Source, feeds_of
from gancli.errors import CombinationError, ConfigError, RunError
from gancli.games.game import Batch, Game
from gancli.games.latent import Latent
from gancli.losses.penalties import Penalty
from gancli.losses.terms import Term
from gancli.pretrained.pretrained import Pretrained, PretrainedFacts, Promised
from gancli.train.averages import Average
from gancli.train.course import Course
from gancli.train.engine import Engine
from gancli.train.ramp import Ramp
from gancli.train.schedule import Schedule

FROM_THE_GAME = ("columns",)
FROM_THE_PARTS = ("nets", "loss", "penalties", "latent", "classes", "augment", "ramp", "terms", "pretrained", "fields")


@dataclass(frozen=True, kw_only=True)
class SharedOptimizer:
    """What all players' optimizers share: the largest gradient norm of a move, and the learning rate's schedule."""

    clip: float | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(f"optimizer.clip={self.clip:g}: a largest gradient norm above 0, or null for none")


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
        raise ConfigError(f"model.name={called}: letters, digits, - and _, since run directories are named after it")
    kind: type[Game] = find(settings.game.get("_target_"), "game")  # type: ignore[assignment]
    networks = network_nodes(settings.model, {})
    for name, node in networks.items():
        check(node, f"model.{name}", (*kind.TOLD, "pretrained"))
    make_as(Latent, _chosen(settings.model.get("latent")), "model.latent")
    make_as(Average, settings.model.get("ema"), "model.ema")
    refuse_unused(settings)
    for name in kind.players(list(networks)):
        if name not in settings.optimizer:
            raise ConfigError(f"missing key optimizer.{name}: the player {name} needs an optimizer")
        check(_without_schedule(settings.optimizer[name]), f"optimizer.{name}", ("params",))
    schedules(settings.optimizer)


def refuse_unused(settings: TrainSettings) -> None:
    """Raise CombinationError for a part that this game's constructor does not take: nothing typed does nothing."""
    wanted = inspect.signature(find(settings.game.get("_target_"), "game")).parameters
    given = {"penalties": settings.penalty, "augment": settings.augment, "ramp": settings.ramp}
    given |= {"terms": settings.terms, "loss": settings.loss, "latent": settings.model.get("latent")}
    for name, node in given.items():
        group = "penalty" if name == "penalties" else name
        if node and name not in wanted:
            way = "leave model.latent out" if name == "latent" else f"set {group}=none"
            raise CombinationError(f"this game has no use for {group}=: {way}")
    if not settings.loss and "loss" in wanted and wanted["loss"].default is inspect.Parameter.empty:
        raise ConfigError("this game needs an objective: type loss=NAME, such as loss=ns")
    nodes = {"game": settings.game}
    nodes |= {f"model.{name}": node for name, node in network_nodes(settings.model, {}).items()}
    asking = {path: param for path, node in nodes.items() if (param := _takes_pretrained(node, path)) is not None}
    if settings.pretrained and not asking:
        raise CombinationError(
            "neither this game nor a network of this model has a use for pretrained=: set pretrained=none"
        )
    for path, param in asking.items():
        if not settings.pretrained and param.default is param.empty:
            choices = ", ".join(name for name in groups("train")["pretrained"] if name != "none")
            raise ConfigError(f"{path} stands on a frozen network: type pretrained=NAME (choices: {choices})")


def _takes_pretrained(node: Node, path: str) -> inspect.Parameter | None:
    """The parameter by which a game or a network is given the pretrained network; None where it has none."""
    return inspect.signature(find(node.get("_target_"), path)).parameters.get("pretrained")


def data(settings: TrainSettings) -> DataSet:
    """The data set. Raises DataError or ConfigError."""
    return data_set(settings.dataset, settings.game)


def data_set(node: Node, game: Node) -> DataSet:
    """The data set of a section, for the game of another: `dataset=random` is told what that takes.

    Raises DataError or ConfigError.
    """
    supplied = {}
    if "columns" in inspect.signature(find(node.get("_target_"), "dataset")).parameters:
        kind: type[Game] = find(game.get("_target_"), "game")  # type: ignore[assignment]
        supplied["columns"] = kind.columns(game)
    found: DataSet = make(node, "dataset", **supplied)
    return found


def frozen(config: Mapping[str, Any]) -> Pretrained | None:
    """The frozen network that the configuration names, on the CPU; None for none. Raises GanError."""
    node = config.get("pretrained")
    made: Pretrained | None = make(node, "pretrained", where="pretrained") if node else None
    return made


def promised(
    config: Mapping[str, Any], plain: Mapping[str, Any] | None, weights: str | None = None
) -> Pretrained | None:
    """The frozen network of a checkpoint, which is read where something is put through it, and verified then.

    plain: its facts, as the checkpoint keeps them. weights: where its file, or its run, is now; it is read at once.
    Raises RunError where there is nothing to be read from there, or the checkpoint says nothing of it; WeightsError.
    """
    node = config.get("pretrained")
    if not node:
        if weights is not None:
            raise RunError(f"pretrained.weights={weights}: this run has no pretrained network: leave it out")
        return None
    key = "source" if "source" in node else "weights"
    if weights is not None and key not in node:
        raise RunError(f"pretrained.weights={weights}: the run's pretrained network is read from no file: leave it out")
    moved = config if weights is None else {**config, "pretrained": {**node, key: weights}}
    form = "run:FILE#NAME, FILE being the checkpoint it had" if key == "source" else "PATH with the file it had"
    found = Promised(
        PretrainedFacts.read(plain or {}),
        lambda: make(moved["pretrained"], "pretrained", where="pretrained"),
        f"type pretrained.weights={form}",
    )
    if weights is not None:
        found.read()
    return found


def network_nodes(model: Node, penalties: Mapping[str, Penalty]) -> dict[str, Node]:
    """The model's networks by name; `norm: auto` becomes layer norm where a penalty looks at single images."""
    nodes = {name: dict(node) for name, node in model.items() if isinstance(node, dict) and "_target_" in node}
    if not nodes:
        raise ConfigError("model: no networks in this section; choose one with model=NAME")
    for node in nodes.values():
        if node.get("norm") == "auto":
            node["norm"] = "layer" if any(p.per_sample for p in penalties.values()) else "batch"
    return nodes


def game(
    config: Mapping[str, Any],
    facts: DataFacts,
    real: Collection[str] | None = None,
    pretrained: Pretrained | None = None,
) -> Game:
    """The game with its networks, their weights drawn from the configuration's seed. Raises ConfigError.

    real: the networks that get memory for their weights (None: all); the others have shapes only. pretrained: the
    frozen network that is given to those networks, and to the game, whose constructors ask for it; None: the one that
    the configuration names, if it does. A promised one is read here where networks that draw ask for it.
    """
    pretrained = frozen(config) if pretrained is None else pretrained
    penalties: dict[str, Penalty] = {
        name: make(node, f"penalty.{name}") for name, node in (config.get("penalty") or {}).items()
    }
    model, seed = config["model"], config["seed"]
    latent = _latent(model, facts)
    shared: dict[str, Any] = {} if pretrained is None else {"pretrained": pretrained}
    kind: type[Game] = find(config["game"].get("_target_"), "game")  # type: ignore[assignment]
    nets: dict[str, nn.Module] = {}
    asking = set()
    for name, node in network_nodes(model, penalties).items():
        wanted = inspect.signature(find(node["_target_"], f"model.{name}")).parameters
        asking |= {name} if "pretrained" in wanted else set()
        place = nullcontext() if real is None or name in real else shapes_only()
        with torch.random.fork_rng(devices=[]), place:
            torch.default_generator.manual_seed(key(seed, "init", name))
            told = shared | kind.told(name, facts.fields, latent.dim, config["game"])
            with weights_that_fit(f"model.{name}"):
                nets[name] = make(node, f"model.{name}", **{k: v for k, v in told.items() if k in wanted})
    _refuse_flat(config, facts, penalties)
    parts = {"nets": nets, "penalties": penalties, "latent": latent, "classes": len(facts.classes)}
    parts |= shared | {"fields": facts.fields}
    if config.get("loss"):
        parts["loss"] = make(config["loss"], "loss")
    if config.get("augment"):
        parts["augment"] = make(config["augment"], "augment")
    if config.get("ramp"):
        parts["ramp"] = make_as(Ramp, config["ramp"], "ramp")
    if config.get("terms"):
        parts["terms"] = {name: make_as(Term, node, f"terms.{name}") for name, node in config["terms"].items()}
    wanted = inspect.signature(find(config["game"]["_target_"], "game")).parameters
    built: Game = make(config["game"], "game", **{k: v for k, v in parts.items() if k in wanted})
    built.fields = facts.fields
    built.pretrained = pretrained
    if isinstance(pretrained, Promised) and asking & set(built.averaged()) & set(nets if real is None else real):
        pretrained.read()
    return built


class _Undrawn(TorchFunctionMode):
    """Leaves initial weights undrawn: without memory there is nothing to draw, and torch takes seconds to find out."""

    SAME = frozenset(("normal_", "uniform_", "orthogonal_", "normalize"))

    def __torch_function__(
        self, func: Any, kinds: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in self.SAME:
            return args[0] if args else given.get("tensor", given.get("input"))
        return torch.empty(*args, **given) if name == "randn" else func(*args, **given)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Inside, networks are built without memory for their weights (torch's meta device)."""
    with torch.device("meta"), _Undrawn():
        yield


def _refuse_flat(config: Mapping[str, Any], facts: DataFacts, penalties: Mapping[str, Penalty]) -> None:
    """Raise CombinationError for parts that only images can be given to, where the data have none."""
    if any(isinstance(field, Image) for field in facts.fields.values()):
        return
    what = next(iter(facts.fields.values())).words
    for name in (name for name, penalty in penalties.items() if penalty.needs_images):
        raise CombinationError(f"penalty={name} moves and mirrors images and this data set has {what}: leave it out")
    if config.get("augment"):
        raise CombinationError(f"augment changes images and this data set has {what}: set augment=none")


def _latent(model: Node, facts: DataFacts) -> Latent:
    """The latent's distribution; `dim: null` is what the generator's paper has for images of this size."""
    node = model.get("latent") or {}
    latent = make_as(Latent, _chosen(node), "model.latent")
    if node.get("dim", 0) is not None:
        return latent
    for name, network in network_nodes(model, {}).items():
        natural = getattr(find(network["_target_"], f"model.{name}"), "natural_latent", None)
        if natural is not None:
            family = {"family": network["family"]} if "family" in network else {}
            return replace(latent, dim=natural(facts.shape, **family))
    raise ConfigError("model.latent.dim=null: this generator has no size of its own; set a number, such as 128")


def _chosen(node: Node | None) -> Node:
    """A latent section without `dim: null`."""
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"model.latent={node}: expected a section of keys, such as model.latent.dim=64")
    return {k: v for k, v in (node or {}).items() if (k, v) != ("dim", None)}


def engine(settings: TrainSettings, source: DataSet, built: Game, compute: Compute) -> Engine:
    """The engine that plays this game on this device, at step 0."""
    compute.place(built)
    if built.pretrained is not None:
        built.pretrained.to(compute.device)
    streams = _streams(settings, source, built, compute)
    if rows := built.setup_rows(len(next(iter(feeds_of(source).values())))):
        rng = Rng(settings.seed, "setup", total=rows, device=compute.device)
        built.setup(_first_rows(settings, source, built, compute, rows), rng)
    optimizers = {
        name: optimizer(settings.optimizer[name], f"optimizer.{name}", params)
        for name, params in built.parameters_by_player().items()
    }
    shared, own = schedules(settings.optimizer)
    return Engine(
        built,
        streams,
        optimizers,
        compute=compute,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        seed=settings.seed,
        steps=Course(built, settings.batch_size).steps(settings.steps, settings.images),
        average=make_as(Average, settings.model.get("ema"), "model.ema"),
        schedule=shared.schedule,
        schedules=own,
        ramp=make_as(Ramp, settings.ramp, "ramp") if settings.ramp else None,
        clip=shared.clip,
        world=World.of_group(),
    )


def _streams(settings: TrainSettings, source: DataSet, built: Game, compute: Compute) -> dict[str, Stream]:
    """What the game's moves are dealt from: of each feed the columns that it reads."""
    feeds = built.feeds(source)
    read = _read(built, feeds)
    return {name: Stream(each, settings.seed, name, compute.device, read[name]) for name, each in feeds.items()}


def _first_rows(settings: TrainSettings, source: DataSet, built: Game, compute: Compute, rows: int) -> Batch:
    """What a game is set up with: bare columns of a lone table, FEED.COLUMN of several."""
    asked, found = built.reads(), Batch()
    for feed, each in feeds_of(source).items():
        wanted = [c for c in each.columns if asked is None or c in asked or f"{feed}.{c}" in asked]
        if not feed and asked is not None:  # the game's feeds are parts of the one table
            wanted = [c for c in each.columns if c in {name.rpartition(".")[2] for name in asked}]
        stream = Stream(each, settings.seed, f"setup.{feed}" if feed else "setup", compute.device, wanted)
        found |= {f"{feed}.{name}" if feed else name: x for name, x in stream.batch(0, rows).items()}
    return found


def _read(built: Game, feeds: Mapping[str, Source]) -> dict[str, tuple[str, ...]]:
    """The columns of each feed that the game reads. Raises CombinationError for one that is not there."""
    asked = built.reads()
    if asked is None:
        return {feed: tuple(source.columns) for feed, source in feeds.items()}
    found = {
        feed: tuple(name for name in source.columns if name in asked or f"{feed}.{name}" in asked)
        for feed, source in feeds.items()
    }
    there = {name for feed, names in found.items() for name in (*names, *(f"{feed}.{name}" for name in names))}
    if missing := [name for name in asked if name not in there]:
        has = ", ".join(dict.fromkeys(name for source in feeds.values() for name in source.columns))
        named = next(iter(feeds.values())).name
        raise CombinationError(f"this game reads the column {missing[0]}, and dataset={named} has {has}: take another")
    return found


def unread(built: Game, source: DataSet) -> list[str]:
    """What of the data the game is not dealt, a line or none."""
    feeds = built.feeds(source)
    read = _read(built, feeds)
    known = {name for names in read.values() for name in names}
    left = list(dict.fromkeys(n for each in feeds.values() for n in each.columns if n not in known))
    if not left:
        return []
    if len(left) == 1:
        return [f"column {left[0]} of {source.name} is not read by this game"]
    return [f"columns {', '.join(left[:-1])} and {left[-1]} of {source.name} are not read by this game"]


def twin(
    settings: TrainSettings,
    config: Mapping[str, Any],
    source: DataSet,
    facts: DataFacts,
    pretrained: Pretrained | None = None,
) -> Engine:
    """An engine of the same step whose networks have shapes only, to count in: it takes neither memory nor time."""
    empty = None if pretrained is None else pretrained.shapes_only()
    built, compute = game(config, facts, real=(), pretrained=empty), Compute(torch.device("meta"))
    compute.place(built)
    streams = _streams(settings, source, built, compute)
    optimizers = {name: torch.optim.SGD(params) for name, params in built.parameters_by_player().items()}
    return Engine(
        built,
        streams,
        optimizers,
        compute=compute,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        average=Average(decay=0.0),
    )


def optimizer(node: Node, path: str, params: list[nn.Parameter]) -> Optimizer:
    """A torch optimizer, fused into one kernel where torch has that for it. Raises ConfigError for a bad rate."""
    supplied: dict[str, Any] = {"params": params}
    choice = find(node.get("_target_"), path)
    if (
        "fused" in inspect.signature(choice).parameters
        and "fused" not in node
        and choice.__name__ in ("Adam", "AdamW", "SGD")
    ):
        supplied["fused"] = True
    # What is out of range is said in torch's own words.
    made: Optimizer = make(_without_schedule(node), path, **supplied)
    return made


def schedules(node: Node) -> tuple[SharedOptimizer, dict[str, Schedule]]:
    """The optimizer section beside the players' parts, and the schedules of players that have their own."""
    parts = {name: part for name, part in node.items() if isinstance(part, dict) and "_target_" in part}
    shared = make_as(SharedOptimizer, {name: part for name, part in node.items() if name not in parts}, "optimizer")
    own = {name: part["schedule"] for name, part in parts.items() if part.get("schedule") is not None}
    return shared, {name: make_as(Schedule, part, f"optimizer.{name}.schedule") for name, part in own.items()}


def _without_schedule(node: Node) -> Node:
    """A player's optimizer as torch takes it."""
    return {key: value for key, value in node.items() if key != "schedule"} if isinstance(node, dict) else node
