"""Figures of a generator: latent arithmetic and attention maps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.draw import pictures
from gancli.draw.sampling import CHUNK, Pair, Sampler
from gancli.errors import ConfigError, RunError
from gancli.games.game import label_of
from gancli.nets.layers.attention import Attention
from gancli.verbs.lists import seed_list

NEAR = 0.25  # half-width of the uniform noise around a sum of latents (Radford et al. 2016, figure 7)
POINTS = ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75))  # down, right: fractions of the image
COLOURS = ((230, 40, 60), (40, 120, 230), (20, 160, 90), (230, 150, 20), (150, 70, 200), (20, 170, 190))
SIDE = 96  # minimum side in pixels of an image in an attention sheet


@dataclass(frozen=True)
class Term:
    """A term of latent arithmetic: the mean of some seeds' latents, added or subtracted."""

    sign: int
    seeds: tuple[int, ...]


def terms(text: str) -> list[Term]:
    """Parse a text such as "3,7,11 - 1,2,5 + 8-10". Raises ConfigError.

    >>> terms("3,7 - 0-2")
    [Term(sign=1, seeds=(3, 7)), Term(sign=-1, seeds=(0, 1, 2))]
    """
    parts = re.split(r"\s+([+-])\s+", text.strip())
    found = [Term(1, tuple(seed_list(parts[0], "arithmetic")))]
    for sign, seeds in zip(parts[1::2], parts[2::2], strict=True):
        found.append(Term(1 if sign == "+" else -1, tuple(seed_list(seeds, "arithmetic"))))
    if len(found) < 2:
        raise ConfigError(
            f"arithmetic={text}: write a sum of means of seeds with spaces around + and -, such as"
            ' arithmetic="3,7,11 - 1,2,5 + 8,9,10"'
        )
    return found


def arithmetic(sampler: Sampler, text: str, chosen: int | None, seed: int) -> tuple[pictures.Pixels, int | None]:
    """Draw one row per term (its seeds, then their mean), then the sum amid eight neighbours; return sheet and class.

    Means are not rescaled, as in the paper: they are nearer to 0 than latents, which makes images more typical.
    chosen: the class of a conditional generator; None: the first seed's class.
    """
    parts = terms(text)
    paths = sampler.game.interpolation_paths(sampler.direction).values()
    column = next((path.column for path in paths if path.latent is not None), None)
    if column is None:
        raise RunError(
            f"{sampler.run.name} has no latents to add, since its samples are made from data: leave arithmetic out"
        )
    latents = [sampler.inputs([(s, 0) for s in term.seeds])[column] for term in parts]
    means = [z.mean(0, keepdim=True) for z in latents]
    total = torch.stack([term.sign * mean for term, mean in zip(parts, means, strict=True)]).sum(0)
    noise = (Rng(seed, "arithmetic", total=9).uniform("near", total.shape[1]) * 2 - 1) * NEAR
    noise[4] = 0  # the sum itself is in the middle
    around = total + noise.to(total.device)
    first, label = (parts[0].seeds[0], 0), label_of(sampler.game, sampler.direction)
    if label is not None and chosen is None:
        chosen = int(sampler.given([first])[label[0]])
    columns = max(3, *(len(z) + 1 for z in latents))

    def drawn(z: Tensor) -> Tensor:
        inputs = sampler.inputs([first] * len(z), sampler.given([first] * len(z), chosen)) | {column: z}
        return sampler.field.stored(sampler.generate(inputs, [first] * len(z))[sampler.column])

    rows = []
    for z, mean in zip(latents, means, strict=True):
        images = drawn(torch.cat([z, mean]))
        rows += [images[:-1], _paper(images, columns - len(images)), images[-1:]]
    images = drawn(around)
    for k in range(3):
        rows += [images[3 * k : 3 * k + 3], _paper(images, columns - 3)]
    return pictures.sheet(torch.cat(rows), columns), chosen


def _paper(like: Tensor, count: int) -> Tensor:
    return like.new_full((count, *like.shape[1:]), 255)


def attention(
    sampler: Sampler, seeds: Sequence[Pair], given: Mapping[str, Tensor], points: Sequence[Sequence[float]]
) -> dict[int, pictures.Pixels]:
    """Draw the attention maps of each layer, by its side in pixels: one row per image, one map per query point.

    A row begins with the image, its points marked; each map is bright where the attention weights are large (Zhang
    et al. 2019, figure 5). Raises RunError for a generator without attention, ConfigError for bad points.
    """
    where = checked_points(points)
    if len(seeds) > CHUNK:
        raise ConfigError(f"n={len(seeds)}: attention=true draws at most {CHUNK} images")
    with _watched([sampler.nets[name] for name in sampler.game.generators()]) as kept:
        if not kept:
            remedy = "train one with attention, such as model=sagan, or set model.attention=[16]"
            remedy = remedy if sampler.picture is None else "leave attention out"
            raise RunError(f"{sampler.run.name} has no attention in its generator: {remedy}")
        made = sampler.generate_here(sampler.inputs(seeds, given), seeds)  # in this process, where the hooks are
        images = sampler.field.stored(made[sampler.column])
    sheets = {}
    for layer, inputs in kept.items():
        x = torch.cat(inputs)[: len(images)]
        with torch.no_grad():
            maps = layer.maps(x)
        height, width = x.shape[2:]
        sheets[height] = _attention_sheet(images, maps.cpu(), (height, width), where)
    return sheets


@contextmanager
def _watched(nets: Sequence[nn.Module]) -> Iterator[dict[Attention, list[Tensor]]]:
    """Record the inputs of each attention layer while the context is active."""
    kept: dict[Attention, list[Tensor]] = {m: [] for net in nets for m in net.modules() if isinstance(m, Attention)}
    hooks = [layer.register_forward_hook(lambda m, args, out: kept[m].append(args[0])) for layer in kept]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def checked_points(points: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return query points as (down, right) fractions of the image. Raises ConfigError."""
    for point in points:
        if len(point) != 2 or not all(0 <= share <= 1 for share in point):
            given = [list(p) for p in points]
            raise ConfigError(f"points={given}: pairs of fractions of height and width, such as points=[[0.5,0.5]]")
    if not points:
        raise ConfigError("points=[]: at least one point, such as points=[[0.5,0.5]], or null for five")
    return [(float(down), float(right)) for down, right in points]


def _attention_sheet(
    images: Tensor, maps: Tensor, size: tuple[int, int], points: Sequence[tuple[float, float]]
) -> pictures.Pixels:
    """Draw the sheet of one layer. maps: [n, H·W, (H/2)·(W/2)]. size: the layer's (H, W)."""
    height, width = size
    scale = max(1, SIDE // min(images.shape[2:]))
    pages: list[pictures.Pixels] = []
    for image, weights in zip(images, maps, strict=True):
        large = pictures.to_pixels(image).repeat(scale, 0).repeat(scale, 1)
        marked = large.copy()
        for k, point in enumerate(points):
            _mark(marked, point, COLOURS[k % len(COLOURS)])
        pages.append(marked)
        grey = large.mean(2, keepdims=True)
        for k, (down, right) in enumerate(points):
            query = min(int(down * height), height - 1) * width + min(int(right * width), width - 1)
            seen = weights[query].view(1, 1, height // 2, width // 2).float()
            heat = F.interpolate(seen / seen.max(), size=large.shape[:2], mode="bilinear")[0, 0].numpy()[..., None]
            colour = np.array(COLOURS[k % len(COLOURS)], np.float32)
            page = np.clip(grey * 0.35 * (1 - heat) + (0.25 * grey + 0.75 * colour) * heat, 0, 255).astype(np.uint8)
            _mark(page, (down, right), COLOURS[k % len(COLOURS)])
            pages.append(page)
    stacked = torch.from_numpy(np.stack(pages)).permute(0, 3, 1, 2)
    return pictures.sheet(stacked, len(points) + 1, scale=1)


def _mark(page: pictures.Pixels, point: tuple[float, float], colour: tuple[int, int, int]) -> None:
    """Draw a square with a white border at a point."""
    height, width = page.shape[:2]
    y, x = min(int(point[0] * height), height - 1), min(int(point[1] * width), width - 1)
    for radius, ink in ((5, (255, 255, 255)), (3, colour)):
        page[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1] = ink
