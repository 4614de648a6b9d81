"""The keys at the top of each verb's configuration, with their types; what they mean stands in conf/VERB.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from gancli.errors import ConfigError

SMALLEST, LARGEST = 8, 8192  # pixels a side of an image that is evaluated
Node = dict[str, Any]  # a group's part of the configuration, checked against what it builds
SAMPLES = 1000  # that are evaluated unless n says otherwise
SIGNED = "signed"
Signed = Annotated[float, SIGNED]  # a number that may be below 0, as no other may


def at_least(least: int, **values: float | None) -> None:
    """Raise ConfigError for the first value below `least`; None passes."""
    for name, value in values.items():
        if value is not None and not least <= value < float("inf"):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            raise ConfigError(f"{name}={shown}: must be at least {least}")


MOST = 1 << 40  # of anything that is counted one by one: no machine comes to the end of it
MOST_EVALUATED = 1 << 30  # images of one evaluation: weeks


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
    """Where the weights of a run's pretrained network are now; null: where the run says."""

    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """What every verb that draws from a trained generator is told."""

    run: str
    checkpoint: int | str
    seed: int
    ema: bool
    standing_stats: int | None
    direction: str | None
    run_dir: str | None
    device: Node
    pretrained: PretrainedPlace

    def __post_init__(self) -> None:
        at_least(0, seed=self.seed, standing_stats=self.standing_stats)
        at_most(100_000, standing_stats=self.standing_stats)


def check_truncation(threshold: float | None) -> None:
    """Raise ConfigError for a threshold that leaves no latents."""
    if threshold is not None and not 0 < threshold < float("inf"):
        raise ConfigError(f"truncation={threshold:g}: a threshold above 0, such as 0.5, or null for none")


@dataclass(frozen=True)
class DataPlace:
    """Where a run's data are now, by the keys of its data set that name folders; null: where the run says."""

    root: str | None = None
    root_B: str | None = None  # noqa: N815 - as the key of dataset=unpaired

    def typed(self) -> dict[str, str]:
        """The places that are named, by key. Raises ConfigError for an empty one."""
        found = {key: place for key, place in (("root", self.root), ("root_B", self.root_B)) if place is not None}
        for key, place in found.items():
            if not place.strip():
                raise ConfigError(f"dataset.{key}= is empty: name where the run's data are, or leave it out")
        return found


@dataclass(frozen=True, kw_only=True)
class SampleSettings(DrawSettings):
    """`gan sample`."""

    input: str | None
    truncation: float | None
    n: int | None
    seeds: str | list[int] | None
    classes: str | list[int | str] | None
    arithmetic: str | None
    attention: bool
    points: list[list[float]] | None
    format: Literal["grid", "png", "npz", "safetensors", "onnx"]
    serve: bool
    host: str
    port: int
    open: bool
    dataset: DataPlace

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truncation(self.truncation)
        at_least(1, n=self.n)
        at_most(MOST, n=self.n)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port}: a port is a number up to 65535; 0 takes any free one")


@dataclass(frozen=True, kw_only=True)
class InterpolateSettings(DrawSettings):
    """`gan interpolate`."""

    truncation: float | None
    axis: str | None
    classes: str | list[int | str] | None
    rows: int
    frames: int
    mode: Literal["slerp", "lerp"]
    format: Literal["png", "gif"]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_truncation(self.truncation)
        at_least(1, rows=self.rows)
        at_least(2, frames=self.frames)
        at_most(MOST, rows=self.rows, frames=self.frames)


@dataclass(frozen=True, kw_only=True)
class EvalSettings(DrawSettings):
    """`gan eval`."""

    run: str | list[str]  # type: ignore[assignment]  # several are compared
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
                f"size={self.size}: one side, or [height,width], of {SMALLEST} to {LARGEST} pixels, such as size=64"
            )

    def count(self, rows: int | None = None) -> int:
        """How many samples: n; where that is null, as many as there are rows to make them from, else SAMPLES."""
        if self.n is not None:
            return self.n
        return SAMPLES if rows is None else rows

    def sides(self) -> list[int] | None:
        """[height, width] that images are to have; None: their own."""
        return [self.size, self.size] if isinstance(self.size, int) else self.size

    def thresholds(self) -> list[float | None]:
        """The truncations to evaluate, one after the other. Raises ConfigError for an empty list."""
        if self.truncation == []:
            raise ConfigError("truncation=[]: at least one threshold, such as truncation=[0.5,1.0,null]")
        return self.truncation if isinstance(self.truncation, list) else [self.truncation]


Better = Literal["auto", "low", "high"]  # of a result by which runs are ranked


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The keys of a sweep; what they mean stands in conf/sweep.yaml."""

    sweep_dir: str | None
    resume_sweep: str | None
    retry: bool
    rank: str | None
    better: Better
    launcher: Node
    search: Node
