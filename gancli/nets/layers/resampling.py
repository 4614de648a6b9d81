"""Low-pass filters with resampling by whole factors, as products of banded matrices (Karras et al. 2021, appendix C).

Filtering and resampling along one side is a product with a banded Toeplitz matrix. In channels-last images it is a
matrix product over all channels at once, and its gradients of all orders are products of the same kind.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gancli.nets.layers.matmul import exporting
from gancli.nets.layers.spectral import full_precision

CPU = torch.device("cpu")  # filters are designed there, whatever device a network is made on
TILE = 16  # outputs computed by one product, along the side; small tiles multiply fewer zeros


def kaiser(taps: int, cutoff: float, half_width: float, rate: float) -> Tensor:
    """Return a low-pass filter of sum 1, [taps] in float64: a sinc with a Kaiser window.

    cutoff, half_width: of the transition band, in the unit of the sampling rate. Source: Karras et al. 2021, appendix
    C.1; Kaiser 1974 for the window's β.

    >>> kaiser(4, 1.0, 1.0, 4.0).mul(1e4).round().tolist()
    [667.0, 4333.0, 4333.0, 667.0]
    """
    at = (torch.arange(taps, dtype=torch.float64, device=CPU) - (taps - 1) / 2) / rate
    line = torch.sinc(2 * cutoff * at) * _window(taps, half_width, rate)
    return line / line.sum()


def jinc(taps: int, cutoff: float, half_width: float, rate: float) -> Tensor:
    """Return a radially symmetric low-pass filter of sum 1, [taps, taps] in float64; arguments as for `kaiser`.

    taps: even, so that no tap is at the centre. Source: Karras et al. 2021, appendix C.1.
    """
    at = (torch.arange(taps, dtype=torch.float64, device=CPU) - (taps - 1) / 2) / rate
    radius = torch.hypot(at[:, None], at)
    window = _window(taps, half_width, rate)
    plane: Tensor = _bessel1(2 * math.pi * cutoff * radius) / radius * torch.outer(window, window)
    return plane / plane.sum()


def _bessel1(x: Tensor) -> Tensor:
    """J₁ for 0 < x < 40 by Bessel's integral, to float64's precision; torch.special.bessel_j1 is up to 5e-7 off.

    >>> _bessel1(torch.tensor([1.0, 20.0], dtype=torch.float64)).mul(1e12).round().tolist()
    [440050585745.0, 66833124176.0]
    """
    turn = torch.arange(96, dtype=torch.float64, device=CPU) * (2 * math.pi / 96)
    return torch.cos(turn - x[..., None] * turn.sin()).mean(-1)


def _window(taps: int, half_width: float, rate: float) -> Tensor:
    """Kaiser's window for the attenuation that the number of taps allows."""
    attenuation = 2.285 * (taps - 1) * math.pi * (4 * half_width / rate) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        over = max(0.0, attenuation - 21)
        beta = 0.5842 * over**0.4 + 0.07886 * over
    return torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float64, device=CPU)


def separated(plane: Tensor) -> Tensor:
    """Return filters [rank, 2, taps] of rows and columns, the sum of whose products is a symmetric filter [taps, taps].

    Terms below 1e-8 of the largest are left out: a radial filter of 12 taps needs 4.
    """
    values, vectors = torch.linalg.eigh(plane)
    kept = values.abs() > 1e-8 * values.abs().max()
    rows = vectors[:, kept].t()
    return torch.stack([rows * values[kept, None], rows], 1)


@dataclass(frozen=True)
class Plan:
    """Resampling of one side: y[i] = Σ_j f[j · up + low - i · down] x[j], f with `taps` taps, for `outputs` i.

    That is: zeros inserted between pixels, `low` more before them, the flipped filter, and every `down`-th result.
    """

    taps: int
    up: int
    down: int
    low: int
    outputs: int

    @property
    def first(self) -> int:
        """The first input that the first output depends on; negative: before the side's begin."""
        return -(self.low // self.up)

    @property
    def width(self) -> int:
        """The number of inputs that the outputs of a tile depend on."""
        return (self.taps - 1 + (self.tile - 1) * self.down - self.low) // self.up - self.first + 1

    @property
    def tile(self) -> int:
        """Outputs of a tile: their inputs begin a whole number of pixels after the last tile's."""
        return math.ceil(TILE / self.up) * self.up

    def adjoint(self, inputs: int) -> Plan:
        """The plan of the transposed matrix, whose filter is flipped."""
        return replace(self, up=self.down, down=self.up, low=self.taps - 1 - self.low, outputs=inputs)

    def block(self, taps: Tensor) -> Tensor:
        """The matrix of a tile, [tile, width]."""
        inputs = torch.arange(self.width, device=taps.device)
        outputs = torch.arange(self.tile, device=taps.device)
        at = (self.first + inputs) * self.up + self.low - outputs[:, None] * self.down
        inside = (at >= 0) & (at < self.taps)
        return torch.where(
            inside, taps[at.clamp(0, self.taps - 1)], torch.zeros((), dtype=taps.dtype, device=at.device)
        )


def product(x: Tensor, plan: Plan, block: Tensor, out: Tensor | None = None, add: bool = False) -> Tensor:
    """Multiply a side by the plan's matrix: x [n, side, rest] -> [n, outputs, rest], a tile at a time.

    block: of the plan. out: where to write the result, or with `add` to add it; None: a new tensor.
    """
    parts = []
    for k, start in enumerate(range(0, plan.outputs, plan.tile)):
        end = min(start + plan.tile, plan.outputs)
        low = plan.first + k * plan.tile * plan.down // plan.up
        a, z = max(low, 0), min(low + plan.width, x.shape[1])
        if a >= z:  # the filter sees only zeros beyond the side's ends
            a, z = 0, 1
            part = block.new_zeros(end - start, 1)
        else:
            part = block[: end - start, a - low : z - low]
        if out is None:
            parts.append(torch.matmul(part, x[:, a:z]))
            continue
        if x.device.type != "cpu":
            out[:, start:end].baddbmm_(part.expand(len(x), -1, -1), x[:, a:z], beta=float(add))
            continue
        for rows, given in zip(out[:, start:end], x[:, a:z], strict=True):
            torch.addmm(rows, part, given, beta=float(add), out=rows)
    return torch.cat(parts, 1) if out is None else out


def resampled(x: Tensor, plan: Plan, taps: Tensor, along: int) -> Tensor:
    """Resample the rows (`along` = 2) or columns (3) of images [B, C, H, W] by a filter of `taps`."""
    out: Tensor = _Resampled.apply(x, taps.to(x.dtype), plan, along)
    return out


def tracing() -> bool:
    """Whether a network is being compiled or exported, which takes plain operations only."""
    return torch.compiler.is_compiling() or exporting()


class _Resampled(torch.autograd.Function):
    """The product; its adjoint is the product with the transposed matrix. The filter gets no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor, plan: Plan, along: int) -> Tensor:
        ctx.save_for_backward(taps)
        ctx.plan, ctx.along, ctx.inputs = plan, along, x.shape[along]
        return _resampled(x, plan, taps, along)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (taps,) = ctx.saved_tensors
        return _Resampled.apply(grad, taps.flip(0), ctx.plan.adjoint(ctx.inputs), ctx.along), None, None, None


def _resampled(x: Tensor, plan: Plan, taps: Tensor, along: int) -> Tensor:
    """[B, C, H, W], in channels-last and out."""
    rows = x.permute(0, 2, 3, 1) if along == 2 else x.permute(0, 3, 2, 1)
    with full_precision(x):  # also in gradients, which may be taken under autocast
        made = product(rows.flatten(2), plan, plan.block(taps)).unflatten(2, rows.shape[2:])  # type: ignore[no-untyped-call]
    return made.permute(0, 3, 1, 2) if along == 2 else made.permute(0, 3, 2, 1)  # type: ignore[no-any-return]
