"""Filters with resampling, and the nonlinearity between them: scipy's designs, the plainest form, derivatives."""

from __future__ import annotations

import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

from gancli.nets.layers.filtered import Filters, filtered, plans
from gancli.nets.layers.resampling import Plan, jinc, kaiser, resampled, separated
from gancli.nets.stylegan3 import Generator
from tests import styled3


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("k", range(14))
@pytest.mark.parametrize("variant", ["T", "R"])
def test_filters_equal_scipys_designs(k: int, variant: Any) -> None:
    G = Generator((3, 64, 64), 8, variant=variant, w_dim=8, ch_base=64, ch_max=4)
    layer: Any = G.layers[k]
    plain = styled3.layers(64, base=64, most=4, variant=variant)[k]
    assert plain.up_filter is not None
    assert plain.down_filter is not None
    np.testing.assert_allclose(layer.up_filter / plain.up, plain.up_filter, atol=1e-6)
    full = torch.einsum("rk,rl->kl", layer.down_filter[:, 0], layer.down_filter[:, 1])
    wanted = plain.down_filter if plain.down_filter.ndim == 2 else np.outer(plain.down_filter, plain.down_filter)
    np.testing.assert_allclose(full, wanted, atol=1e-6)


def test_designs_equal_scipys() -> None:
    for taps, cutoff, half, rate in ((12, 2.0, 6.0, 32.0), (24, 25.4, 7.3, 128.0), (12, 32.0, 7.4, 128.0)):
        wanted = scipy.signal.firwin(taps, cutoff, width=2 * half, fs=rate)
        np.testing.assert_allclose(kaiser(taps, cutoff, half, rate), wanted, atol=1e-12)
        square = styled3.lowpass(taps, cutoff, half, rate, radial=True)
        np.testing.assert_allclose(jinc(taps, cutoff, half, rate), square, atol=1e-8)
        pairs = separated(jinc(taps, cutoff, half, rate))
        np.testing.assert_allclose(torch.einsum("rk,rl->kl", pairs[:, 0], pairs[:, 1]), square, atol=1e-8)


PLANS = [
    Plan(12, 2, 1, 9, 110), Plan(24, 4, 1, -6, 190), Plan(12, 1, 2, 0, 20), Plan(12, 2, 1, -11, 70),
    Plan(11, 1, 1, 5, 50), Plan(7, 2, 3, 4, 33), Plan(5, 1, 1, 60, 130),
]  # fmt: skip


@pytest.mark.parametrize("plan", PLANS)
def test_resampling_is_zero_insertion_and_a_filter(plan: Plan) -> None:
    x = torch.randn(2, 3, 4, 50, dtype=torch.float64, requires_grad=True)
    taps = torch.randn(plan.taps, dtype=torch.float64)
    wide = F.pad(styled3.apart(x, plan.up)[:, :, :: plan.up], [plan.low, 300])
    wanted = F.conv2d(wide.flatten(0, 1)[:, None], taps.view(1, 1, 1, -1))[:, 0].unflatten(0, (2, 3))
    wanted = wanted[..., :: plan.down][..., : plan.outputs]
    torch.testing.assert_close(resampled(x, plan, taps, 3), wanted, rtol=0, atol=1e-12)
    turned = resampled(x.transpose(2, 3), plan, taps, 2).transpose(2, 3)
    torch.testing.assert_close(turned, wanted, rtol=0, atol=1e-12)
    few = x[:1, :1, :2, :9].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resampled(x, plan, taps, 3), few)
    assert torch.autograd.gradgradcheck(lambda x: resampled(x, plan, taps, 3).square(), few)


def nonlinearity(up: int, slope: float, radial: bool, sides: tuple[int, int], outputs: tuple[int, int]) -> Any:
    pairs = [plans(n, m, up, 2, 6 * up, 12) for n, m in zip(sides, outputs, strict=True)]
    filters = Filters((pairs[0][0], pairs[1][0]), (pairs[0][1], pairs[1][1]), slope)
    rate = 8.0 * up
    down = separated(jinc(12, 2.0, 2.0, rate)) if radial else kaiser(12, 2.0, 2.0, rate).expand(1, 2, -1)
    return filters, kaiser(6 * up, 2.0, 2.0, rate) * up, down


@pytest.mark.parametrize("up", [2, 4])
@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_nonlinearity_is_its_plainest_form(up: int, radial: bool, layout: torch.memory_format) -> None:
    filters, line, down = nonlinearity(up, 0.2, radial, (9, 8), (10, 7))
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    made = filtered(x, filters, line, down)
    rows, columns = filters.up
    extent = [[p.low, p.outputs + p.taps - 1 - p.low - p.up * n] for p, n in ((columns, 8), (rows, 9))]
    wide = styled3.convolved(F.pad(styled3.apart(x, up), [*extent[0], *extent[1]]), line)
    whole = torch.einsum("rk,rl->kl", down[:, 0], down[:, 1])
    wanted = styled3.convolved(F.leaky_relu(wide, 0.2), whole)[:, :, ::2, ::2]
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-12)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (made, wanted)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)
    with mock.patch("gancli.nets.layers.filtered.tracing", return_value=True):
        torch.testing.assert_close(filtered(x, filters, line, down), wanted, rtol=0, atol=1e-12)
    few = x[:1, :1].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: filtered(x, filters, line, down), few)
    assert torch.autograd.gradgradcheck(lambda x: filtered(x, filters, line, down).square(), few)


def test_with_slope_1_the_nonlinearity_is_the_identity_for_band_limited_images() -> None:
    """Up to the ripple of the filters, here of 64 taps: 4 passes, each with that of the passband and of one image."""
    n, margin, taps, cutoff, half, rate = 40, 40, 64, 8.0, 4.0, 32.0
    up, down = plans(n + 2 * margin, n, 2, 2, taps, taps)
    filters = Filters((up, up), (down, down), 1.0)
    line = kaiser(taps, cutoff, half, 2 * rate)
    ripple = 10 ** (-scipy.signal.kaiser_atten(taps, 2 * half / rate) / 20)
    assert ripple < 1e-6
    at = (torch.arange(n + 2 * margin, dtype=torch.float64) + 0.5 - n / 2 - margin) / rate
    for frequency in (0.0, 1.0, 3.0):
        wave = torch.cos(2 * math.pi * (frequency * at[:, None] + frequency / 2 * at) + 0.3)[None, None]
        made = filtered(wave, filters, line * 2, line.expand(1, 2, -1))
        wanted = wave[:, :, margin:-margin, margin:-margin]
        torch.testing.assert_close(made, wanted, rtol=0, atol=8 * ripple)
