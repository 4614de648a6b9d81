"""The top-level keys of each verb with their types; conf/VERB.yaml documents them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gancli.errors import ConfigError

SMALLEST, LARGEST = 8, 8192  # side length in pixels of evaluated images
Node = dict[str, Any]  # a group's section, validated against its `_target_`
SAMPLES = 1000  # default number of evaluated samples
SIGNED = "signed"
Signed = Annotated[float, SIGNED]  # a number that may be negative; all others may not


def at_least(least: int, **values: float | None) -> None:
    """Raise ConfigError for the first value below `least`; None passes."""
    for name, value in values.items():
        if value is not None and not least <= value < float("inf"):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            raise ConfigError(f"{name}={shown}: must be at least {least}")


AutoRules = Literal["stylegan2", "few_shot"]  # rules for the keys that are `auto`
MOST = 1 << 40  # upper limit of all counts, far beyond any run
MOST_EVALUATED = 1 << 30  # upper limit of images in one evaluation


def at_most(most: int, **values: float | None) -> None:
    """Raise ConfigError for the first value above `most`; None passes."""
    for name, value in values.items():
        if value is not None and value > most:
            shown = str(value) if len(str(value)) < 30 else f"{str(value)[:20]}..."
            raise ConfigError(f"{name}={shown}: must be at most {most}")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """`gan train`."""

    steps: int | None
    images: int | None = None
    batch_size: int | None
    micro_batch: int | None
    seed: int
    resume: str | None
    init: str | Node | None
    max_time: float | None
    auto_rules: AutoRules = "stylegan2"
    compile: bool
    run_dir: str | None
    note: str | None
    game: Node
    model: Node
    loss: Node | None = None
    penalty: Node | None = None
    augment: Node | None = None
    ramp: Node | None = None
    pretrained: Node | None = None
    terms: Node | None = None
    dataset: Node
    optimizer: Node
    device: Node
    precision: Node
    observers: Node

    def __post_init__(self) -> None:
        at_least(0, steps=self.steps, seed=self.seed, max_time=self.max_time)
        at_least(1, images=self.images, batch_size=self.batch_size, micro_batch=self.micro_batch)
        at_most(MOST, steps=self.steps, images=self.images, batch_size=self.batch_size, micro_batch=self.micro_batch)


@dataclass(frozen=True)
class PretrainedPlace:
    """New place of the weights of a run's pretrained network; null: the recorded place."""

    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Keys common to all verbs that draw from a trained generator."""

    run: str
    checkpoint: int | str
    seed: int
    ema: bool
    truncation_layers: int | None
    standing_stats: int | None
    direction: str | None
    run_dir: str | None
    device: Node
    pretrained: PretrainedPlace

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed, standing_stats=self.standing_stats)
        at_least(1, truncation_layers=self.truncation_layers)
        if self.truncation_layers is not None and getattr(self, "truncation", None) is None:
            raise ConfigError(f"truncation_layers={self.truncation_layers}: add truncation=, such as truncation=0.7")
        at_most(100_000, standing_stats=self.standing_stats)


def check_truncation(threshold: float | None) -> None:
    """Raise ConfigError for a threshold that is not positive and finite."""
    if threshold is not None and not 0 < threshold < float("inf"):
        raise ConfigError(
            f"truncation={threshold:g}: expected a threshold above 0, such as 0.5, or null for no truncation"
        )


@dataclass(frozen=True)
class DataPlace:
    """New place of a run's data, by the keys of its data set; null: the recorded place."""

    root: str | None = None
    root_B: str | None = None  # noqa: N815 - as the key of dataset=unpaired

    def typed(self) -> dict[str, str]:
        """Return the given places by key. Raises ConfigError for an empty one."""
        found = {key: place for key, place in (("root", self.root), ("root_B", self.root_B)) if place is not None}
        for key, place in found.items():
            if not place.strip():
                raise ConfigError(f"dataset.{key}= is empty: give the folder of the run's data, or leave it out")
        return found


@dataclass(frozen=True, kw_only=True)
class SampleSettings(DrawSettings):
    """`gan sample`."""

    input: str | None
    truncation: float | None
    n: int | None
    seeds: str | list[int] | None
    classes: str | list[int | str] | None
    size: Literal["full", "active"]
    arithmetic: str | None
    mixing: str | list[int] | int | None
    w: str | None
    project: str | None
    project_steps: int
    project_space: Literal["w", "w+"]
    project_lpips: str | None
    translate: list[Signed] | None
    rotate: Signed | None
    attention: bool
    points: list[list[float]] | None
    format: Literal["grid", "png", "npz", "w", "safetensors", "onnx", "rosinality"]
    serve: bool
    host: str
    port: int
    open: bool
    dataset: DataPlace

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truncation(self.truncation)
        at_least(1, n=self.n, project_steps=self.project_steps)
        at_most(MOST, n=self.n, project_steps=self.project_steps)
        if self.translate is not None and len(self.translate) != 2:
            typed = ",".join(f"{share:g}" for share in self.translate)
            raise ConfigError(
                f"translate=[{typed}]: two fractions of the shorter side, right and down: translate=[0.1,0]"
            )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port}: expected a port from 0 to 65535; 0 takes any free one")


@dataclass(frozen=True, kw_only=True)
class InterpolateSettings(DrawSettings):
    """`gan interpolate`."""

    truncation: float | None
    axis: str | None
    strength: float | None
    layers: str | list[int] | int | None
    w: str | None
    classes: str | list[int | str] | None
    rows: int
    frames: int
    size: Literal["full", "active"]
    mode: Literal["slerp", "lerp"]
    format: Literal["png", "gif"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truncation(self.truncation)
        at_least(1, rows=self.rows)
        if self.strength == 0:
            raise ConfigError("strength=0 moves nothing: type a number above 0, or leave it out")
        at_least(2, frames=self.frames)
        at_most(MOST, rows=self.rows, frames=self.frames)


@dataclass(frozen=True, kw_only=True)
class EvalSettings(DrawSettings):
    """`gan eval`."""

    run: str | list[str]  # type: ignore[assignment]  # several runs are compared
    truncation: float | list[float | None] | None
    input: str | None
    reference: str | None
    export_reference: str | None
    size: int | list[int] | None
    dataset: DataPlace
    controls: bool
    cache: bool
    compile: bool
    n: int | None
    n_real: int | None
    metrics: Node = field(default_factory=dict)
    extractor: Node

    def __post_init__(self) -> None:
        super().__post_init__()
        for threshold in self.thresholds():
            check_truncation(threshold)
        at_least(2, n=self.n, n_real=self.n_real)
        at_most(MOST_EVALUATED, n=self.n, n_real=self.n_real)
        sides = self.sides()
        if sides is not None and (len(sides) != 2 or not all(SMALLEST <= side <= LARGEST for side in sides)):
            raise ConfigError(
                f"size={self.size}: a side or [height,width] of {SMALLEST} to {LARGEST} pixels, such as size=64"
            )

    def count(self, rows: int | None = None) -> int:
        """Return the number of samples: n; if null, the number of input rows, or SAMPLES without inputs."""
        if self.n is not None:
            return self.n
        return SAMPLES if rows is None else rows

    def sides(self) -> list[int] | None:
        """Return the [height, width] that images are resized to; None: their own size."""
        return [self.size, self.size] if isinstance(self.size, int) else self.size

    def thresholds(self) -> list[float | None]:
        """Return the truncation thresholds to evaluate. Raises ConfigError for an empty list."""
        if self.truncation == []:
            raise ConfigError("truncation=[]: give at least one threshold, such as truncation=[0.5,1.0,null]")
        return self.truncation if isinstance(self.truncation, list) else [self.truncation]


Better = Literal["auto", "low", "high"]  # which values of the ranking's result are better


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The keys of a sweep; conf/sweep.yaml documents them."""

    sweep_dir: str | None
    resume_sweep: str | None
    retry: bool
    rank: str | None
    better: Better
    launcher: Node
    search: Node
