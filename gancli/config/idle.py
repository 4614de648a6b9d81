"""Keys that say nothing beside others: refused where they cannot be meant, said in a line where they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gancli.config.settings import DrawSettings, EvalSettings, InterpolateSettings, SampleSettings, TrainSettings
from gancli.errors import ConfigError


def typed_keys(overrides: Iterable[str]) -> set[str]:
    """The keys of a command line.

    >>> sorted(typed_keys(["seed=3", "+penalty.r1.every=2"]))
    ['penalty.r1.every', 'seed']
    """
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def refuse(settings: DrawSettings, typed: set[str]) -> None:
    """Raise ConfigError for the first key of a command that draws which another of its keys makes idle."""
    if "standing_stats" in typed and not settings.ema and settings.standing_stats:
        raise ConfigError(
            "standing_stats= settles the averaged generator, and ema=false draws from the raw one: leave"
            " one of them out"
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
            raise ConfigError(f"{key}= says nothing beside {why}: leave one of them out")


def _sample(settings: SampleSettings) -> Iterator[tuple[str, str]]:
    if settings.seeds is not None:
        yield from (("n", "seeds=, one image a seed"), ("seed", "seeds=, one image a seed"))
    if settings.arithmetic is not None:
        yield from ((key, "arithmetic=, which names its latents") for key in ("n", "seeds"))
    if settings.format in ("safetensors", "onnx"):
        yield "seed", f"format={settings.format}, which writes the generator"


def _interpolate(settings: InterpolateSettings) -> Iterator[tuple[str, str]]:
    if settings.axis == "class":
        yield "mode", "axis=class, which holds the latent"


def _eval(settings: EvalSettings) -> Iterator[tuple[str, str]]:
    from gancli.config.build import make

    metrics = [make(node, f"metrics.{name}") for name, node in settings.metrics.items() if node]
    if metrics and not any(metric.needs_extractor() for metric in metrics):
        names = ",".join(metric.name for metric in metrics)
        for key in ("extractor", "compile", "cache"):
            yield key, f"metrics=[{names}], of which none asks for an extractor"


def one_length(config: Mapping[str, Any], typed: set[str]) -> dict[str, Any]:
    """A configuration of a training that says how long it is once, by steps or by images: as was typed, where both are.

    Raises ConfigError where both were typed.
    """
    if config.get("images") is None or config.get("steps") is None:
        return dict(config)
    if {"images", "steps"} <= typed and config["steps"] != 0:  # without steps, the length is only forecast
        both = f"images={config['images']} and steps={config['steps']} both say how long the run is"
        raise ConfigError(f"{both}: leave one out, or type images=null")
    return {**config, "images" if "steps" in typed else "steps": None}


def notes(
    settings: TrainSettings, typed: set[str], steps: int, images: int, points: bool = False, words: str = "images"
) -> list[str]:
    """What of a training's settings has no effect in this run, a line each.

    steps, images: of the whole run. points: whether samples are points that are drawn in a plane; else words: what they
    are. Of keys that have defaults, those that were typed are spoken of; schedules that
    never begin, in any case.
    """
    found = [*_schedules(settings, steps, images), *_averages(settings, typed, steps)]
    return [*found, *_switched_off(settings, typed), *_observers(settings, typed, steps, points, words)]


def _schedules(settings: TrainSettings, steps: int, seen: int) -> Iterator[str]:
    moves = steps * int(settings.game.get("d_steps") or 1)
    for key, schedule in _rates(settings):
        start, images = schedule.get("start") or 0, schedule.get("unit") == "images"
        if schedule.get("kind", "constant") == "constant":
            idle = [name for name in ("start", "end") if schedule.get(name)]
            yield from (f"{key}.{name}={schedule[name]} says nothing with {key}.kind=constant" for name in idle)
        elif steps and start >= (seen if images else steps):
            ends = f"after {seen:,} images" if images else f"at step {steps}"
            yield f"{key}.start={start}: the run ends {ends}, before the rates begin to fall"
    if not steps:
        return
    ramp = settings.ramp or {}
    if (ramp.get("images") or 0) > seen:
        share = 100 * seen / ramp["images"]
        yield f"ramp.images={ramp['images']}: the run sees {seen:,}, so that the ramp ends at {share:.3g} % of its way"
    for name, node in (settings.penalty or {}).items():
        if ((node or {}).get("every") or 1) > steps:
            yield f"penalty.{name}.every={node['every']}: the run has {steps} steps, so that it is paid once"
    lecam = (settings.penalty or {}).get("lecam") or {}
    if (lecam.get("after") or 0) >= moves - 1 and lecam:  # told before each move how many there were
        yield f"penalty.lecam.after={lecam['after']}: D makes {moves:,} moves in this run, so that it is never paid"
    loss = settings.loss or {}
    if (loss.get("noise_until") or 0) > seen and loss.get("noise"):
        yield f"loss.noise_until={loss['noise_until']}: the run ends after {seen:,} images, with noise left"
    if (loss.get("top_until") or 0) > seen and loss.get("top") != 1:
        yield f"loss.top_until={loss['top_until']}: the run ends after {seen:,} images, on the way to top"


def _rates(settings: TrainSettings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schedules of the learning rates by their keys: that of all players, and those that are one's own."""
    places: dict[str, Any] = {"optimizer": settings.optimizer}
    places |= {f"optimizer.{name}": node for name, node in settings.optimizer.items() if isinstance(node, Mapping)}
    for key, node in places.items():
        if isinstance(node.get("schedule"), Mapping):
            yield f"{key}.schedule", node["schedule"]


def _averages(settings: TrainSettings, typed: set[str], steps: int) -> Iterator[str]:
    ema = settings.model.get("ema") or {}
    start = ema.get("start") or 0
    if not ema.get("decay"):
        yield from _said(typed, ("model.ema.start", "model.ema.warmup"), "model.ema.decay=0, which keeps no average")
    elif steps and start >= steps:
        yield f"model.ema.start={start}: the run ends at step {steps}, with a plain copy as average"


def _switched_off(settings: TrainSettings, typed: set[str]) -> Iterator[str]:
    """Options of something that another key has switched off."""
    loss, augment = settings.loss or {}, settings.augment or {}
    if not loss.get("noise"):
        yield from _said(typed, ("loss.noise_until",), "loss.noise=0")
    if loss.get("top") == 1:
        yield from _said(typed, ("loss.top_until",), "loss.top=1")
    if settings.model.get("conditioning", "none") != "ac":
        keys = ("game.class_weight", "game.class_fakes")
        yield from _said(typed, keys, "a D without an auxiliary classifier (model.conditioning=ac)")
    for player, node in settings.model.items():
        if isinstance(node, Mapping) and node.get("activation", "maxout") != "maxout":
            yield from _said(typed, (f"model.{player}.pieces",), f"model.{player}.activation={node['activation']}")
    still = "target" in augment and augment["target"] is None and not (settings.ramp or {}).get("augment")
    if still and not augment.get("p"):
        yield "augment.target=null and augment.p=0: p stays 0, and nothing is augmented"
    scores = settings.observers.get("scores") or {}
    if scores and scores.get("every") is None:
        others = tuple(f"observers.scores.{name}" for name in scores if name not in ("every", "_target_"))
        yield from _said(typed, others, "observers.scores.every=null, which evaluates nothing")


def _said(typed: set[str], keys: Sequence[str], why: str) -> Iterator[str]:
    yield from (f"{key} says nothing with {why}" for key in keys if key in typed)


def _observers(settings: TrainSettings, typed: set[str], steps: int, points: bool, words: str) -> Iterator[str]:
    """Observers that never look, or only before and after the run."""
    for name, node in settings.observers.items():
        every: Any = (node or {}).get("every")
        if name in ("progress", "report") or not every:  # their `every` is seconds
            continue
        if steps and every > steps and f"observers.{name}.every" in typed:
            when = "never looks" if name == "alarms" else "looks before the first step and after the last"
            yield f"observers.{name}.every={every}: the run has {steps} steps, so that it {when}"
    idle, what = ("grid", "points") if points else ("plane", words)
    keys = tuple(f"observers.{idle}.{name}" for name in settings.observers.get(idle) or {})
    yield from _said(typed, keys, f"data that are {what}")
