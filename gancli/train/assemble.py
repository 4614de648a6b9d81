"""Building the components of a configuration: data, networks, losses, optimizers and the engine."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.memory import weights_that_fit
from gancli.compute.rng import Rng, key
from gancli.config.build import find, make, make_as
from gancli.config.settings import Node, TrainSettings
from gancli.data.facts import DataFacts
from gancli.data.fields import Field, Image
from gancli.data.source import DataSet, feeds_of
from gancli.errors import CombinationError, ConfigError, RunError
from gancli.games.game import Game
from gancli.games.latent import Latent
from gancli.losses.penalties import Penalty
from gancli.losses.terms import Term
from gancli.pretrained.pretrained import LazyPretrained, Pretrained, PretrainedFacts
from gancli.train import frozen as freezing
from gancli.train.averages import Average
from gancli.train.course import Course
from gancli.train.engine import Engine
from gancli.train.optimizers import optimizer, schedules
from gancli.train.ramp import Ramp
from gancli.train.streams import first_rows, streams


def frozen(config: Mapping[str, Any]) -> Pretrained | None:
    """Load the pretrained network of the configuration, on the CPU; None if there is none. Raises GanError."""
    node = config.get("pretrained")
    made: Pretrained | None = make(node, "pretrained", where="pretrained") if node else None
    return made


def promised(
    config: Mapping[str, Any], plain: Mapping[str, Any] | None, weights: str | None = None
) -> Pretrained | None:
    """Return the pretrained network of a checkpoint; it is loaded and verified when first used.

    plain: its facts in the checkpoint. weights: the new place of its file or run; then it is loaded at once. Raises
    RunError if weights does not apply, or the checkpoint does not record the network; WeightsError.
    """
    node = config.get("pretrained")
    if not node:
        if weights is not None:
            raise RunError(f"pretrained.weights={weights}: this run has no pretrained network: leave it out")
        return None
    key = "source" if "source" in node else "weights"
    if weights is not None and key not in node:
        raise RunError(f"pretrained.weights={weights}: the run's pretrained network needs no file: leave it out")
    moved = config if weights is None else {**config, "pretrained": {**node, key: weights}}
    form = "run:FILE#NAME with the original checkpoint FILE" if key == "source" else "PATH with the original file"
    found = LazyPretrained(
        PretrainedFacts.read(plain or {}),
        lambda: make(moved["pretrained"], "pretrained", where="pretrained"),
        f"type pretrained.weights={form}",
    )
    if weights is not None:
        found.read()
    return found


def network_nodes(model: Node, penalties: Mapping[str, Penalty]) -> dict[str, Node]:
    """Return the model's networks by name; `norm: auto` becomes layer norm if a penalty uses per-sample gradients.

    `san: false` is left out for networks of your own that do not have it, and `freeze` where it counts blocks.
    """
    nodes = {name: dict(node) for name, node in model.items() if isinstance(node, dict) and "_target_" in node}
    if not nodes:
        raise ConfigError("model: no networks in this section; choose one with model=NAME")
    for node in nodes.values():
        if node.get("norm") == "auto":
            node["norm"] = "layer" if any(p.per_sample for p in penalties.values()) else "batch"
        if node.get("san") is False and "san" not in inspect.signature(find(node["_target_"], "model")).parameters:
            del node["san"]
        if freezing.KEY in node and freezing.is_ours(node, "model"):
            del node[freezing.KEY]
    return nodes


class _Columns(dict[str, Field]):
    """The fields of a data set's columns by name; a missing column raises CombinationError."""

    def __init__(self, facts: DataFacts):
        super().__init__(facts.fields)
        self.name = facts.name

    def __missing__(self, column: str) -> Field:
        """Raise CombinationError: the data have no such column."""
        has = ", ".join(self)
        raise CombinationError(
            f"this game reads the column {column}, but dataset={self.name} has {has}: choose another data set"
        )


def game(
    config: Mapping[str, Any],
    facts: DataFacts,
    real: Collection[str] | None = None,
    pretrained: Pretrained | None = None,
) -> Game:
    """Build the game and its networks, with weights initialised from the configuration's seed. Raises ConfigError.

    real: networks whose weights are allocated (None: all); the others are on the meta device. pretrained: the network
    for constructors with such a parameter; None: the one of the configuration. A LazyPretrained one is loaded here if
    networks that are used for sampling need it.
    """
    pretrained = frozen(config) if pretrained is None else pretrained
    penalties: dict[str, Penalty] = {
        name: make(node, f"penalty.{name}") for name, node in (config.get("penalty") or {}).items()
    }
    model, seed = config["model"], config["seed"]
    latent = _latent(model, facts)
    shared: dict[str, Any] = {} if pretrained is None else {"pretrained": pretrained}
    kind: type[Game] = find(config["game"].get("_target_"), "game")  # type: ignore[assignment]
    columns, nets = _Columns(facts), dict[str, nn.Module]()
    asking = set()
    for name, node in network_nodes(model, penalties).items():
        wanted = inspect.signature(find(node["_target_"], f"model.{name}")).parameters
        asking |= {name} if "pretrained" in wanted else set()
        place = nullcontext() if real is None or name in real else shapes_only()
        with torch.random.fork_rng(devices=[]), place:
            torch.default_generator.manual_seed(key(seed, "init", name))
            told = shared | kind.told(name, columns, latent.dim, config["game"])
            with weights_that_fit(f"model.{name}"):
                nets[name] = make(node, f"model.{name}", **{k: v for k, v in told.items() if k in wanted})
    _refuse_flat(config, facts, penalties)
    parts = {"nets": nets, "penalties": penalties, "latent": latent, "classes": len(facts.classes)}
    parts |= shared | {"fields": columns}
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
    built.fields = columns
    built.pretrained = pretrained
    freezing.freeze_blocks(model, nets)  # after the game, which may let networks share layers
    if isinstance(pretrained, LazyPretrained) and asking & set(built.averaged()) & set(nets if real is None else real):
        pretrained.read()
    return built


class _Undrawn(TorchFunctionMode):
    """Skips weight initialisation on the meta device, on which torch would spend seconds."""

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
    """A context in which networks are built without memory for their weights (torch's meta device)."""
    with torch.device("meta"), _Undrawn():
        yield


def _refuse_flat(config: Mapping[str, Any], facts: DataFacts, penalties: Mapping[str, Penalty]) -> None:
    """Raise CombinationError for components that need images if the data have none."""
    if any(isinstance(field, Image) for field in facts.fields.values()):
        return
    what = next(iter(facts.fields.values())).words
    for name in (name for name, penalty in penalties.items() if penalty.needs_images):
        raise CombinationError(f"penalty={name} shifts and mirrors images, but this data set has {what}: leave it out")
    if config.get("augment"):
        raise CombinationError(f"augment needs images, but this data set has {what}: set augment=none")


def _latent(model: Node, facts: DataFacts) -> Latent:
    """Return the latent's distribution; `dim: null` is the generator's default for this image size."""
    node = model.get("latent") or {}
    latent = make_as(Latent, chosen_latent(node), "model.latent")
    if node.get("dim", 0) is not None:
        return latent
    for name, network in network_nodes(model, {}).items():
        natural = getattr(find(network["_target_"], f"model.{name}"), "natural_latent", None)
        if natural is not None:
            family = {"family": network["family"]} if "family" in network else {}
            return replace(latent, dim=natural(facts.shape, **family))
    raise ConfigError("model.latent.dim=null: this generator has no default; set a number, such as 128")


def chosen_latent(node: Node | None) -> Node:
    """Return a latent section without `dim: null`."""
    if node is not None and not isinstance(node, dict):
        raise ConfigError(f"model.latent={node}: expected a section of keys, such as model.latent.dim=64")
    return {k: v for k, v in (node or {}).items() if (k, v) != ("dim", None)}


def engine(settings: TrainSettings, source: DataSet, built: Game, compute: Compute) -> Engine:
    """Return the engine for this game on this device, at step 0."""
    compute.place(built)
    if built.pretrained is not None:
        built.pretrained.to(compute.device)
    dealt = streams(settings, source, built, compute)
    if rows := built.setup_rows(len(next(iter(feeds_of(source).values())))):
        rng = Rng(settings.seed, "setup", total=rows, device=compute.device)
        built.setup(first_rows(settings, source, built, compute, rows), rng)
    optimizers = {
        name: optimizer(settings.optimizer[name], f"optimizer.{name}", params)
        for name, params in built.parameters_by_player().items()
    }
    shared, own = schedules(settings.optimizer)
    return Engine(
        built,
        dealt,
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


def twin(
    settings: TrainSettings,
    config: Mapping[str, Any],
    source: DataSet,
    facts: DataFacts,
    pretrained: Pretrained | None = None,
) -> Engine:
    """Return an engine of the same step on the meta device, to count its operations without memory and time."""
    empty = None if pretrained is None else pretrained.shapes_only()
    built, compute = game(config, facts, real=(), pretrained=empty), Compute(torch.device("meta"))
    compute.place(built)
    dealt = streams(settings, source, built, compute)
    optimizers = {name: torch.optim.SGD(params) for name, params in built.parameters_by_player().items()}
    return Engine(
        built,
        dealt,
        optimizers,
        compute=compute,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        average=Average(decay=0.0),
    )
