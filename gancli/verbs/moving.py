"""Moved samples: `gan sample translate=` and `rotate=`, and `gan interpolate axis=translate` and `axis=rotate`."""

from __future__ import annotations

from collections.abc import Sequence

from gancli.config.build import shown
from gancli.config.settings import InterpolateSettings, SampleSettings
from gancli.draw.moving import STRENGTHS, places
from gancli.draw.sampling import Pair, Sampler
from gancli.errors import ConfigError
from gancli.games.drawing import TRANSFORM
from gancli.games.game import Batch
from gancli.verbs import editing, styles_file
from gancli.verbs.styles_file import Styled


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for other keys that translate= and rotate= do not apply to."""
    for name in ("translate", "rotate"):
        if getattr(settings, name) is None:
            continue
        for other, why in (("input", "outputs stay in place"), ("project", "styles are searched for images in place")):
            if getattr(settings, other) is not None:
                raise ConfigError(f"{name}= and {other}=: {why}; leave one of them out")
        if settings.serve:
            raise ConfigError(f"{name}= and serve=true: the page draws images in place; leave one of them out")
        if settings.format == "w":
            raise ConfigError(f"{name}=: format=w writes styles, not images: leave {name} out")


def moved(settings: SampleSettings, sampler: Sampler) -> Sampler:
    """Return a sampler that moves its samples as the settings say. Raises ConfigError if its game cannot."""
    given = {name: getattr(settings, name) for name in ("translate", "rotate")}
    said = " ".join(f"{name}={shown(value)}" for name, value in given.items() if value is not None)
    if not said:
        return sampler
    right, down = settings.translate or (0.0, 0.0)
    return sampler.moved(right, down, settings.rotate or 0.0, said)


def inputs(
    settings: InterpolateSettings, sampler: Sampler, axis: str, labels: Sequence[int] | None, given: Styled | None
) -> tuple[Batch, list[Pair], dict[str, object]]:
    """Return the generator's inputs, the samples' keys, and what the JSON says.

    Row k is sample k of the seed, or row k of a file, with the same latents in all frames. labels: of the rows. Raises
    ConfigError.
    """
    strength, frames = STRENGTHS[axis] if settings.strength is None else settings.strength, settings.frames
    if given is None:
        pairs = [(settings.seed, row) for row in range(settings.rows)]
        own = sampler.inputs(pairs, sampler.given(pairs, labels))
    else:
        rows = editing.first(settings, len(given.w), "rows of the file")
        pairs = given.keys(settings.seed)[:rows]
        own = styles_file.inputs(given, sampler, range(rows))
    made = {name: column.repeat_interleave(frames, 0) for name, column in own.items()}
    made[TRANSFORM] = places(axis, strength, frames).repeat(len(pairs), 1)
    return made, [pair for pair in pairs for _ in range(frames)], {"strength": strength}
