"""Layers of image translation in their fast forms beside torch's own: outputs, gradients, gradients of gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.device import Compute
from gancli.nets import translator
from gancli.nets.layers import few_channels, winograd
from gancli.nets.layers.instance import instance_norm
from gancli.nets.layers.reflect import ReflectConv2d, once

LAST = torch.channels_last
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def rows(*shape: int) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))
    return x.contiguous(memory_format=LAST).requires_grad_()


def both(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *given: Tensor) -> list[list[Tensor]]:
    """Output, gradients, and gradients of functions of these, twice over: of ours and of the plain form."""
    found = []
    for f in (ours, plain):
        out = f(*given)
        first = torch.autograd.grad(out.square().sum(), given, create_graph=True)
        again = torch.autograd.grad(sum((g**3).sum() for g in first), given, retain_graph=True)
        only = torch.autograd.grad(f(*given).square().sum(), given)
        third = torch.autograd.grad(sum((g**3).sum() for g in first), given, create_graph=True)
        last = torch.autograd.grad(sum(g.square().sum() for g in third), given)
        found.append([out, *first, *again, *only, *(g / g.abs().max() for g in last)])
    return found


@pytest.mark.parametrize("size", [(1, 4, 4), (2, 6, 10), (3, 8, 6)])
def test_winograd_is_a_convolution(size: tuple[int, int, int]) -> None:
    b, height, width = size
    torch.testing.assert_close(*both(winograd.convolve, F.conv2d, rows(b, 3, height, width), rows(4, 3, 3, 3)), **EXACT)


@pytest.mark.parametrize(("b", "outputs", "k"), [(1, 3, 7), (2, 1, 5), (2, 4, 3)])
def test_a_convolution_to_few_channels_is_one(b: int, outputs: int, k: int) -> None:
    ours, theirs = both(few_channels.convolve, F.conv2d, rows(b, 5, 12, 11), rows(outputs, 5, k, k))
    torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("b", [1, 3])
def test_instance_norm_keeps_the_order_of_images(b: int) -> None:
    x = rows(b, 3, 4, 5)
    torch.testing.assert_close(instance_norm(x), F.instance_norm(x), **EXACT)

    def plain(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt()

    torch.testing.assert_close(*both(instance_norm, plain, x), **EXACT)
    assert instance_norm(x).is_contiguous(memory_format=LAST)


def test_wide_layers_take_the_fast_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator of full width goes through both; what it makes is what torch's own convolutions make."""
    G = translator.Generator((3, 16, 16), 3, ch=64, blocks=1).double()
    Compute().place(G)
    used = []
    for name, module in (("tiled", winograd), ("convolve", few_channels)):
        plain = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, p=plain: (used.append(n), p(*a))[1])
    x = rows(2, 3, 16, 16)
    fast = G(x)
    assert used == ["tiled", "tiled", "convolve"]
    monkeypatch.setattr("gancli.nets.layers.reflect.by_hand", lambda _: False)
    torch.testing.assert_close(fast, G(x), **EXACT)
    assert used == ["tiled", "tiled", "convolve"]


def test_a_weight_is_made_ready_once_for_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside `once`; the gradient is the sum of those of the passes, and a changed weight is seen afterwards."""
    layer = ReflectConv2d(256, 256, 3).double()
    Compute().place(layer)
    x, made, plain = rows(1, 256, 4, 4), [0], winograd.factor

    def counted(weight: Tensor) -> Tensor:
        made[0] += 1
        return plain(weight)

    monkeypatch.setattr(winograd, "factor", counted)
    layer(layer(x)).sum().backward()
    assert made == [2]
    wanted = layer.weight.grad
    layer.zero_grad()
    with once(layer):
        layer(layer(x)).sum().backward()
    assert made == [3]
    torch.testing.assert_close(layer.weight.grad, wanted, **EXACT)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
    torch.testing.assert_close(layer(x), 2 * before, **EXACT)
