"""Settings that are `auto` for few images: by their number and sizes, and by the device, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gancli.config.build import shown
from gancli.config.generators import KEY
from gancli.config.paths import set_value, value_of
from gancli.data.survey import Survey
from gancli.errors import ConfigError, DataError
from gancli.train.rules import AUTO, Chosen, Row, Rule, holds

LEAST, FEW, MANY = 20, 100, 20_000  # images: fewer than LEAST are refused; below FEW and above MANY there is a note
SMALLEST = 32  # side in pixels: the smallest images of the generators
PASSES, SHORT, LONG = 1000, 400_000, 2_000_000  # passes over the images; a run's length in images, at least and at most
FEWEST, MOST = 200, 1000  # samples of an evaluation


@dataclass(frozen=True)
class Machine:
    """What a kind of device is given to do in an hour or two.

    words: its name. side: of the largest images, in pixels. batch: largest batch size. width: of the networks
    (model.ch, model.D.ch). minutes: of training. every: steps between evaluations. samples: of an evaluation while
    training. seen: side of the images that D's frozen network gets. fine: whether D reads its larger maps, so that it
    needs no enlarged images. noise: σ of the noise on D's input. quiet: images after which it is 0. average: half-life
    of the EMA in images; None: as published, by the batch size.
    """

    words: str
    side: int
    batch: int
    width: int
    minutes: float
    every: int
    samples: int
    seen: int = 224
    fine: bool = False
    noise: float = 0.0
    quiet: int | None = None
    average: int | None = None


CPU = Machine(
    "a CPU",
    side=64,
    batch=16,
    width=32,
    minutes=30.0,
    every=1000,
    samples=200,
    seen=64,
    fine=True,
    noise=0.6,
    quiet=80_000,
    average=2000,
)
APPLE = Machine("an Apple GPU", side=128, batch=32, width=64, minutes=120.0, every=500, samples=500)
GPU = Machine("a GPU", side=256, batch=64, width=64, minutes=120.0, every=500, samples=1000)
MACHINES = {"cpu": CPU, "mps": APPLE, "cuda": GPU}  # by torch's kind of device

# The generator and the reason, by torch's kind of device, and for all others.
GENERATORS = {"cpu": ("dcgan", "of the generators, the one with the fewest operations")}
OTHER = ("fastgan_lite", "light, and one of those that Projected GAN was published with")

# The last layers of strides 2, 4, 8 and 16, by the function that builds a pretrained network.
FINE = {
    "efficientnet_lite0": ["_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10"],
    "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13"],
}


@dataclass(frozen=True)
class Case:
    """What the rules depend on: the images, the machine, the number of processes, and the configuration.

    styled: whether G has styles. projected: whether D reads a frozen network. network: the function that builds it.
    layers: those that were typed, else None; usual: those of its group's file. noise: σ that was typed, else None.
    """

    survey: Survey
    machine: Machine = CPU
    ranks: int = 1
    styled: bool = False
    projected: bool = True
    network: str = ""
    layers: Any = None
    usual: Any = None
    noise: float | None = None

    @staticmethod
    def of(config: Mapping[str, Any], survey: Survey, device: str, ranks: int, usual: Any) -> Case:
        """Return the case of a configuration on a kind of device."""
        networks = [node for node in config["model"].values() if isinstance(node, Mapping) and "_target_" in node]
        section, loss = config.get("pretrained") or {}, config.get("loss") or {}
        layers, noise = section.get("layers"), loss.get("noise")
        return Case(
            survey,
            MACHINES.get(device, GPU),
            ranks,
            styled=any("mapping_layers" in node for node in networks),
            projected=config["model"].get("name", "projected") == "projected",
            network=str(section.get("_target_", "")).rpartition(".")[2],
            layers=None if layers == AUTO else layers,
            usual=usual,
            noise=None if noise == AUTO else noise,
        )

    @property
    def fine(self) -> list[str] | None:
        """The network's layers of strides 2 to 16, if D reads those."""
        found = FINE.get(self.network) if self.machine.fine and self.projected else None
        return found if self.layers in (None, found) else None

    @property
    def seen(self) -> int:
        """The side that smaller images are enlarged to: with maps up to stride 32, twice as large."""
        return self.machine.seen * (2 if self.machine.fine and self.fine is None else 1)

    @property
    def sigma(self) -> float:
        """σ of the noise on D's input."""
        return self.noise if self.noise is not None else self.machine.noise if self.projected else 0.0

    @property
    def quiet(self) -> int | None:
        """Images after which the noise is 0; None: it is constant."""
        return self.machine.quiet if self.sigma else None


def below(number: float) -> int:
    """Return the largest power of two that is not above a number of at least 1.

    >>> below(64), below(100)
    (64, 64)
    """
    return 1 << (int(number).bit_length() - 1)


def size_of(case: Case) -> int:
    """The side of the training images."""
    return max(SMALLEST, min(below(case.survey.side), case.machine.side))


def _why_size(case: Case) -> str:
    side = case.survey.side
    if side < SMALLEST:
        return f"the smallest of the generators; images of {side} pixels are enlarged"
    if below(side) > case.machine.side:
        return f"as large as {case.machine.words} trains in this time; of each image the centre square"
    return f"the power of two up to the median shorter side of {side}; of each image the centre square"


def batch_of(case: Case) -> int:
    """The batch size: a quarter of the images, 8 at least; a multiple of the number of processes."""
    batch = max(8, min(below(case.survey.images / 4), case.machine.batch))
    return -(-batch // case.ranks) * case.ranks


def _why_batch(case: Case) -> str:
    if below(case.survey.images / 4) < 8:
        return "the smallest of these rules"
    if below(case.survey.images / 4) < case.machine.batch:
        return "at most a quarter of the images, so that the images are in a new order every few steps"
    if case.machine is CPU:
        return "small, for more steps in the time that a CPU takes"
    return f"as large as {case.machine.words} processes well"


def half_life_of(case: Case) -> int:
    """The EMA's half-life in images: as published, 10,000 for a batch of 32, or the machine's."""
    return case.machine.average or batch_of(case) * 10_000 // 32


def _why_half_life(case: Case) -> str:
    if case.machine.average is None:
        return "images: as published, 10,000 for a batch of 32"
    return f"images: short, since {case.machine.words} sees few in this time"


def _why_noise(case: Case) -> str:
    if not case.sigma:
        return "as published"
    return "σ of noise on D's input: without it D wins at once with small batches, and samples become alike"


def _why_quiet(case: Case) -> str:
    if case.quiet is not None:
        return "images over which the noise falls to 0, for details at the end"
    return "the noise is constant" if case.sigma else "there is no noise"


def _why_layers(case: Case) -> str:
    if case.fine is not None:
        return "those that D's heads read: of strides 2 to 16, so that images of 64 pixels need not be enlarged"
    return "those that D's heads read: the usual ones of this network"


def length(images: int) -> int:
    """Return the length of a run in real images: 1,000 passes over them, within limits.

    >>> length(200), length(1200)
    (400000, 1200000)
    """
    return max(SHORT, min(PASSES * images, LONG))


def length_of(case: Case) -> int:
    """The length of the run in real images."""
    return length(case.survey.images)


def _why_separable(case: Case) -> str:
    if case.styled:
        return "as published with this generator"
    return "a step takes less time than with full heads" if case.machine is CPU else "full heads, as published"


def _why_length(case: Case) -> str:
    return f"{length_of(case) / case.survey.images:,.0f} passes over the images"


def _samples(most: Callable[[Case], int]) -> Callable[[Case], int]:
    return lambda case: max(FEWEST, min(case.survey.images, most(case)))


def _said(text: str) -> Callable[[Case], str]:
    return lambda case: text.format(machine=case.machine.words)


_EVERY: Callable[[Case], Any] = lambda case: case.machine.every  # noqa: E731
_WIDTH: Rule[Case] = Rule(
    lambda case: case.machine.width, _said("width of the networks that {machine} trains in this time")
)

# What is chosen before the images are known, with the reason, in the order of the printed table.
FIXED: dict[str, tuple[Any, str]] = {
    "model.name": ("projected", "D reads the features of a network trained on ImageNet, to learn from fewer images"),
    KEY: OTHER,  # or by the device
    "augment.policy": (
        ["color", "translation", "cutout"],
        "D sees few images often; these changes of its images keep it from learning them by heart",
    ),
}

# By configuration key, in the order of the printed table. A key that a model does not have is left out.
RULES: dict[str, Rule[Case]] = {
    "dataset.size": Rule(size_of, _why_size),
    "dataset.flip": Rule(
        lambda case: True, _said("twice the images; type false for text, logos, or sides that differ")
    ),
    "batch_size": Rule(batch_of, _why_batch),
    "model.ch": _WIDTH,
    "model.D.ch": _WIDTH,
    "pretrained.layers": Rule(lambda case: case.fine or case.usual, _why_layers),
    "model.D.resolution": Rule(
        lambda case: case.seen, lambda case: "smaller images are enlarged to this side for D's frozen network"
    ),
    "model.ch_base": Rule(lambda case: 64 * case.machine.width, _WIDTH.why),
    "model.D.separable": Rule(lambda case: case.styled or case.machine is CPU, _why_separable),
    "model.ema.half_life": Rule(half_life_of, _why_half_life),
    "model.ema.ramp": Rule(
        lambda case: None if case.machine.average else 0.05,
        lambda case: "the half-life is constant" if case.machine.average else "as published",
    ),
    "loss.noise": Rule(lambda case: case.sigma, _why_noise),
    "loss.noise_until": Rule(lambda case: case.quiet, _why_quiet),
    "images": Rule(length_of, _why_length),
    "max_time": Rule(lambda case: case.machine.minutes, _said("minutes for {machine}; resume=last continues")),
    "observers.scores.every": Rule(_EVERY, _said("steps between evaluations, by which the best checkpoint is chosen")),
    "observers.scores.n": Rule(
        _samples(lambda case: case.machine.samples),
        _said("samples: as many as images, within what {machine} evaluates"),
    ),
    "observers.copies.every": Rule(_EVERY, _said("as observers.scores.every")),
    "observers.copies.n": Rule(_samples(lambda case: case.machine.samples), _said("as observers.scores.n")),
    "observers.checkpoints.every": Rule(_EVERY, _said("steps between checkpoints")),
    "observers.final.n": Rule(_samples(lambda case: MOST), _said("samples: as many as images, 200 to 1,000")),
}


def rules(config: Mapping[str, Any]) -> dict[str, Rule[Case]]:
    """Return the rules by key: a network's own width has the model's."""
    return RULES | {f"model.{name}.ch": _WIDTH for name in config["model"]}


def settled(
    config: Mapping[str, Any], survey: Survey, device: str, ranks: int = 1, layers: Any = None
) -> tuple[dict[str, Any], Chosen, list[str]]:
    """Return a configuration with a value for each key that is `auto`, the table of the rules, and notes.

    device: torch's kind. layers: the usual ones of the frozen network. Keys with another value keep it; the table says
    so. Raises DataError for too few images, ConfigError for a width that G does not have.
    """
    if survey.images < LEAST:
        raise DataError(
            f"the rules for few images (experiment=few_shot) need at least {LEAST} images, and there are"
            f" {survey.images}: add some, or train without these rules by experiment=photos"
        )
    case = Case.of(config, survey, device, ranks, layers)
    found, rows = dict(config), _fixed(config, device)
    if "ch" in config["model"] and not _has_width(config["model"]):
        found["model"] = _without_width(config["model"])
    for key, rule in rules(config).items():
        if not holds(found, key):
            continue
        value, given = rule.value(case), value_of(config, key)
        if given == AUTO:
            set_value(found, key, value)
        if key not in RULES:
            continue
        if given == AUTO:
            rows.append(Row(key, shown(value), rule.why(case)))
        elif key != "images" or given is not None:  # else the length is given by steps
            rows.append(Row(key, shown(given), _kept(given, value)))
    return found, Chosen(f"chosen for {survey.told}, on {case.machine.words}:", tuple(rows)), _notes(survey)


def _has_width(model: Mapping[str, Any]) -> bool:
    """Whether G has the width `ch`."""
    nets = [node for node in model.values() if isinstance(node, Mapping) and "_target_" in node]
    return any("ch" in node for node in nets if not node["_target_"].endswith("Discriminator"))


def _without_width(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's section without the recipe's width. Raises ConfigError if one was typed."""
    if model["ch"] != AUTO:
        raise ConfigError(f"model.ch={model['ch']}: the width of this generator has another key: see model.ch_base")
    return {name: value for name, value in model.items() if name != "ch"}


def _kept(given: Any, ruled: Any) -> str:
    return "as configured" if given == ruled else f"as configured; by rule {shown(ruled)}"


def _fixed(config: Mapping[str, Any], device: str) -> list[Row]:
    """Return the rows of what is chosen before the images are known."""
    rows = []
    wanted = FIXED | {KEY: GENERATORS.get(device, OTHER)}
    for key, (value, why) in wanted.items():
        if holds(config, key):
            given = value_of(config, key)
            rows.append(Row(key, shown(given), why if given == value else _kept(given, value)))
    return rows


def _notes(survey: Survey) -> list[str]:
    """Return advice if images are fewer or more than the rules are meant for."""
    if survey.images < FEW:
        return [
            f"{survey.images} images are very few: expect copies; a run that starts from one on similar images, by"
            " init=RUN, needs fewer"
        ]
    if survey.images > MANY:
        return [f"{survey.images:,} images are many: experiment=auto (StyleGAN2 with ADA) is meant for them"]
    return []


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with the rules' values for some images, so that its types can be checked."""
    return settled(config, Survey(FEW, 64, 64, 64), "cpu")[0]
