"""StyleGAN 3's generator in its plainest form, on a state dict in NVIDIA's layout: a second opinion for tests.

Everything is in float64. Resampling inserts zeros and filters the large image with a full 2-D kernel, convolutions are
grouped with weights of each sample, and filters are designed by scipy. Nothing here uses the package. Source: Karras et
al. 2021, appendices B to D and the authors' constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy import signal, special
from torch import Tensor

State = dict[str, Tensor]
Variant = Literal["T", "R"]
LAYERS = 14  # beside the last one, to the image
CRITICAL, MARGIN, TAPS, CLAMP, SCALE = 2, 10, 6, 256.0, 0.25
FIRST, FIRST_STOP, LAST_STOP = (
    2.0,
    2**2.1,
    2**0.3,
)  # cutoff and stopband of the first layer, stopband / cutoff of the last


@dataclass(frozen=True)
class Signal:
    """What a layer's output is. cutoff, half (width of the transition): in cycles per image; size: with the margin."""

    channels: int
    size: int
    rate: int
    cutoff: float
    half: float


def signals(side: int, channels: int, base: int, most: int) -> list[Signal]:
    """The outputs of all layers for images of a side."""
    found = []
    for i in range(LAYERS + 1):
        share = min(i / (LAYERS - CRITICAL), 1.0)
        cutoff = FIRST * (side / 2 / FIRST) ** share
        stop = FIRST_STOP * (side / 2 * LAST_STOP / FIRST_STOP) ** share
        rate = 2 ** math.ceil(math.log2(min(2 * stop, side)))
        width = channels if i == LAYERS else round(min(base / 2 / cutoff, most))
        size = side if i >= LAYERS - 1 else rate + 2 * MARGIN
        found.append(Signal(width, size, rate, cutoff, max(stop, rate / 2) - cutoff))
    return found


@dataclass(frozen=True)
class Layer:
    """A layer between two signals, with its filters [taps] or [taps, taps]; None: the identity."""

    name: str
    source: Signal
    target: Signal
    kernel: int
    last: bool
    up: int
    down: int
    up_filter: np.ndarray | None
    down_filter: np.ndarray | None


def lowpass(taps: int, cutoff: float, half: float, rate: float, radial: bool = False) -> np.ndarray | None:
    """A Kaiser-windowed filter: a line for both directions, or the square of the jinc function."""
    if taps == 1:
        return None
    if not radial:
        line: np.ndarray = signal.firwin(taps, cutoff, width=2 * half, fs=rate)
        return line
    at = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.sqrt(at[:, None] ** 2 + at**2)
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, 4 * half / rate)))
    square: np.ndarray = special.j1(2 * np.pi * cutoff * radius) / (np.pi * radius) * window[:, None] * window
    return square / square.sum()


def layers(side: int, channels: int = 3, *, base: int, most: int, variant: Variant = "T") -> list[Layer]:
    """The layers of a generator. base, most: as ch_base and ch_max are given, which R doubles beforehand."""
    outputs = signals(side, channels, base, most)
    made = []
    for i, (source, target) in enumerate(pairwise([outputs[0], *outputs])):
        last, critical = i == LAYERS, i >= LAYERS - CRITICAL
        inner = max(source.rate, target.rate) * (1 if last else 2)
        up, down = inner // source.rate, inner // target.rate
        up_taps, down_taps = ((TAPS * n if n > 1 and not last else 1) for n in (up, down))
        made.append(
            Layer(
                f"synthesis.L{i}_{target.size}_{target.channels}", source, target,
                1 if last or variant == "R" else 3, last, up, down,
                lowpass(up_taps, source.cutoff, source.half, inner),
                lowpass(down_taps, target.cutoff, target.half, inner, variant == "R" and not critical),
            )
        )  # fmt: skip
    return made


def drawn(
    side: int, z: int, w: int, *, channels: int = 3, base: int, most: int, variant: Variant = "T", mapping: int = 2,
    labels: int = 0, seed: int = 0, filters: torch.dtype = torch.float32,
) -> State:  # fmt: skip
    """A state dict of random float32 weights, with all buffers. filters: the type of its filters, theirs by default."""
    rng = torch.Generator().manual_seed(seed)

    def new(*shape: int, by: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=rng) * by

    found = State()
    if labels:
        found |= {"mapping.embed.weight": new(w, labels), "mapping.embed.bias": new(w)}
    for i in range(mapping):
        inputs = w if i else z + (w if labels else 0)
        found |= {f"mapping.fc{i}.weight": new(w, inputs, by=100), f"mapping.fc{i}.bias": new(w, by=50)}
    found["mapping.w_avg"] = new(w)
    plan = layers(side, channels, base=base, most=most, variant=variant)
    first = plan[0].source
    points = new(first.channels, 2)
    radii = points.norm(dim=1, keepdim=True)
    found |= {
        "synthesis.input.weight": new(first.channels, first.channels),
        "synthesis.input.affine.weight": new(4, w, by=0.2),
        "synthesis.input.affine.bias": torch.tensor([1.0, 0, 0, 0]) + new(4, by=0.2),
        "synthesis.input.transform": torch.eye(3),
        "synthesis.input.freqs": points / radii * (1 - (-radii.square() / 2).exp()).sqrt() * first.cutoff,
        "synthesis.input.phases": torch.rand(first.channels, generator=rng) - 0.5,
    }
    for layer in plan:
        inputs, outputs = layer.source.channels, layer.target.channels
        own = {
            "affine.weight": new(inputs, w),
            "affine.bias": 1 + new(inputs, by=0.3),
            "weight": new(outputs, inputs, layer.kernel, layer.kernel),
            "bias": new(outputs, by=0.3),
            "magnitude_ema": new().exp(),
        }
        taps = {"up_filter": layer.up_filter, "down_filter": layer.down_filter}
        own |= {k: torch.from_numpy(f).to(filters) for k, f in taps.items() if f is not None}
        found |= {f"{layer.name}.{k}": t for k, t in own.items()}
    return found


# -- what it computes --------------------------------------------------------------------------------------------------


def bent(x: Tensor, slope: float = 0.2, gain: float = math.sqrt(2)) -> Tensor:
    return torch.where(x < 0, x * slope, x) * gain


def normal(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def convolved(x: Tensor, taps: np.ndarray | Tensor | None) -> Tensor:
    """Each channel with the whole filter, where it lies in the image."""
    if taps is None:
        return x
    full = torch.as_tensor(taps, dtype=x.dtype)
    full = full[:, None] * full if full.dim() == 1 else full
    return F.conv2d(x, full.flip(0, 1).expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


def apart(x: Tensor, n: int) -> Tensor:
    """n - 1 zeros after every pixel."""
    b, c, h, w = x.shape
    found = x.new_zeros(b, c, n * h, n * w)
    found[:, :, ::n, ::n] = x
    return found


def modulated(x: Tensor, weight: Tensor, style: Tensor, magnitude: Tensor, demodulate: bool) -> Tensor:
    """A padded convolution with weights of each sample, of inputs with this mean square."""
    if demodulate:
        weight = weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
        style = style / style.square().mean().sqrt()  # over the batch too
    each = weight[None] * style[:, None, :, None, None]
    if demodulate:
        each = each / (each.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    each = each / magnitude.sqrt()
    b, c, h, w = x.shape
    out = F.conv2d(x.reshape(1, b * c, h, w), each.flatten(0, 1), padding=weight.shape[2] - 1, groups=b)
    return out.view(b, -1, *out.shape[2:])


class Network:
    """A generator on a state dict, whose tensors it reads at every call (they may be replaced, and get gradients).

    stored: take the filters of the state dict, instead of those designed in float64. seen: after a call the mean square
    of each layer's input, [], which the moving averages follow; styles: w [B, w_dim] of the last latents.
    """

    seen: list[Tensor]
    styles: Tensor

    def __init__(
        self, state: Mapping[str, Tensor], side: int, *, base: int, most: int, variant: Variant = "T",
        stored: bool = False,
    ):  # fmt: skip
        last = f"synthesis.L{LAYERS}_{side}_"
        channels = next(int(k.removeprefix(last).split(".")[0]) for k in state if k.startswith(last))
        self.state, self.stored = state, stored
        self.layers = layers(side, channels, base=base, most=most, variant=variant)

    def __call__(self, z: Tensor | None, y: Tensor | None = None, **options: Any) -> Tensor:
        """Latents [B, z_dim] and one-hot labels [B, classes], or `w` -> images [B, C, H, W]. Options: `synthesis`."""
        if z is not None:
            self.styles = options["w"] = self.mapped(z, y)
        return self.synthesis(**options)

    def get(self, name: str) -> Tensor:
        return self.state[name].double()

    def dense(self, name: str, x: Tensor, rate: float = 1.0) -> Tensor:
        weight = self.get(f"{name}.weight")
        return x @ (weight * (rate / math.sqrt(weight.shape[1]))).T + self.get(f"{name}.bias") * rate

    def mapped(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, z_dim] -> [B, w_dim]."""
        x = normal(z.double())
        if y is not None:
            x = torch.cat([x, normal(self.dense("mapping.embed", y.double()))], 1)
        for i in range(sum(k.startswith("mapping.fc") and k.endswith("weight") for k in self.state)):
            x = bent(self.dense(f"mapping.fc{i}", x, 0.01))
        return x

    def synthesis(
        self, w: Tensor, *, transform: Tensor | None = None, magnitudes: Sequence[Tensor | float] | None = None
    ) -> Tensor:
        """Images of styles w, [B, w_dim] or [B, layers + 1, w_dim].

        transform: [3, 3], inverse, in units of the image's side, instead of the stored one. magnitudes: mean squares of
        the layers' inputs, instead of the stored moving averages.
        """
        w = w.double()
        w = w[:, None].expand(-1, LAYERS + 2, -1) if w.dim() == 2 else w
        x = self.features(w[:, 0], self.get("synthesis.input.transform") if transform is None else transform.double())
        self.seen = []
        for i, layer in enumerate(self.layers):
            self.seen.append(x.detach().square().mean())
            given = self.get(f"{layer.name}.magnitude_ema") if magnitudes is None else magnitudes[i]
            x = self.layer(layer, x, w[:, i + 1], torch.as_tensor(given, dtype=torch.float64))
        return x * SCALE

    def features(self, w: Tensor, transform: Tensor) -> Tensor:
        """The Fourier features [B, channels, size, size], rotated and moved by what w says, then by the transform."""
        first = self.layers[0].source
        told = self.dense("synthesis.input.affine", w)
        told = told / told[:, :2].square().sum(1, keepdim=True).sqrt()
        freqs, phases = self.get("synthesis.input.freqs"), self.get("synthesis.input.phases")
        weight = self.get("synthesis.input.weight") / math.sqrt(first.channels)
        centres = (torch.arange(first.size, dtype=torch.float64) + 0.5 - first.size / 2) / first.rate
        made = []
        for cosine, sine, right, down in told:
            zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
            turn = torch.stack([cosine, -sine, zero, sine, cosine, zero, zero, zero, one]).view(3, 3)
            move = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one]).view(3, 3)
            whole = turn @ move @ transform
            moved, turned = phases + freqs @ whole[:2, 2], freqs @ whole[:2, :2]
            beyond = (turned.square().sum(1).sqrt() - first.cutoff) / (first.rate / 2 - first.cutoff)
            angle = turned[:, 0, None, None] * centres + turned[:, 1, None, None] * centres[:, None]
            waves = (2 * math.pi * (angle + moved[:, None, None])).sin() * (1 - beyond).clamp(0, 1)[:, None, None]
            made.append(torch.einsum("oc,chw->ohw", weight, waves))
        return torch.stack(made)

    def layer(self, layer: Layer, x: Tensor, w: Tensor, magnitude: Tensor) -> Tensor:
        """A modulated convolution, then the nonlinearity at a higher rate, between two filters."""
        weight, style = self.get(f"{layer.name}.weight"), self.dense(f"{layer.name}.affine", w)
        if layer.last:
            style = style / math.sqrt(weight[0].numel())
        x = modulated(x, weight, style, magnitude, not layer.last)
        x = apart(x + self.get(f"{layer.name}.bias")[:, None, None], layer.up)
        up, down = layer.up_filter, layer.down_filter
        if self.stored:
            up, down = (self.state.get(f"{layer.name}.{way}_filter") for way in ("up", "down"))  # type: ignore[assignment]
        lost = sum(0 if taps is None else len(taps) - 1 for taps in (up, down))
        whole = (layer.target.size - 1) * layer.down + 1 + lost - x.shape[2]
        before = (whole + layer.up) // 2  # pixels are areas: their centres stay where they are
        pad = [before, whole - before]
        x = convolved(F.pad(x, pad * 2), up) * layer.up**2
        x = (x if layer.last else bent(x)).clamp(-CLAMP, CLAMP)
        x = convolved(x, down)[:, :, :: layer.down, :: layer.down]
        assert x.shape[2:] == (layer.target.size, layer.target.size)
        return x
