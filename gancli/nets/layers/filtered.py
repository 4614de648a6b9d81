"""A LeakyReLU at a higher sampling rate, between two filters, which prevent aliasing (Karras et al. 2021, section 3).

The intermediate image is several times as large as the input and the output. On a CPU it is computed for one sample at
a time, which then stays in the cache, and it is computed again for gradients instead of being kept. Compiled and
exported networks use the library's depthwise convolutions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.nets.layers.modulated import limited
from gancli.nets.layers.resampling import Plan, product, tracing
from gancli.nets.layers.spectral import full_precision


@dataclass(frozen=True)
class Filters:
    """Plans (rows, columns) of the filter before and of that after the nonlinearity, and its negative slope."""

    up: tuple[Plan, Plan]
    down: tuple[Plan, Plan]
    slope: float


def plans(inputs: int, outputs: int, up: int, down: int, up_taps: int, down_taps: int) -> tuple[Plan, Plan]:
    """Upsampling of one side and downsampling after it, with `inputs` and `outputs` pixels around the same centre.

    Source: Karras et al. 2021, appendix C.3: pixels are cells, so the first of `up` values is half a cell off.

    >>> up, down = plans(38, 36, 2, 2, 12, 12)
    >>> up.low, up.outputs, down.outputs
    (9, 82, 36)
    """
    middle = (outputs - 1) * down + down_taps
    total = middle + up_taps - 1 - inputs * up  # pixels to add, or with a negative number to remove
    return Plan(up_taps, up, 1, (total + up) // 2, middle), Plan(down_taps, 1, down, 0, outputs)


def filtered(x: Tensor, filters: Filters, up: Tensor, down: Tensor) -> Tensor:
    """Upsample, LeakyReLU, downsample: [B, C, H, W] -> [B, C, outputs of rows, outputs of columns].

    up: filter [taps]. down: filters [rank, 2, taps] of rows and columns, whose products are added.
    """
    given = x.dtype
    with full_precision(x):  # taps of half precision let frequencies through
        x = x.to(torch.promote_types(given, torch.float32))
        up, down = up.to(x.dtype), down.to(x.dtype)
        out: Tensor = _in_one(x, filters, up, down) if tracing() else _Filtered.apply(x.detach(), x, filters, up, down)
        return limited(out.to(given))


def _in_one(x: Tensor, filters: Filters, up: Tensor, down: Tensor) -> Tensor:
    """The same by depthwise convolutions of the library, few operations for a compiler or an export."""
    count = x.shape[1]
    high = F.conv_transpose2d(x, torch.outer(up, up).expand(count, 1, -1, -1), stride=filters.up[0].up, groups=count)
    sides: list[int] = []
    for plan, length in zip(filters.up[::-1], high.shape[:1:-1], strict=True):  # columns first, as `pad` expects
        before = plan.low + 1 - plan.taps
        sides += [before, plan.outputs - before - length]
    high = F.leaky_relu(F.pad(high, sides), filters.slope)
    kernel = (down[:, 0, :, None] * down[:, 1, None]).sum(0).expand(count, 1, -1, -1)
    return F.conv2d(high, kernel, stride=filters.down[0].down, groups=count)


class _Filtered(torch.autograd.Function):
    """D(m(U x) · U v): U upsamples, m is the LeakyReLU's slope, D downsamples; x = v for the nonlinearity itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor, filters: Filters, up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(x, up, down)
        ctx.filters = filters
        same = x.data_ptr() == v.data_ptr()
        ups = _Side(filters.up, [(up, up)])
        downs = _Side(filters.down, [(a, b) for a, b in down])

        def made(part: Tensor, value: Tensor) -> Tensor:
            high = ups.to(part)
            if same:
                return downs.back(F.leaky_relu_(high, filters.slope))
            return downs.back(_sloped(high, ups.to(value), filters.slope))

        return _each(made, x, v)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None]:
        x, up, down = ctx.saved_tensors
        return None, _Adjoint.apply(x, grad, ctx.filters, up, down), None, None, None


class _Adjoint(torch.autograd.Function):
    """Uᵀ(m(U x) · Dᵀ g), the adjoint of `_Filtered` in v."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, g: Tensor, filters: Filters, up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(x, up, down)
        ctx.filters = filters
        ups = _Side(filters.up, [(up, up)])
        sides = [(a.flip(0), b.flip(0)) for a, b in down]
        widened = _Side([p.adjoint(q.outputs) for p, q in zip(filters.down, filters.up, strict=True)], sides)
        sizes = zip(filters.up, x.shape[2:], strict=True)
        narrowed = _Side([p.adjoint(n) for p, n in sizes], [(up.flip(0), up.flip(0))])

        def made(part: Tensor, grad: Tensor) -> Tensor:
            return narrowed.back(_sloped(ups.to(part), widened.to(grad), filters.slope))

        return _each(made, x, g)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None, None]:
        x, up, down = ctx.saved_tensors
        return None, _Filtered.apply(x, grad, ctx.filters, up, down), None, None, None


def _sloped(at: Tensor, x: Tensor, slope: float) -> Tensor:
    """x times the LeakyReLU's derivative at `at`."""
    out: Tensor = torch.ops.aten.leaky_relu_backward(x, at, slope, False)
    return out


def _each(made: Callable[[Tensor, Tensor], Tensor], x: Tensor, other: Tensor) -> Tensor:
    """Apply a function of two images to every sample on a CPU, to all at once elsewhere; [B, C, H, W] each."""
    size = 1 if x.device.type == "cpu" else len(x)
    parts = (torch.split(v.permute(0, 2, 3, 1).contiguous(), size) for v in (x, other))
    return torch.cat([made(a, b) for a, b in zip(*parts, strict=True)]).permute(0, 3, 1, 2)


class _Side:
    """Both directions' resampling of images [n, H, W, C]; between them the first two sides change places."""

    def __init__(self, plans: Sequence[Plan], taps: Sequence[tuple[Tensor, Tensor]]):
        self.rows, self.columns = plans
        self.blocks = [(self.rows.block(a), self.columns.block(b)) for a, b in taps]

    def to(self, x: Tensor) -> Tensor:
        """Rows, then columns: [n, H, W, C] -> [n, W', H', C]."""
        n, _, width, c = x.shape
        out = x.new_empty(n, self.columns.outputs, self.rows.outputs * c)
        for k, (rows, columns) in enumerate(self.blocks):
            tall = x.new_empty(n, self.rows.outputs, width * c)
            product(x.flatten(2), self.rows, rows, tall)
            turned = tall.view(n, -1, width, c).transpose(1, 2).contiguous().flatten(2)
            product(turned, self.columns, columns, out, add=k > 0)
        return out.view(n, self.columns.outputs, self.rows.outputs, c)

    def back(self, x: Tensor) -> Tensor:
        """Columns, then rows: [n, W, H, C] -> [n, H', W', C]."""
        n, _, height, c = x.shape
        out = x.new_empty(n, self.rows.outputs, self.columns.outputs * c)
        for k, (rows, columns) in enumerate(self.blocks):
            wide = x.new_empty(n, self.columns.outputs, height * c)
            product(x.flatten(2), self.columns, columns, wide)
            turned = wide.view(n, -1, height, c).transpose(1, 2).contiguous().flatten(2)
            product(turned, self.rows, rows, out, add=k > 0)
        return out.view(n, self.rows.outputs, self.columns.outputs, c)
