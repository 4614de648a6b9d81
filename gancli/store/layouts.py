"""StyleGAN 2 and 3 weights in the layouts of other code bases: files read without running code, and the file written.

A file holds state dicts by name (g, d, g_ema of rosinality's code; G, D, G_ema of NVIDIA's), as a dictionary, with
names that begin with theirs, or one bare state dict.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gancli.config.commands import command, word
from gancli.errors import CombinationError, RunError, plain
from gancli.nets import fitting, layouts, layouts3, stylegan3
from gancli.nets.layouts import Layout, LayoutError
from gancli.nets.stylegan2 import Discriminator, Generator
from gancli.nets.stylegan2 import Mapping as Styles
from gancli.store import checkpoint
from gancli.store.export import SUFFIX, need
from gancli.store.files import open_regular
from gancli.store.networks import StoredNetwork
from gancli.store.safe import BrokenError, UnsafeError, examine, intact

PICKLES = (".pkl", ".pickle")
ZIP = b"PK"  # the first bytes of files since torch 1.6
LATENTS, CHUNK = 10_000, 500  # latents for the mean of w, and at once
RATE = 0.01  # of the mapping in both code bases
GROUP = 4  # of the minibatch deviation, theirs by default
FORMS = "g, d, g_ema of rosinality's code, or G, D, G_ema of NVIDIA's"


@dataclass(frozen=True)
class Foreign:
    """A file of another code base: the state dicts of its networks by their names in it; "" for a bare one.

    mean: the mean of w beside them.
    """

    file: Path
    layout: Layout
    parts: dict[str, dict[str, Tensor]]
    mean: Tensor | None
    sha256: str


# -- reading -----------------------------------------------------------------------------------------------------------


def read(path: Path, key: str) -> Foreign | None:
    """Read a file of another code base; None for a checkpoint or export of this program.

    key: the key that named it, for messages. No code in it is run, and no size that it states is trusted. Raises
    RunError.
    """
    if path.suffix in PICKLES:
        raise RunError(
            f"{key}={path} is a pickle, which could run code: in a checkout of NVIDIA's code type"
            f" python -c \"import torch, legacy; d = legacy.load_network_pkl(open({path.name!r}, 'rb')); torch.save("
            f"{{k: d[k].state_dict() for k in ('G', 'D', 'G_ema')}}, '{path.stem}.pt')\", then give {path.stem}.pt"
        )
    content = _safetensors(path, key) if path.suffix == SUFFIX else _saved(path, key)
    if content is None:
        return None
    found = _parts(content)
    known = {name: layouts.recognised(state) for name, state in found.items()}
    kinds = {name: kind for name, kind in known.items() if kind is not None}
    order = sorted(
        kinds.values(), key=lambda kind: layouts.ROLES.index(kind[1])
    )  # D's layout may be that of two models
    layout = order[0][0] if order else None
    roles = {} if layout is None else layout.names
    wrong = next((name for name in found if name and kinds.get(name, (None, ""))[1] != roles.get(name)), None)
    if layout is None or wrong is not None or any(a.rows[role] is not layout.rows[role] for a, role in order):
        what = f"its {wrong}" if wrong else "it"
        raise RunError(
            f"{key}={path}: {what} is neither a checkpoint of this program nor a StyleGAN 2 or 3 network by its"
            f" names; a file of weights holds the state dicts {FORMS}"
        )
    mean = content.get(layout.mean)
    return Foreign(path, layout, found, mean if isinstance(mean, Tensor) else None, checkpoint.sha256(path))


def _saved(path: Path, key: str) -> Mapping[str, Any] | None:
    """Read a file of torch.save; None if it is a checkpoint of this program."""
    try:
        with open_regular(path) as file:
            zipped = file.read(2) == ZIP
            outline = examine(file, legacy=not zipped, namespaces=True)
            if isinstance(outline, dict) and {"format", "step"} <= outline.keys():
                return None
            if zipped and not intact(file):
                raise BrokenError("a checksum is wrong")
            with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
                warnings.simplefilter("ignore")  # torch's, about files from before 1.6
                content = torch.load(file, map_location="cpu", weights_only=True)
    except UnsafeError as error:
        raise RunError(
            f"{key}={path} holds more than tensors and plain values ({error}); not loaded: save state dicts, {FORMS}"
        ) from None
    except MemoryError:
        raise RunError(f"{key}={path} does not fit into this machine's memory") from None
    except Exception as error:  # torch and zipfile raise a dozen kinds for a damaged file
        raise RunError(
            f"{key}={path} is truncated, damaged or not a file of torch.save ({plain(error)[:80]})"
        ) from None
    return content if isinstance(content, Mapping) else {}


def _safetensors(path: Path, key: str) -> Mapping[str, Any] | None:
    """Read a safetensors file; None if it is an export of this program."""
    need("safetensors")
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if "gan" in (file.metadata() or {}):
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except Exception as error:  # the library's own, which has no common base
        raise RunError(f"{key}={path} is truncated, damaged or not a safetensors file ({plain(error)[:80]})") from None


def _parts(content: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The state dicts of a file by their names in it."""
    names = {name for layout in layouts.LAYOUTS for name in layout.names}
    if layouts.recognised(content):
        return {"": _tensors(content)}
    found = {name: _tensors(part) for name, part in content.items() if name in names and isinstance(part, Mapping)}
    for full, value in content.items():
        name, _, rest = str(full).partition(".")
        if name in names and rest and isinstance(value, Tensor):
            found.setdefault(name, {})[rest] = value
    return found


def _tensors(part: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value for name, value in part.items() if isinstance(value, Tensor)}


# -- into networks of this program -------------------------------------------------------------------------------------


def role_of(net: nn.Module) -> str | None:
    """The role of a network of model=stylegan2 or stylegan3; None for any other network."""
    if isinstance(net, (Generator, stylegan3.Generator)):
        return layouts.ROLES[0]
    return layouts.ROLES[1] if isinstance(net, Discriminator) else None


def names(foreign: Foreign, role: str) -> list[str]:
    """The names in the file of the networks of a role, the raw one first."""
    layout = foreign.layout
    bare = layouts.recognised(foreign.parts[""]) if "" in foreign.parts else None
    if bare is not None:
        return [""] if bare[1] == role else []
    order = [name for name in (layout.raw, layout.average, layout.critic) if layout.names[name] == role]
    return [name for name in order if name in foreign.parts]


def network(foreign: Foreign, nets: Mapping[str, nn.Module], name: str, asked: str | None, what: str) -> StoredNetwork:
    """The weights of the network `name` of a game, from the file.

    nets: the game's, on the meta device, for their shapes. asked: the network's name in the file; None: by its role,
    with the average for the EMA. what: how messages begin, such as `init=FILE`. Raises RunError or CombinationError.
    """
    net, layout = nets[name], foreign.layout
    role = role_of(net)
    title, third = layout.title, isinstance(net, stylegan3.Generator)
    if role is None or (role == layouts.ROLES[0] and third != (layout.model == "stylegan3")):
        raise CombinationError(f"{what} holds {layout.system} weights in {title} layout: type model={layout.model}")
    held = names(foreign, role)
    if asked is not None and asked not in held:
        raise RunError(f"{what}: the file has no such network for {name}; it has {', '.join(held) or 'none'}")
    if not held:
        raise RunError(f"{what}: the file has no weights for {name}: leave init.{name} out, or give another file")
    first, notes = asked or held[0], list[str]()
    states = {part: _complete(foreign, role, part, what) for part in ([first] if asked else held)}
    for part, state in states.items():
        _refuse_shapes(nets, role, part, state, foreign, name, what)
    if third and any(not torch.equal(s[k], states[first][k]) for k in layouts3.FIXED for s in states.values()):
        raise RunError(
            f"{what}: {', '.join(states)} have different frequencies: name one, init='{{{name}: run:FILE#{first}}}'"
        )
    if role == layouts.ROLES[0]:
        notes += _one_mean(states, name)
    elif net.deviation.group != GROUP:  # type: ignore[union-attr]
        notes.append(
            f"{name}: the file does not say the group of its minibatch deviation: {GROUP} by default in {title} code,"
            f" model.{name}.group={net.deviation.group} here"  # type: ignore[union-attr]
        )
    lacks = not asked and first == layout.average
    told = f"{first or 'the only network'} of {foreign.file}, in {title} layout"
    told += f", which has no {layout.raw}" if lacks else ""
    others = [state for part, state in states.items() if part != first]
    return StoredNetwork(
        name=first or name,
        file=foreign.file,
        step=0,
        averaged=first == layout.average,
        state=states[first],
        config={},
        data={},
        pretrained=None,
        sha256=foreign.sha256,
        average=others[0] if others else None,
        told=told,
        notes=tuple(notes),
    )


def _complete(foreign: Foreign, role: str, part: str, what: str) -> dict[str, Tensor]:
    """The weights of one state dict by our names; the mean of w is that of the file, if there is one."""
    state, layout = foreign.parts[part], foreign.layout
    if role == layouts.ROLES[0] and foreign.mean is not None:
        state = {**state, layout.mean: foreign.mean}
    try:
        found = layouts3.ours(state) if _is_third(foreign, role) else layouts.ours(layout, role, state)
    except LayoutError as error:
        raise RunError(f"{what}: {part or 'its network'} {error}") from None
    if role != layouts.ROLES[0] and "mapping.embed.weight" in found:
        found[layouts.MEAN] = found["mapping.embed.bias"].new_zeros(len(found["mapping.embed.bias"]))  # not used
    return found


def _is_third(foreign: Foreign, role: str) -> bool:
    """Whether the networks of this role in a file are StyleGAN 3's own."""
    return role == layouts.ROLES[0] and foreign.layout.model == "stylegan3"


def _refuse_shapes(
    nets: Mapping[str, nn.Module],
    role: str,
    part: str,
    state: Mapping[str, Tensor],
    foreign: Foreign,
    name: str,
    what: str,
) -> None:
    """Raise CombinationError, with the command that fits, unless the network has the shapes of the file's."""
    net = nets[name]
    own = net.state_dict()
    other = {k for k in own.keys() | state.keys() if k != layouts.MEAN and _shape(own, k) != _shape(state, k)}
    sides = tuple(net.signals[-1].sides) if isinstance(net, stylegan3.Generator) else ()
    if other or sides != _sides(foreign, role, part):
        try:
            wanted = fitting.settings(role, state, _sides(foreign, role, part))
            model = "stylegan3" if any(isinstance(each, stylegan3.Generator) for each in nets.values()) else "stylegan2"
            every = {role: wanted}
            if model == foreign.layout.model:
                every |= {r: _settings(foreign, r, what) for r in layouts.ROLES if r != role}
            keys = fitting.differing(wanted, fitting.settings(role, own, sides))
        except LayoutError as error:
            raise CombinationError(f"{what}: {name} {error}") from None
        words = fitting.words(fitting.merged(every), model)
        both = {foreign.layout.raw, foreign.layout.average} <= foreign.parts.keys()
        words += (
            ["model.ema.ramp=null"] if model == "stylegan3" and both else []
        )  # its default would discard the average
        fits = command("train", f"model={model}", *words, word("init", foreign.file))
        labels = f", with a data set of {wanted[fitting.CLASSES]} classes" if fitting.CLASSES in wanted else ""
        said = f"it differs in {', '.join(keys)}" if keys else f"{min(other)[:80]} has another shape"
        raise CombinationError(f"{what}: these weights do not fit {name}: {said}; type {fits}{labels}")
    rate = _rate(net) if role == layouts.ROLES[0] else RATE
    options = layouts3.undone(net) if sides else []
    options += [] if rate == RATE else [f"model.{name}.mapping_rate={RATE}, and it is {rate:g} here"]
    if options:
        raise CombinationError(f"{what}: these weights are for {' '.join(options)}")


def _settings(foreign: Foreign, role: str, what: str) -> dict[str, Any]:
    """The settings of the first network of a role in the file; {} if it has none. Raises LayoutError."""
    held = names(foreign, role)
    if not held:
        return {}
    return fitting.settings(role, _complete(foreign, role, held[0], what), _sides(foreign, role, held[0]))


def _sides(foreign: Foreign, role: str, part: str) -> tuple[int, ...]:
    """The sides of the images of a generator of StyleGAN 3; () for other networks, whose tensors tell them."""
    return (layouts3.side_of(foreign.parts[part]),) * 2 if _is_third(foreign, role) else ()


def _rate(net: nn.Module) -> float:
    """The factor of the learning rate of a generator's mapping."""
    mapping: Any = net.mapping
    rate: float = mapping.layers[0].rate
    return rate


def _shape(state: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(state[name].shape) if name in state else None


def _one_mean(states: Mapping[str, dict[str, Tensor]], name: str) -> list[str]:
    """Give all generators of a file one mean of w, the average's, computed if it has none; return lines for a log.

    A run has one mean for both, as NVIDIA's code has: an EMA's buffers are those of the network.
    """
    last, computed = list(states.values())[-1], False
    if layouts.MEAN not in last:
        last[layouts.MEAN], computed = mean_style(last), True
    for state in states.values():
        state[layouts.MEAN] = last[layouts.MEAN]
    return [f"{name}: the mean of w is computed from {LATENTS:,} latents: the file has none"] if computed else []


@torch.no_grad()
def mean_style(state: Mapping[str, Tensor]) -> Tensor:
    """The mean of w, [w_dim], over normal latents and, if there are labels, uniformly random classes."""
    held = "mapping."
    own = {name.removeprefix(held): t.float() for name, t in state.items() if name.startswith(held)}
    first, embed = own["layers.0.weight"], own.get("embed.weight")
    inputs, classes = first.shape[1], 0 if embed is None else embed.shape[1]
    latent = inputs - (0 if embed is None else embed.shape[0])
    layers = sum(name.endswith(".weight") and name.startswith("layers.") for name in own)
    mapping = Styles(latent, first.shape[0], layers, RATE, classes)
    mapping.load_state_dict(own | {"mean": first.new_zeros(len(first))})
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(len(first), dtype=torch.float64)
    for _ in range(0, LATENTS, CHUNK):
        z = torch.randn(CHUNK, latent, generator=rng)
        y = torch.randint(classes, (CHUNK,), generator=rng) if classes else None
        total += mapping(z, y).double().sum(0)
    return (total / LATENTS).float()


# -- from a network of this program ------------------------------------------------------------------------------------


def refuse_other(net: nn.Module, model: str) -> None:
    """Raise RunError for a generator that rosinality's code cannot express."""
    other = "type format=safetensors"
    if not isinstance(net, Generator):
        raise RunError(f"format=rosinality is for model=stylegan2, and this run's is {model}: {other}")
    own = fitting.settings(layouts.ROLES[0], net.state_dict())
    channels, height, width = own["dataset.size"]
    wrong = ""
    if net.conditional:
        wrong = "takes labels, and theirs none"
    elif height != width or height & (height - 1) or channels != 3:
        wrong = f"has images of {channels}×{height}×{width}, and theirs three channels and equal sides, powers of two"
    elif _rate(net) != RATE:
        wrong = f"has model.G.mapping_rate={_rate(net):g}, and theirs {RATE}"
    elif own["model.latent.dim"] != own["model.G.w_dim"]:
        wrong = f"has latents of {own['model.latent.dim']} numbers and styles of {own['model.G.w_dim']}, theirs as many"
    if wrong:
        raise RunError(f"format=rosinality: this generator {wrong}: {other}")


def written(net: nn.Module, raw: nn.Module | None) -> bytes:
    """A file for rosinality's code: the generator as g_ema, `raw` as g, and the mean of w; verified.

    Raises RunError if it reads back other weights.
    """
    layout, role = layouts.ROSINALITY, layouts.ROLES[0]
    nets = {layout.average: net} | ({} if raw is None else {layout.raw: raw})
    states = {name: {k: t.detach().cpu() for k, t in each.state_dict().items()} for name, each in nets.items()}
    own = fitting.settings(role, states[layout.average])
    plan = layouts.Plan(len(net.blocks) - 1, own["model.mapping_layers"], labels=False)  # type: ignore[arg-type]
    maps = layouts.buffers(layout, plan, net.blocks[0].constant.shape[2:])  # type: ignore[index,union-attr]
    content: dict[str, Any] = {
        name: {k: t.clone() for k, t in layouts.theirs(layout, role, state, plan).items()} | maps
        for name, state in states.items()
    }
    content[layout.mean] = states[layout.average][layouts.MEAN]
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    back = torch.load(file, weights_only=True)
    for name, state in states.items():
        found = layouts.ours(layout, role, back[name])
        if any(not torch.equal(found[k], t) for k, t in state.items() if k != layouts.MEAN):
            raise RunError("format=rosinality read back other weights than were written; no file was kept")
    return file.getvalue()


def command_of(net: nn.Module) -> str:
    """The options of their generate.py for this generator, or what must be changed in their code."""
    own = fitting.settings(layouts.ROLES[0], net.state_dict())
    side, base = own["dataset.size"][1], own["model.ch_base"]
    options = f"generate.py --size {side} --channel_multiplier {max(1, base >> 14)}"
    usual = {"model.ch_max": 512, "model.G.w_dim": 512, "model.mapping_layers": 8}
    odd = [f"{key}={own[key]}, there {value}" for key, value in usual.items() if own[key] != value]
    odd += [] if base % 16384 == 0 else [f"model.ch_base={base}, there a multiple of 16384"]
    return f"{options}, once its constants are changed ({'; '.join(odd)})" if odd else options
