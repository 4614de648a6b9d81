"""The generator of a model that takes any: `model.generator=NAME` is a choice of the group `generator`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gancli.config.files import default_choices, groups, overridden
from gancli.errors import ConfigError

GROUP, KEY = "generator", "model.generator"


def as_choices(verb: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """Return overrides with `model.generator=` written as the group's choice, if the verb has that group.

    A model with its own generator takes none from an experiment, either.

    >>> as_choices("train", ["model=projected", "model.generator=fastgan,stylegan2", "steps=4"])
    ['model=projected', 'generator=fastgan,stylegan2', 'steps=4']
    >>> as_choices("sample", ["model.generator=fastgan"])
    ['model.generator=fastgan']
    >>> as_choices("train", ["experiment=few_shot", "model=dcgan"])
    ['experiment=few_shot', 'model=dcgan', 'generator=none']
    """
    if GROUP not in default_choices(verb):
        return list(overrides)
    found = [o.replace(KEY, GROUP, 1) if o.lstrip("+").partition("=")[0] == KEY else o for o in overrides]
    typed = {name: value for name, _, value in (o.partition("=") for o in found)}
    own = "model" in typed and GROUP not in overridden("model", typed["model"], folders)
    if own and GROUP not in typed and GROUP in overridden("experiment", typed.get("experiment", "none"), folders):
        found.append(f"{GROUP}=none")
    return found


def refuse(verb: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Raise ConfigError for a generator beside a model that has its own, or none beside one that has not."""
    if GROUP not in default_choices(verb):
        return
    typed = {name: value for name, _, value in (o.partition("=") for o in overrides)}
    if GROUP not in typed:
        return
    experiment = overridden("experiment", typed.get("experiment", "none"), folders)
    model = typed.get("model", experiment.get("model", default_choices(verb)["model"]))
    choices = [name for name in groups(verb, folders)[GROUP] if name != "none"]
    takes, none = GROUP in overridden("model", model, folders), typed[GROUP] in ("none", "null")
    if takes and none:
        raise ConfigError(f"model={model} needs a generator: type {KEY}=NAME (choices: {', '.join(choices)})")
    if not takes and not none:
        other = "" if "resume" in typed else ", or type model=projected"
        raise ConfigError(f"{KEY}={typed[GROUP]}: model={model} has its own generator: leave it out{other}")
