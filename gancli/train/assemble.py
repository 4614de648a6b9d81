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
from gancli.config.settings import Node, TrainSettings
from gancli.data.loader import Stream
from gancli.data.source import Source
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Game
from gancli.games.latent import Latent
from gancli.losses.penalties import Penalty
from gancli.train.averages import Average
from gancli.train.course import Course
from gancli.train.engine import Engine
from gancli.train.ramp import Ramp
from gancli.train.schedule import Schedule

FROM_THE_DATA = ("shape", "latent_dim", "classes")
FROM_THE_PARTS = ("nets", "loss", "penalties", "latent", "classes", "augment", "ramp")


@dataclass(frozen=True)
class DataFacts:
    """What a network must know of a data set, kept in every checkpoint so that sampling needs no data."""

    name: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str
    images: int = 0  # how many; 0: a checkpoint from before they were counted

    @staticmethod
    def of(source: Source) -> DataFacts:
        """The facts of a data set at hand."""
        return DataFacts(source.name, tuple(source.shape), tuple(source.classes), source.fingerprint, len(source))

    @staticmethod
    def read(plain: Mapping[str, Any]) -> DataFacts:
        """The facts that a checkpoint carries."""
        shape, classes = tuple(map(int, plain["shape"])), tuple(map(str, plain["classes"]))
        images = int(plain.get("images", 0))
        return DataFacts(str(plain["name"]), shape, classes, str(plain["fingerprint"]), images)

    def plain(self) -> dict[str, Any]:
        """As plain values for a file."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "fingerprint": self.fingerprint,
            "images": self.images,
        }

    def differences(self, now: DataFacts) -> str:
        """In words, what another data set has otherwise.

        >>> DataFacts("a", (1, 8, 8), (), "x", 24).differences(DataFacts("a", (3, 8, 8), ("cat",), "y", 48))
        'images 24 -> 48; shape 1×8×8 -> 3×8×8; classes 0 -> 1'
        """

        def shown(facts: DataFacts) -> dict[str, str]:
            shape = "×".join(map(str, facts.shape))
            counts = {"images": f"{facts.images:,}", "shape": shape, "classes": str(len(facts.classes))}
            return {"name": facts.name, **counts}

        pairs = [(name, old, shown(now)[name]) for name, old in shown(self).items()]
        changed = [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
        if self.classes != now.classes and len(self.classes) == len(now.classes):
            changed.append("other names of classes")
        return "; ".join(changed) or f"as many as before ({self.images:,}), with other contents"


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
    check(settings.dataset, "dataset")
    check(settings.loss, "loss")
    check(settings.game, "game", FROM_THE_PARTS)
    for name, node in (settings.penalty or {}).items():
        check(node, f"penalty.{name}")
    if settings.augment:
        check(settings.augment, "augment")
    if settings.ramp:
        make_as(Ramp, settings.ramp, "ramp")
    for name, node in settings.observers.items():
        if node is not None:
            check(node, f"observers.{name}")
    called = settings.model.get("name")
    if not isinstance(called, str) or not re.fullmatch(r"[\w.-]+", called) or called.startswith("."):
        raise ConfigError(f"model.name={called}: letters, digits, - and _, since run directories are named after it")
    networks = network_nodes(settings.model, {})
    for name, node in networks.items():
        check(node, f"model.{name}", FROM_THE_DATA)
    make_as(Latent, _chosen(settings.model.get("latent")), "model.latent")
    make_as(Average, settings.model.get("ema"), "model.ema")
    refuse_unused(settings)
    kind: type[Game] = find(settings.game.get("_target_"), "game")  # type: ignore[assignment]
    for name in kind.players(list(networks)):
        if name not in settings.optimizer:
            raise ConfigError(f"missing key optimizer.{name}: the player {name} needs an optimizer")
        check(_without_schedule(settings.optimizer[name]), f"optimizer.{name}", ("params",))
    schedules(settings.optimizer)


def refuse_unused(settings: TrainSettings) -> None:
    """Raise CombinationError for a part that this game's constructor does not take: nothing typed does nothing."""
    wanted = inspect.signature(find(settings.game.get("_target_"), "game")).parameters
    given = {"penalties": settings.penalty, "augment": settings.augment, "ramp": settings.ramp}
    for name, node in given.items():
        group = "penalty" if name == "penalties" else name
        if node and name not in wanted:
            raise CombinationError(f"this game has no use for {group}=: set {group}=none")


def data(settings: TrainSettings) -> Source:
    """The data set. Raises DataError or ConfigError."""
    source: Source = make(settings.dataset, "dataset")
    return source


def network_nodes(model: Node, penalties: Mapping[str, Penalty]) -> dict[str, Node]:
    """The model's networks by name; `norm: auto` becomes layer norm where a penalty looks at single images."""
    nodes = {name: dict(node) for name, node in model.items() if isinstance(node, dict) and "_target_" in node}
    if not nodes:
        raise ConfigError("model: no networks in this section; choose one with model=NAME")
    for node in nodes.values():
        if node.get("norm") == "auto":
            node["norm"] = "layer" if any(p.per_sample for p in penalties.values()) else "batch"
    return nodes


def game(config: Mapping[str, Any], facts: DataFacts, real: Collection[str] | None = None) -> Game:
    """The game with its networks, their weights drawn from the configuration's seed. Raises ConfigError.

    real: the networks that get memory for their weights (None: all); the others have shapes only.
    """
    penalties: dict[str, Penalty] = {
        name: make(node, f"penalty.{name}") for name, node in (config.get("penalty") or {}).items()
    }
    model, seed = config["model"], config["seed"]
    latent = _latent(model, facts)
    supplied: dict[str, Any] = {"shape": facts.shape, "latent_dim": latent.dim, "classes": len(facts.classes)}
    kind: type[Game] = find(config["game"].get("_target_"), "game")  # type: ignore[assignment]
    nets: dict[str, nn.Module] = {}
    for name, node in network_nodes(model, penalties).items():
        wanted = inspect.signature(find(node["_target_"], f"model.{name}")).parameters
        place = nullcontext() if real is None or name in real else shapes_only()
        with torch.random.fork_rng(devices=[]), place:
            torch.default_generator.manual_seed(key(seed, "init", name))
            facing = supplied | {"shape": kind.shape_for(name, facts.shape, config["game"])}
            with weights_that_fit(f"model.{name}"):
                nets[name] = make(node, f"model.{name}", **{k: v for k, v in facing.items() if k in wanted})
    if len(facts.shape) == 1:
        _refuse_points(config, penalties)
    loss = make(config["loss"], "loss")
    parts = {"nets": nets, "loss": loss, "penalties": penalties, "latent": latent, "classes": len(facts.classes)}
    if config.get("augment"):
        parts["augment"] = make(config["augment"], "augment")
    if config.get("ramp"):
        parts["ramp"] = make_as(Ramp, config["ramp"], "ramp")
    wanted = inspect.signature(find(config["game"]["_target_"], "game")).parameters
    built: Game = make(config["game"], "game", **{k: v for k, v in parts.items() if k in wanted})
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


def _refuse_points(config: Mapping[str, Any], penalties: Mapping[str, Penalty]) -> None:
    """Raise CombinationError for parts that only images can be given to."""
    for name in (name for name, penalty in penalties.items() if penalty.needs_images):
        raise CombinationError(f"penalty={name} moves and mirrors images and this data set has points: leave it out")
    if config.get("augment"):
        raise CombinationError("augment changes images and this data set has points: set augment=none")


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


def engine(settings: TrainSettings, source: Source, built: Game, compute: Compute) -> Engine:
    """The engine that plays this game on this device, at step 0."""
    compute.place(built)
    streams = _streams(settings, source, built, compute)
    if rows := built.setup_rows(len(source)):
        rng = Rng(settings.seed, "setup", total=rows, device=compute.device)
        built.setup(Stream(source, settings.seed, "setup", compute.device).batch(0, rows, 0, rows), rng)
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


def _streams(settings: TrainSettings, source: Source, built: Game, compute: Compute) -> dict[str, Stream]:
    """What the game's moves are dealt from."""
    return {name: Stream(each, settings.seed, name, compute.device) for name, each in built.feeds(source).items()}


def twin(settings: TrainSettings, config: Mapping[str, Any], source: Source, facts: DataFacts) -> Engine:
    """An engine of the same step whose networks have shapes only, to count in: it takes neither memory nor time."""
    built, compute = game(config, facts, real=()), Compute(torch.device("meta"))
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
