"""Keys without effect: refused if they contradict others, otherwise noted in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gancli.config.settings import DrawSettings, EvalSettings, InterpolateSettings, SampleSettings, TrainSettings
from gancli.errors import ConfigError


def typed_keys(overrides: Iterable[str]) -> set[str]:
    """Return the keys of a command line.

    >>> sorted(typed_keys(["seed=3", "+penalty.r1.every=2"]))
    ['penalty.r1.every', 'seed']
    """
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def refuse(settings: DrawSettings, typed: set[str]) -> None:
    """Raise ConfigError for the first key of sample, interpolate or eval that has no effect because of another key."""
    if "standing_stats" in typed and not settings.ema and settings.standing_stats:
        raise ConfigError(
            "standing_stats= applies to the EMA weights, and ema=false uses the raw weights: leave one of them out"
        )
    found: Iterator[tuple[str, str]] = iter(())
    if isinstance(settings, SampleSettings):
        found = _sample(settings)
    elif isinstance(settings, InterpolateSettings):
        found = _interpolate(settings)
    elif isinstance(settings, EvalSettings):
        found = _eval(settings)
    for key, why in found:
        if key in typed or any(each.startswith(f"{key}.") for each in typed):
            raise ConfigError(f"{key}= has no effect with {why}: leave one of them out")


def _sample(settings: SampleSettings) -> Iterator[tuple[str, str]]:
    if settings.seeds is not None:
        yield from (("n", "seeds=, one image per seed"), ("seed", "seeds=, one image per seed"))
    if settings.arithmetic is not None:
        yield from ((key, "arithmetic=, which gives the seeds") for key in ("n", "seeds"))
    if settings.project is None:
        yield from ((f"project_{key}", "project=null") for key in ("steps", "space", "lpips"))
    if settings.format in ("safetensors", "onnx", "rosinality"):
        yield "seed", f"format={settings.format}, which exports the generator"


def _interpolate(settings: InterpolateSettings) -> Iterator[tuple[str, str]]:
    if settings.axis == "class":
        yield "mode", "axis=class, which keeps the latent fixed"
    if settings.axis == "w" or (settings.w is not None and settings.axis is None):
        yield "mode", "axis=w, whose paths are straight lines"
    if settings.axis in ("translate", "rotate"):
        yield "mode", f"axis={settings.axis}, which keeps the latents"
    if (settings.axis or "").startswith("direction"):
        yield "mode", f"axis={settings.axis}, which is a straight line"


def _eval(settings: EvalSettings) -> Iterator[tuple[str, str]]:
    from gancli.config.build import make

    metrics = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if metrics and not any(metric.needs_extractor() for metric in metrics):
        names = ",".join(metric.name for metric in metrics)
        for key in ("extractor", "compile", "cache"):
            yield key, f"metrics=[{names}], which use no extractor"


def one_length(config: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """Return a training configuration with either steps or images set: the typed one if both are.

    Raises ConfigError if both were typed.
    """
    if config.get("images") is None or config.get("steps") is None:
        return dict(config)
    if {"images", "steps"} <= typed and config["steps"] != 0:  # steps=0 only forecasts the length
        both = f"images={config['images']} and steps={config['steps']} both set the length of the run"
        raise ConfigError(f"{both}: leave one out, or type images=null")
    return {**config, "images" if "steps" in typed else "steps": None}


def notes(
    settings: TrainSettings, typed: set[str], steps: int, images: int, points: bool = False, words: str = "images"
) -> list[str]:
    """Return one line per setting that has no effect in this run.

    steps, images: length of the run. points: whether samples are points in a plane. words: the name of the samples.
    Keys with defaults are reported only if they were typed; schedules that never begin are always reported.
    """
    found = [*_schedules(settings, steps, images), *_averages(settings, typed, steps)]
    return [*found, *_switched_off(settings, typed), *_observers(settings, typed, steps, points, words)]


def _schedules(settings: TrainSettings, steps: int, seen: int) -> Iterator[str]:
    moves = steps * int(settings.game.get("d_steps") or 1)
    for key, schedule in _rates(settings):
        start, images = schedule.get("start") or 0, schedule.get("unit") == "images"
        if schedule.get("kind", "constant") == "constant":
            idle = [name for name in ("start", "end") if schedule.get(name)]
            yield from (f"{key}.{name}={schedule[name]} has no effect with {key}.kind=constant" for name in idle)
        elif steps and start >= (seen if images else steps):
            ends = f"after {seen:,} images" if images else f"at step {steps}"
            yield f"{key}.start={start}: the run ends {ends}, before the decay begins"
    if not steps:
        return
    ramp = settings.ramp or {}
    if (ramp.get("images") or 0) > seen:
        share = 100 * seen / ramp["images"]
        yield f"ramp.images={ramp['images']}: the run sees {seen:,} images, {share:.3g} % of the ramp"
    for name, node in (settings.penalty or {}).items():
        if ((node or {}).get("every") or 1) > steps:
            yield f"penalty.{name}.every={node['every']}: the run has {steps} steps, so that it is applied once"
    lecam = (settings.penalty or {}).get("lecam") or {}
    if (lecam.get("after") or 0) >= moves - 1 and lecam:  # compared with the number of earlier updates
        yield f"penalty.lecam.after={lecam['after']}: D has {moves:,} updates in this run, so that it is never applied"
    loss = settings.loss or {}
    if (loss.get("noise_until") or 0) > seen and loss.get("noise"):
        yield f"loss.noise_until={loss['noise_until']}: the run ends after {seen:,} images, before the noise is 0"
    if (loss.get("top_until") or 0) > seen and loss.get("top") != 1:
        yield f"loss.top_until={loss['top_until']}: the run ends after {seen:,} images, before top is reached"


def _rates(settings: TrainSettings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the learning-rate schedules by their keys: the shared one, and those of single players."""
    places: dict[str, Any] = {"optimizer": settings.optimizer}
    places |= {f"optimizer.{name}": node for name, node in settings.optimizer.items() if isinstance(node, Mapping)}
    for key, node in places.items():
        if isinstance(node.get("schedule"), Mapping):
            yield f"{key}.schedule", node["schedule"]


def _averages(settings: TrainSettings, typed: set[str], steps: int) -> Iterator[str]:
    ema = settings.model.get("ema") or {}
    start = ema.get("start") or 0
    if ema.get("decay", 0) == 0:
        yield from _said(
            typed,
            ("model.ema.start", "model.ema.warmup", "model.ema.half_life", "model.ema.ramp"),
            "model.ema.decay=0 (no EMA)",
        )
    elif steps and start >= steps:
        yield f"model.ema.start={start}: the run ends at step {steps}, before the EMA begins"


def _switched_off(settings: TrainSettings, typed: set[str]) -> Iterator[str]:
    """Yield notes about options of a feature that another key disables."""
    loss, augment = settings.loss or {}, settings.augment or {}
    if not loss.get("noise"):
        yield from _said(typed, ("loss.noise_until",), "loss.noise=0")
    if loss.get("top") == 1:
        yield from _said(typed, ("loss.top_until",), "loss.top=1")
    if settings.model.get("conditioning", "none") != "ac":
        keys = ("game.class_weight", "game.class_fakes")
        yield from _said(typed, keys, "a D without an auxiliary classifier (model.conditioning=ac)")
    for name, node in (settings.penalty or {}).items():
        if isinstance(node, Mapping) and node.get("every") == 1:
            yield from _said(typed, (f"penalty.{name}.share",), f"penalty.{name}.every=1, which uses the whole batch")
    for player, node in settings.model.items():
        if isinstance(node, Mapping) and str(node.get("_target_")).endswith("nets.projected.Discriminator"):
            yield from _said(typed, ("pretrained.size",), f"model=projected: type model.{player}.resolution=PIXELS")
        if isinstance(node, Mapping) and node.get("activation", "maxout") != "maxout":
            yield from _said(typed, (f"model.{player}.pieces",), f"model.{player}.activation={node['activation']}")
    still = "target" in augment and augment["target"] is None and not (settings.ramp or {}).get("augment")
    if still and not augment.get("p"):
        yield "augment.target=null and augment.p=0: p stays 0, so that nothing is augmented"
    for name, key in (("scores", "every"), ("copies", "every"), ("final", "metrics")):
        node = settings.observers.get(name) or {}
        if node and node.get(key) is None:
            others = tuple(f"observers.{name}.{other}" for other in node if other not in (key, "_target_"))
            yield from _said(typed, others, f"observers.{name}.{key}=null, which evaluates nothing")


def _said(typed: set[str], keys: Sequence[str], why: str) -> Iterator[str]:
    yield from (f"{key} has no effect with {why}" for key in keys if key in typed)


def _observers(settings: TrainSettings, typed: set[str], steps: int, points: bool, words: str) -> Iterator[str]:
    """Yield notes about observers that run never, or only at the first and last step."""
    for name, node in settings.observers.items():
        every: Any = (node or {}).get("every")
        if name in ("progress", "report") or not every:  # their `every` is seconds
            continue
        if steps and every > steps and f"observers.{name}.every" in typed:
            when = "never runs" if name == "alarms" else "runs only before the first step and after the last"
            yield f"observers.{name}.every={every}: the run has {steps} steps, so that it {when}"
    idle, what = ("grid", "points") if points else ("plane", words)
    keys = tuple(f"observers.{idle}.{name}" for name in settings.observers.get(idle) or {})
    yield from _said(typed, keys, f"data of {what}")
