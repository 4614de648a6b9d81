"""The weights of StyleGAN 2 in the layouts of two other code bases: their names, their shapes, and those here.

StyleGAN 3's discriminator is StyleGAN 2's; its generator is in `layouts3`.

The numbers need no change. Both store unscaled weights as the equalised layers here do, and transposed convolutions
unflipped; only names and dimensions of size 1 differ. Sources: rosinality's stylegan2-pytorch, `model.py`; NVIDIA's
stylegan2-ada-pytorch, `training/networks.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

Row = tuple[str, str, str]  # a part of `Layout.parts`, its place here, and theirs
Shape = tuple[int, ...]
ROLES = ("G", "D")
MEAN = "mapping.mean"
FILTER = (1.0, 3.0, 3.0, 1.0)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BASES = (32768, 16384)  # usual values of ch_base, tried first
MOST = 10  # doublings, of which 8 give 1024 pixels


@dataclass(frozen=True)
class Rows:
    """The places of one network. mark: a name that only this network has.

    once, layer (of the mapping), block (of each doubling), labels: rows, whose places have the fields of `_fields`.
    residual, first: of D's blocks with residuals, and its layer from the image; each: that layer at every size.
    """

    mark: str
    once: tuple[Row, ...]
    block: tuple[Row, ...]
    layer: tuple[Row, ...] = ()
    labels: tuple[Row, ...] = ()
    residual: tuple[Row, ...] = ()
    first: tuple[Row, ...] = ()
    each: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Layout:
    """A code base's layout.

    title: its name in messages. raw, average, critic: the names of its networks in a file. parts: a part's tensors: our
    ending, theirs, and how their shape differs (`FORMS`). mean: the name of the mean of w in a file or in a network.
    unused: patterns of buffers that are not needed here. model: the one here that has such networks.
    """

    title: str
    raw: str
    average: str
    critic: str
    mean: str
    unused: str
    parts: Mapping[str, tuple[tuple[str, str, str], ...]]
    rows: Mapping[str, Rows] = field(default_factory=dict)
    model: str = "stylegan2"

    @property
    def system(self) -> str:
        """The model's name in messages."""
        return f"StyleGAN {self.model[-1]}"

    @property
    def names(self) -> dict[str, str]:
        """The role of each name in a file."""
        return {self.raw: ROLES[0], self.average: ROLES[0], self.critic: ROLES[1]}


DENSE = ((".weight", ".weight", "same"), (".bias", ".bias", "same"))
ROSINALITY = Layout(
    title="rosinality's",
    raw="g",
    average="g_ema",
    critic="d",
    mean="latent_avg",
    unused=r"(.*\.)?(blur|upsample)\.kernel|convs\.\d+\.(conv2|skip)\.0\.kernel|noises\.noise_\d+",
    parts={
        "constant": (("", "", "same"),),
        "dense": DENSE,
        "styled": (
            (".conv.weight", ".conv.weight", "first"),
            (".conv.style.weight", ".conv.modulation.weight", "same"),
            (".conv.style.bias", ".conv.modulation.bias", "same"),
            (".noise.scale", ".noise.weight", "same"),
            (".bias", ".activate.bias", "same"),
        ),
        "image": (
            (".weight", ".conv.weight", "first"),
            (".style.weight", ".conv.modulation.weight", "same"),
            (".style.bias", ".conv.modulation.bias", "same"),
            (".bias", ".bias", "channels"),
        ),
        "conv": ((".weight", ".0.weight", "same"), (".bias", ".1.bias", "same")),
        "halving": ((".weight", ".1.weight", "same"), (".bias", ".2.bias", "same")),
        "skip": ((".weight", ".1.weight", "same"),),
    },
    rows={
        "G": Rows(
            mark="input.input",
            once=(
                ("constant", "blocks.0.constant", "input.input"),
                ("styled", "blocks.0.conv", "conv1"),
                ("image", "blocks.0.to_image", "to_rgb1"),
            ),
            block=(
                ("styled", "blocks.{k}.up", "convs.{even}"),
                ("styled", "blocks.{k}.conv", "convs.{odd}"),
                ("image", "blocks.{k}.to_image", "to_rgbs.{before}"),
            ),
            layer=(("dense", "mapping.layers.{i}", "style.{after}"),),
        ),
        "D": Rows(
            mark="final_linear.1.weight",
            once=(
                ("conv", "conv", "final_conv"),
                ("dense", "dense", "final_linear.0"),
                ("dense", "out", "final_linear.1"),
            ),
            block=(
                ("conv", "blocks.{before}.conv", "convs.{down}.conv1"),
                ("halving", "blocks.{before}.down", "convs.{down}.conv2"),
            ),
            residual=(("skip", "blocks.{before}.skip", "convs.{down}.skip"),),
            first=(("conv", "from_image.0", "convs.0"),),
        ),
    },
)
NVIDIA = Layout(
    title="NVIDIA's",
    raw="G",
    average="G_ema",
    critic="D",
    mean="mapping.w_avg",
    unused=r"(.*\.)?(resample_filter|noise_const)",
    parts={
        "constant": (("", "", "bare"),),
        "dense": DENSE,
        "styled": (
            (".conv.weight", ".weight", "same"),
            (".conv.style.weight", ".affine.weight", "same"),
            (".conv.style.bias", ".affine.bias", "same"),
            (".noise.scale", ".noise_strength", "scalar"),
            (".bias", ".bias", "same"),
        ),
        "image": (
            (".weight", ".weight", "same"),
            (".style.weight", ".affine.weight", "same"),
            (".style.bias", ".affine.bias", "same"),
            (".bias", ".bias", "same"),
        ),
        "conv": DENSE,
        "skip": ((".weight", ".weight", "same"),),
    },
    rows={
        "G": Rows(
            mark="synthesis.b4.const",
            once=(
                ("constant", "blocks.0.constant", "synthesis.b4.const"),
                ("styled", "blocks.0.conv", "synthesis.b4.conv1"),
                ("image", "blocks.0.to_image", "synthesis.b4.torgb"),
            ),
            block=(
                ("styled", "blocks.{k}.up", "synthesis.b{side}.conv0"),
                ("styled", "blocks.{k}.conv", "synthesis.b{side}.conv1"),
                ("image", "blocks.{k}.to_image", "synthesis.b{side}.torgb"),
            ),
            layer=(("dense", "mapping.layers.{i}", "mapping.fc{i}"),),
            labels=(("dense", "mapping.embed", "mapping.embed"),),
        ),
        "D": Rows(
            mark="b4.out.weight",
            once=(("conv", "conv", "b4.conv"), ("dense", "dense", "b4.fc"), ("dense", "out", "b4.out")),
            block=(
                ("conv", "blocks.{before}.conv", "b{side}.conv0"),
                ("conv", "blocks.{before}.down", "b{side}.conv1"),
            ),
            layer=(("dense", "mapping.layers.{i}", "mapping.fc{i}"),),
            labels=(("dense", "mapping.embed", "mapping.embed"),),
            residual=(("skip", "blocks.{before}.skip", "b{side}.skip"),),
            first=(("conv", "from_image.0", "b{side}.fromrgb"),),
            each=(("conv", "from_image.{k}", "b{side}.fromrgb"),),
        ),
    },
)
NVIDIA3 = replace(  # the rows of G are in `layouts3`
    NVIDIA, model="stylegan3", rows={"G": Rows(mark="synthesis.input.freqs", once=(), block=()), "D": NVIDIA.rows["D"]}
)
LAYOUTS = (ROSINALITY, NVIDIA, NVIDIA3)


# How their shape differs: our shape by theirs, and theirs by ours.
FORMS: dict[str, tuple[Callable[[Shape], Shape], Callable[[Shape], Shape]]] = {
    "same": (lambda s: s, lambda s: s),
    "first": (lambda s: s[1:], lambda s: (1, *s)),
    "bare": (lambda s: (1, *s), lambda s: s[1:]),
    "scalar": (lambda s: (1,), lambda s: ()),
    "channels": (lambda s: s[1:2], lambda s: (1, *s, 1, 1)),
}


class LayoutError(ValueError):
    """Tensors that are not those of a network in this layout; the message says which, without the file."""


@dataclass(frozen=True)
class Plan:
    """What decides the names of a network's tensors.

    layers: of the mapping, 0 if it has none. architecture: D's, as in its settings; of G not used.
    """

    doublings: int
    layers: int
    labels: bool
    architecture: str = "resnet"


def recognised(state: Mapping[str, object]) -> tuple[Layout, str] | None:
    """The layout and role of a network's names; None if it is of neither code base."""
    pairs = ((layout, role) for layout in LAYOUTS for role in layout.rows)
    return next(((layout, role) for layout, role in pairs if layout.rows[role].mark in state), None)


def ours(layout: Layout, role: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names and in the shapes of `gancli.nets.stylegan2`, without the mean of w if there is none.

    Raises LayoutError for tensors that are missing, unknown, not finite or of another number of dimensions, and for
    another filter than [1, 3, 3, 1].
    """
    plan = planned(layout, role, state)
    if not plan.doublings or ((role == ROLES[0] or plan.labels) and not plan.layers):
        raise LayoutError(f"lacks {'the layers of a size above 4x4' if not plan.doublings else 'a mapping'}")
    wanted = table(layout, role, plan)
    missing = [theirs for theirs, _ in wanted.values() if theirs not in state]
    known = {theirs for theirs, _ in wanted.values()} | {layout.mean}
    strange = [name for name in state if name not in known and not re.fullmatch(layout.unused, name)]
    if missing or strange:
        word, name = ("lacks", missing[0]) if missing else ("has", strange[0])
        raise LayoutError(f"{word} {name[:80]}: not a network of the architecture of model=stylegan2")
    for name, value in state.items():
        if name.endswith(("kernel", "resample_filter")) and not _usual(value):
            raise LayoutError(f"{name[:80]} is another filter than [1, 3, 3, 1], the only one of model=stylegan2")
    found = {name: reshaped(theirs, form, state[theirs]) for name, (theirs, form) in wanted.items()}
    if layout.mean in state:
        found[MEAN] = reshaped(layout.mean, "same", state[layout.mean].reshape(-1))
    return found


def theirs(layout: Layout, role: str, state: Mapping[str, Tensor], plan: Plan) -> dict[str, Tensor]:
    """The inverse of `ours`: parameters by their names, without buffers."""
    wanted = table(layout, role, plan)
    return {name: state[own].reshape(FORMS[form][1](tuple(state[own].shape))) for own, (name, form) in wanted.items()}


def buffers(layout: Layout, plan: Plan, sides: tuple[int, int]) -> dict[str, Tensor]:
    """The filters and the noise maps that a generator of rosinality's code has beside its parameters.

    sides: of the base. The maps are random, from a fixed seed: their code draws others unless it is told to use these.
    """
    assert layout is ROSINALITY, "the buffers of another layout"
    line = torch.tensor(FILTER)
    kernel = line[:, None] * line * (4 / 64)  # the sum is 4: for resampling by 2 in both directions
    found: dict[str, Tensor] = {}
    for k in range(plan.doublings):
        found |= {f"convs.{2 * k}.conv.blur.kernel": kernel.clone(), f"to_rgbs.{k}.upsample.kernel": kernel.clone()}
    rng = torch.Generator().manual_seed(0)
    for i in range(2 * plan.doublings + 1):
        found[f"noises.noise_{i}"] = torch.randn(1, 1, *(side << (i + 1) // 2 for side in sides), generator=rng)
    return found


def table(layout: Layout, role: str, plan: Plan) -> dict[str, tuple[str, str]]:
    """Their name and form by our name."""
    return {own: (name, form) for own, name, form in _entries(layout, role, plan)}


def _entries(layout: Layout, role: str, plan: Plan) -> Iterator[tuple[str, str, str]]:
    for part, here, there in _places(layout.rows[role], plan, plan.doublings):
        for own, name, form in layout.parts[part]:
            yield here + own, there + name, form


def _places(rows: Rows, plan: Plan, last: int) -> Iterator[Row]:
    yield from rows.once
    yield from rows.labels if plan.labels else ()
    for i in range(plan.layers):
        yield from _filled(rows.layer, {"i": i, "after": i + 1})
    block = rows.block + (rows.residual if plan.architecture == "resnet" else ())
    for k in range(1, last + 1):
        yield from _filled(block, _fields(k, last))
    if plan.architecture == "skip":
        for k in range(last + 1):
            yield from _filled(rows.each, _fields(k, last))
    else:
        yield from _filled(rows.first, _fields(last, last))


def _fields(k: int, last: int) -> dict[str, int]:
    """The fields of the places of the k-th doubling of `last`; 0 is the base."""
    return {"k": k, "before": k - 1, "side": 4 << k, "even": 2 * k - 2, "odd": 2 * k - 1, "down": last - k + 1}


def _filled(rows: tuple[Row, ...], fields: Mapping[str, int]) -> Iterator[Row]:
    return ((part, here.format(**fields), there.format(**fields)) for part, here, there in rows)


def planned(layout: Layout, role: str, state: Mapping[str, object]) -> Plan:
    """What the names of a network in their layout say of it."""
    rows = layout.rows[role]

    def held(row: tuple[Row, ...], fields: Mapping[str, int]) -> bool:
        found = [(there, part) for part, _, there in _filled(row[:1], fields)]
        return any(there + layout.parts[part][0][1] in state for there, part in found)

    counts = [n for n in range(1, MOST) if all(held(rows.block, _fields(k, n)) for k in range(1, n + 1))]
    last = max(counts, default=0)
    layers = next((i for i in range(1000) if not held(rows.layer, {"i": i, "after": i + 1})), 0)
    residual = held(rows.residual, _fields(1, last))
    architecture = "resnet" if residual or role == ROLES[0] else "skip" if held(rows.each, _fields(0, last)) else "orig"
    return Plan(last, layers, held(rows.labels, {}), architecture)


def reshaped(name: str, form: str, value: Tensor) -> Tensor:
    back, forth = FORMS[form]
    shape = back(tuple(value.shape))
    if value.dtype not in FLOATS or not value.numel() or forth(shape) != tuple(value.shape):
        raise LayoutError(f"{name[:80]} is {list(value.shape)} of {value.dtype}, which no such network has")
    if not bool(value.isfinite().all()):
        raise LayoutError(f"{name[:80]} has numbers that are not finite")
    return value.reshape(shape)


def _usual(kernel: Tensor) -> bool:
    """Whether a filter is [1, 3, 3, 1] in both directions, times any factor."""
    line = torch.tensor(FILTER, dtype=torch.float64) / 8
    wanted = line[:, None] * line
    found = kernel.double()
    return found.shape == wanted.shape and bool(torch.allclose(found / found.sum(), wanted, atol=1e-3, rtol=0))
