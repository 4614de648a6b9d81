"""Projection: search for the styles and the noise maps of which a generator makes a given image."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.rng import Rng
from gancli.draw.directions import styles_of
from gancli.draw.distances import Distance
from gancli.draw.sampling import Sampler
from gancli.games.game import Batch

Space = Literal["w", "w+"]
LATENTS = 10_000  # whose styles' mean is the start
RATE, BETAS = 0.1, (0.9, 0.999)
UP, DOWN = 0.05, 0.25  # shares of the steps in which the rate rises, and falls
NOISE, QUIET = 0.05, 0.75  # initial noise on w, in deviations of w, and the share of the steps after which it is 0
REGULARISED = 1e5  # weight of the noise maps' regulariser
COARSEST = 8  # side of noise maps that are not averaged further
WAY = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5)  # shares of the steps whose images are kept
COMPARED = 16  # samples whose mean distance is the scale


@dataclass(frozen=True)
class Projected:
    """A projection. w: [layers, width]. maps: noise maps [1, H, W] by column. image: network values [C, H, W].

    distance: of the image to the target. way: steps and the images there.
    """

    w: Tensor
    maps: dict[str, Tensor]
    image: Tensor
    distance: float
    way: list[tuple[int, Tensor]]


class Projector:
    """Projects images one by one, each as a function of only the weights, the image and the options.

    Karras et al. 2020, section 5 and appendix D: Adam on w from the mean of 10,000 latents' w, with decreasing noise on
    it, and on the noise maps, which a regulariser keeps free of the image. space: "w", one style for all layers, or
    "w+", one for each (Abdal et al. 2019). label: the class of the latents; None: drawn. Raises RunError for a
    generator without styles.
    """

    def __init__(
        self,
        sampler: Sampler,
        distance: Distance,
        steps: int = 1000,
        space: Space = "w",
        seed: int = 0,
        label: int | None = None,
    ):
        self.sampler, self.distance, self.steps, self.space, self.seed = sampler, distance, steps, space, seed
        self.styles, self.pairs = styles_of(sampler, "project="), [(seed, 0)]
        every = [(seed, k) for k in range(LATENTS)]
        w = sampler.computed(self.styles.made, sampler.inputs(every, sampler.given(every, label)))
        self.mean = w.mean(0)
        self.deviation = float((w - self.mean).square().sum(1).mean().sqrt())
        self.label, self.device = label, sampler.compute.device
        self.shapes = self.styles.maps(sampler.nets)

    def between_samples(self) -> float:
        """Return the mean distance between two samples: of all pairs of 16."""
        pairs = [(self.seed, k) for k in range(COMPARED)]
        samples = self.sampler.sample(pairs, self.sampler.given(pairs, self.label)).to(self.device)
        with torch.no_grad():
            found = [self.distance.to(samples[k : k + 1])(samples[k + 1 :]) for k in range(COMPARED - 1)]
        return float(torch.cat(found).mean())

    def __call__(self, target: Tensor, tick: Callable[[int], None] = lambda step: None) -> Projected:
        """Project an image [C, H, W] in [-1, 1]. tick: called with the number of steps taken."""
        measure = self.distance.to(target[None].to(self.device))
        w, maps = self._start()
        optimizer = torch.optim.Adam([w, *maps.values()], lr=RATE, betas=BETAS)
        kept = {round(share * self.steps) for share in WAY}
        way: list[tuple[int, Batch]] = []
        for step in range(self.steps):
            if step in kept:
                way.append((step, self._inputs(w, maps)))
            t = step / self.steps
            optimizer.param_groups[0]["lr"] = RATE * ramp(t)
            optimizer.zero_grad(set_to_none=True)
            loss = self._loss(measure, w, maps, t, step)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            for rows in maps.values():
                standardise(rows)
            tick(step + 1)
        final = self._inputs(w, maps)
        with torch.no_grad():
            image = self._image(final)
            distance = float(measure(image[None].to(self.device))[0])
        told = [(step, self._image(inputs)) for step, inputs in way]
        return Projected(final[self.styles.column][0], {name: final[name][0] for name in maps}, image, distance, told)

    def _start(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The parameters: styles [1, layers or 1, width] and noise maps."""
        layers = len(self.styles.sides) if self.space == "w+" else 1
        w = self.mean.to(self.device).expand(1, layers, -1).clone().requires_grad_()
        rng = Rng(self.seed, "projection", "maps", total=1, device=self.device)
        maps = {name: rng.normal(name, *shape).clone() for name, shape in self.shapes.items()}
        for rows in maps.values():
            standardise(rows)
            rows.requires_grad_()
        return w, maps

    def _loss(
        self, measure: Callable[[Tensor], Tensor], w: Tensor, maps: dict[str, Tensor], t: float, step: int
    ) -> Tensor:
        """The distance at w with noise, and the maps' regulariser."""
        scale = self.deviation * NOISE * max(0.0, 1 - t / QUIET) ** 2
        noise = Rng(self.seed, "projection", step, total=1, device=self.device).normal("w", *w.shape[1:])
        made = self._made(w + scale * noise, maps)
        regular = [correlation(rows) for rows in maps.values()]
        return measure(made).sum() + REGULARISED * (torch.stack(regular).sum() if regular else 0.0)

    def _made(self, w: Tensor, maps: dict[str, Tensor]) -> Tensor:
        """Make the image of styles, with the gradient."""
        game, whole = self.sampler.game, w.expand(-1, len(self.styles.sides), -1)
        inputs: dict[str, Any] = {self.styles.column: whole, **maps}
        return game.generate(self.sampler.nets, inputs, self.sampler.direction)[self.sampler.column]

    def _inputs(self, w: Tensor, maps: dict[str, Tensor]) -> Batch:
        """Copies of the parameters as the generator's inputs, on the CPU."""
        whole = w.detach().expand(-1, len(self.styles.sides), -1)
        copies = {name: rows.detach().to("cpu", copy=True) for name, rows in maps.items()}
        return {self.styles.column: whole.to("cpu", copy=True), **copies}

    def _image(self, inputs: Batch) -> Tensor:
        """Make the image of inputs exactly as `gan sample w=` does, [C, H, W]."""
        return self.sampler.generate(inputs, self.pairs)[self.sampler.column][0]


def ramp(t: float) -> float:
    """Return the factor of the learning rate at a share t of the steps: up linearly, at the end down along a cosine.

    >>> [round(ramp(t), 3) for t in (0.0, 0.025, 0.05, 0.5, 0.875, 1.0)]
    [0.0, 0.5, 1.0, 1.0, 0.5, 0.0]
    """
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / DOWN))
    return down * min(1.0, t / UP)


def correlation(maps: Tensor) -> Tensor:
    """Return the squared mean products of a noise map [1, 1, H, W] with itself shifted by one, summed over sizes.

    Each size is half the one before, down to sides of 8: means over 2×2 pixels, times 2 so that white noise keeps its
    variance (Karras et al. 2020, appendix D; the released code leaves the factor out).

    >>> correlation(torch.ones(1, 1, 4, 4)).item(), correlation(torch.ones(1, 1, 16, 16)).item()
    (2.0, 34.0)
    """
    total = maps.new_zeros(())
    while True:
        for axis in (2, 3):
            total = total + (maps * maps.roll(1, axis)).mean().square()
        if min(maps.shape[2:]) <= COARSEST:
            return total
        maps = F.avg_pool2d(maps, 2) * 2


@torch.no_grad()
def standardise(maps: Tensor) -> None:
    """Set the mean of a noise map to 0 and its variance to 1, in place."""
    maps.sub_(maps.mean())
    maps.mul_(maps.square().mean().rsqrt())
